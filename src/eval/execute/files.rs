//! What a program writes: its output, its report and its folder.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Entries of a program's folder that are counted; one with more is full.
const MOST_ENTRIES: u32 = 4096;

/// A file that the program writes to, so that no reader has to keep up with it, and a child that holds it open keeps
/// nobody waiting.
pub(super) struct Stream {
    path: PathBuf,
    file: File,
}

impl Stream {
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        let file =
            File::options().read(true).write(true).create_new(true).open(&path).map_err(Error::io("create", &path))?;
        Ok(Self { path, file })
    }

    /// It can be appended to, and not read.
    pub(super) fn writer(&self) -> Result<Stdio> {
        File::options().append(true).open(&self.path).map(Stdio::from).map_err(Error::io("open", &self.path))
    }

    pub(super) fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// The last part of it; all of any honest report.
    pub(super) fn tail(&self) -> Vec<u8> {
        const TAIL: u64 = 8 << 10;
        let mut file = &self.file;
        let mut bytes = Vec::new();
        let start = SeekFrom::Start(self.len().saturating_sub(TAIL));
        let read = file.seek(start).and_then(|_| file.take(TAIL).read_to_end(&mut bytes));
        if read.is_ok() { bytes } else { Vec::new() }
    }

    pub(super) fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.tail()).into_owned();
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().chars().filter(|c| !c.is_control()).take(300).collect())
    }
}

/// Whether the files under `folder` are longer than `bytes` together, or too many to count.
pub(super) fn is_above(folder: &Path, bytes: u64) -> bool {
    let (mut total, mut entries, mut pending) = (0, 0, vec![folder.to_path_buf()]);
    while let Some(folder) = pending.pop() {
        // What is deleted meanwhile is not there any more.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            entries += 1;
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => pending.push(entry.path()),
                Ok(metadata) => total += metadata.len(),
                Err(_) => {}
            }
            if total > bytes || entries > MOST_ENTRIES {
                return true;
            }
        }
    }
    false
}
