//! Whether what lies on disk is still what was written: runs, checkpoints, data sets, token shards and model directories,
//! by their checksums where they have some, else by their structure.
//!
//! Only reads, takes no lock, and looks at nothing that is being written (`.tmp-*`, the torn last line of a log): a run may
//! go on meanwhile.

mod checkpoint;
mod data;
mod model;
mod run;

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::checkpoint::hugging_face::{CONFIG_FILE, INDEX_FILE, SINGLE_FILE};
use crate::checkpoint::layout::{self, Pointer};
use crate::checkpoint::{manifest, storage};
use crate::data::manifest::MANIFEST;
use crate::data::shard;
use crate::error::{Error, OneLine, Result};
use crate::report::history::is_run;

/// What a path was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What `trainer train --out` writes.
    Run,
    /// One `step-NNNNNNNN` of a run.
    Checkpoint,
    /// What `trainer prepare` writes, or a directory of llm.c's shards.
    Data,
    /// One token shard.
    Shard,
    /// A Hugging Face directory.
    Model,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Checkpoint => "checkpoint",
            Self::Data => "data directory",
            Self::Shard => "token shard",
            Self::Model => "model directory",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub path: PathBuf,
    pub ok: bool,
    /// How it was checked; or what is wrong with it, and what to do.
    pub what: String,
}

/// Everything that was looked at, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub path: PathBuf,
    pub kind: Kind,
    pub checks: Vec<Check>,
}

impl Report {
    /// Those that are not what they should be.
    pub fn damaged(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.ok)
    }
}

/// Is told how far it is, from any thread.
pub trait Progress: Sync {
    /// So many more bytes are going to be read.
    fn expect(&self, bytes: u64);
    /// So many bytes were read since the last call.
    fn read(&self, bytes: u64);
}

/// Nobody watches.
impl Progress for () {
    fn expect(&self, _: u64) {}
    fn read(&self, _: u64) {}
}

/// Checks whatever `path` is. Damage is in the report, not an error.
///
/// # Errors
/// A path that is nothing of the kinds above, or another model's directory.
pub fn verify(path: &Path, progress: &dyn Progress) -> Result<Report> {
    let (kind, place) = recognise(path)?;
    if kind == Kind::Model {
        model::refuse_other(&place)?;
    }
    let mut checks = Checks { list: Vec::new(), progress };
    match kind {
        Kind::Run => run::check(&place, &mut checks),
        Kind::Checkpoint => checkpoint::check(&place, &mut checks),
        Kind::Data => data::check(&place, &mut checks),
        Kind::Shard => data::check_shard(&place, &mut checks),
        Kind::Model => model::check(&place, &mut checks),
    }
    Ok(Report { path: path.to_path_buf(), kind, checks: checks.list })
}

/// What is at `path`, and where that is: a pointer of a run stands for the checkpoint that it names.
fn recognise(path: &Path) -> Result<(Kind, PathBuf)> {
    const EXPECTED: &str = "expected a run, a checkpoint, a data directory, a token shard or a Hugging Face directory";
    if !path.exists() {
        return Err(Error::input(format!("{} does not exist: {EXPECTED}", path.display())));
    }
    let here = |kind| Ok((kind, path.to_path_buf()));
    let has = |name: &str| path.join(name).is_file();
    if path.is_file() {
        if let Some(checkpoint) = pointed_at(path) {
            return Ok((Kind::Checkpoint, checkpoint));
        }
        if is_bin(path) || starts_as_shard(path) {
            return here(Kind::Shard);
        }
    } else if is_run(path) || layout::list_steps(path).is_ok_and(|steps| !steps.is_empty()) {
        return here(Kind::Run);
    } else if is_checkpoint(path) {
        return here(Kind::Checkpoint);
    } else if has(MANIFEST) {
        return here(Kind::Data);
    } else if [CONFIG_FILE, SINGLE_FILE, INDEX_FILE].into_iter().any(has) {
        return here(Kind::Model);
    } else if fs::read_dir(path).into_iter().flatten().flatten().any(|entry| is_bin(&entry.path())) {
        return here(Kind::Data);
    }
    Err(Error::input(format!("{} is nothing that can be verified: {EXPECTED}", path.display())))
}

fn is_checkpoint(dir: &Path) -> bool {
    let named = dir.file_name().and_then(|name| layout::parse_step_name(name.to_str()?)).is_some();
    let parts = [dir.join("state.json").is_file(), dir.join("model").is_dir()];
    dir.join(manifest::FILE_NAME).is_file() || parts == [true, true] || (named && parts.contains(&true))
}

/// The checkpoint that a pointer file of a run names.
fn pointed_at(path: &Path) -> Option<PathBuf> {
    let pointer =
        Pointer::ALL.into_iter().find(|pointer| path.file_name().is_some_and(|name| name == pointer.name()))?;
    let checkpoints = storage::parent(path);
    let step = pointer.read(&checkpoints.join("..")).ok()??;
    Some(checkpoints.join(layout::step_name(step))).filter(|dir| dir.is_dir())
}

fn is_bin(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "bin")
}

fn starts_as_shard(path: &Path) -> bool {
    let mut start = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && shard::is_magic(start)
}

/// The report while it is being made.
struct Checks<'a> {
    list: Vec<Check>,
    progress: &'a dyn Progress,
}

impl Checks<'_> {
    /// Adds what came of looking at `path`.
    fn add(&mut self, path: &Path, outcome: Result<String>) {
        let (ok, what) = match outcome {
            Ok(what) => (true, what),
            // The line names the path already.
            Err(Error::File { path: of, what }) if of == path => (false, OneLine(what).to_string()),
            Err(error) => (false, error.to_string()),
        };
        self.list.push(Check { path: path.to_path_buf(), ok, what });
    }

    /// Whether all is well with what was added since there were `before` checks.
    fn ok_since(&self, before: usize) -> bool {
        self.list[before..].iter().all(|check| check.ok)
    }
}

/// Bytes of the files under `path`, as far as they can be seen.
fn size(path: &Path) -> u64 {
    let bytes = |path: PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
    match storage::walk(path) {
        Ok((files, _)) => files.into_iter().map(|file| bytes(path.join(file))).sum(),
        Err(_) => bytes(path.to_path_buf()),
    }
}
