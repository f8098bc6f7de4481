//! Files that survive a crash: synced writes, atomic replacement, checksums.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::{Error, Result};

/// Bytes of a file that one task checksums; CRC-32s of neighbouring pieces combine into that of the whole.
const CHECKSUM_PIECE: u64 = 32 << 20;

/// As [`Error::io`], but a full disk and a lack of permission say what to do about it.
pub fn write_error(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
    let path = path.as_ref().to_path_buf();
    move |source| match source.kind() {
        // The last is a limit on the size of a process's files (`ulimit -f`).
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::failed(format!(
                "cannot {action} {}: no space is left there ({source}); free some space or choose another directory",
                path.display()
            ))
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Error::failed(format!(
            "cannot {action} {}: this user may not write there ({source}); change the permissions or choose another \
             directory",
            path.display()
        )),
        _ => Error::Io { action, path, source },
    }
}

/// Creates a directory and its parents.
pub fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(write_error("create", path))
}

/// Writes a file's content and syncs it.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(write_error("write", path))
}

/// Replaces a small file so that a reader, and a crash, see either the old content or the new.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = sibling(path, ".tmp");
    let replaced = write_synced(&temporary, bytes).and_then(|()| rename(&temporary, path));
    if replaced.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    replaced?;
    sync_dir(parent(path))
}

/// `DIR/NAME` gives `DIR/.NAME<suffix>`.
pub fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}{suffix}"))
}

/// The directory that holds `path`, in a form that can be opened.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(write_error("rename", from))
}

/// Syncs a file that somebody else has written. Windows flushes no handle that only reads; elsewhere opening for writing
/// would fail on a file copied from a read-only one.
pub fn sync_file(path: &Path) -> Result<()> {
    let file = OpenOptions::new().read(true).write(cfg!(windows)).open(path);
    file.and_then(|file| file.sync_all()).map_err(write_error("sync", path))
}

/// Makes the names in a directory durable. Windows has no such call: NTFS journals its names itself.
pub fn sync_dir(path: &Path) -> Result<()> {
    #[cfg(unix)]
    match File::open(path).and_then(|dir| dir.sync_all()) {
        // Some network file systems refuse to sync a directory; they have no stronger promise to give.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {}
        other => other.map_err(write_error("sync", path))?,
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// The names in a directory; none where there is no such directory.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect())
            .map_err(Error::io("read", dir)),
    }
}

/// Every file under `root`, as paths relative to it, sorted; directories (relative, deepest first) beside them.
pub fn walk(root: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut dirs, mut pending) = (Vec::new(), Vec::new(), vec![PathBuf::new()]);
    while let Some(relative) = pending.pop() {
        let path = root.join(&relative);
        for entry in fs::read_dir(&path).map_err(Error::io("read", &path))? {
            let entry = entry.map_err(Error::io("read", &path))?;
            let child = relative.join(entry.file_name());
            if entry.file_type().map_err(Error::io("read", entry.path()))?.is_dir() {
                pending.push(child);
            } else {
                files.push(child);
            }
        }
        dirs.push(relative);
    }
    files.sort();
    dirs.reverse();
    Ok((files, dirs))
}

/// Length in bytes and CRC-32 (IEEE 802.3, as gzip has it) of a file, computed on all cores.
pub fn checksum(path: &Path) -> Result<(u64, u32)> {
    checksum_watched(path, &|_| {})
}

/// As [`checksum`]; `read` is told the bytes read since its last call.
pub fn checksum_watched(path: &Path, read: &(dyn Fn(u64) + Sync)) -> Result<(u64, u32)> {
    let bytes = fs::metadata(path).map_err(Error::io("read", path))?.len();
    let pieces = bytes.div_ceil(CHECKSUM_PIECE).max(1);
    let hashers: Vec<crc32fast::Hasher> = (0..pieces)
        .into_par_iter()
        .map(|piece| {
            let start = piece * CHECKSUM_PIECE;
            checksum_piece(path, start, CHECKSUM_PIECE.min(bytes - start), read)
        })
        .collect::<io::Result<_>>()
        .map_err(Error::io("read", path))?;
    let mut whole = crc32fast::Hasher::new();
    hashers.iter().for_each(|piece| whole.combine(piece));
    Ok((bytes, whole.finalize()))
}

fn checksum_piece(path: &Path, start: u64, bytes: u64, read: &(dyn Fn(u64) + Sync)) -> io::Result<crc32fast::Hasher> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut buffer = vec![0; bytes.min(1 << 20) as usize];
    let (mut hasher, mut left) = (crc32fast::Hasher::new(), bytes);
    while left > 0 {
        let want = left.min(buffer.len() as u64) as usize;
        file.read_exact(&mut buffer[..want])?;
        hasher.update(&buffer[..want]);
        read(want as u64);
        left -= want as u64;
    }
    Ok(hasher)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_combine_over_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        let bytes: Vec<u8> =
            (0..2 * CHECKSUM_PIECE as u32 + 12_345).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        assert_eq!(checksum(&path).unwrap(), (bytes.len() as u64, crc32fast::hash(&bytes)));
        fs::write(&path, b"").unwrap();
        assert_eq!(checksum(&path).unwrap(), (0, 0));
        // The published check value of CRC-32.
        fs::write(&path, b"123456789").unwrap();
        assert_eq!(checksum(&path).unwrap(), (9, 0xCBF4_3926));
    }

    #[test]
    fn replacing_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latest");
        replace_file(&path, b"one").unwrap();
        replace_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        let blocked = dir.path().join("directory");
        fs::create_dir(&blocked).unwrap();
        assert!(replace_file(&blocked, b"x").is_err());
        assert!(!sibling(&blocked, ".tmp").exists());
    }

    #[test]
    fn full_disks_and_permissions_are_one_sentence_that_says_what_to_do() {
        let full = write_error("write", "/run/a")(io::ErrorKind::StorageFull.into());
        assert!(full.to_string().contains("free some space"), "{full}");
        assert_eq!(full.exit_code(), 1);
        let refused = write_error("create", "/run/a")(io::ErrorKind::PermissionDenied.into());
        assert!(refused.to_string().contains("change the permissions"), "{refused}");
    }
}
