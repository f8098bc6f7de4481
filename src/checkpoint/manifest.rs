//! MANIFEST: what a checkpoint consists of, and whether it still does.
//!
//! ```text
//! trainer manifest 1
//! 6d1f00c2 671 model/config.json
//! 90ab12cd 2114800 model/model.safetensors
//! end 2 files 77e01b9a
//! ```
//! A line a file: CRC-32, bytes, path with `/`. The last line holds the CRC-32 of all lines above it. CRC-32 guards
//! against accidents of disks and copies, not against an adversary, and keeps up with the disk on one core where SHA-256
//! does not on CPUs without instructions for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::storage;
use crate::error::{Error, Result, Short};

pub const FILE_NAME: &str = "MANIFEST";
const FIRST_LINE: &str = "trainer manifest 1";
/// Left in a folder by the file managers of macOS and Windows when somebody looks into it.
const IGNORED: [&str; 2] = [".DS_Store", "Thumbs.db"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    bytes: u64,
    crc32: u32,
}

/// The files of a checkpoint by relative path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    files: BTreeMap<String, Entry>,
}

impl Manifest {
    /// Syncs and checksums every file under `dir`.
    pub(super) fn of_synced(dir: &Path) -> Result<Self> {
        let files = storage::walk(dir)?.0;
        let entries = files.par_iter().map(|file| {
            let path = dir.join(file);
            let name = portable_name(file).ok_or_else(|| {
                Error::failed(format!("a checkpoint file needs a plain UTF-8 name, found {}", path.display()))
            })?;
            storage::sync_file(&path)?;
            let (bytes, crc32) = storage::checksum(&path)?;
            Ok((name, Entry { bytes, crc32 }))
        });
        Ok(Self { files: entries.filter(|entry| !is_ignored(entry)).collect::<Result<_>>()? })
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        for (name, Entry { bytes, crc32 }) in &self.files {
            let _ = writeln!(text, "{crc32:08x} {bytes} {name}");
        }
        let crc32 = crc32fast::hash(text.as_bytes());
        let _ = writeln!(text, "end {} files {crc32:08x}", self.files.len());
        text
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        if text.lines().next() != Some(FIRST_LINE) {
            return Err(format!("does not begin with the line \"{FIRST_LINE}\""));
        }
        let body_end = text.rfind("end ").filter(|end| text.ends_with('\n') && text[..*end].ends_with('\n'));
        let (body, last) = text.split_at(body_end.ok_or("is truncated")?);
        let mut files = BTreeMap::new();
        for line in body.lines().skip(1) {
            let entry = parse_line(line).ok_or_else(|| format!("has an unreadable line \"{}\"", Short(line)))?;
            files.insert(entry.0, entry.1);
        }
        let expected = format!("end {} files {:08x}\n", files.len(), crc32fast::hash(body.as_bytes()));
        if last != expected { Err("does not match its own checksum".to_string()) } else { Ok(Self { files }) }
    }

    /// Reads `dir/MANIFEST`. `Ok(Err(_))` says in words what is wrong with it.
    fn read(dir: &Path) -> Result<std::result::Result<Self, String>> {
        let path = dir.join(FILE_NAME);
        match fs::read(&path) {
            Ok(bytes) => Ok(match std::str::from_utf8(&bytes) {
                Ok(text) => Self::parse(text).map_err(|what| format!("{FILE_NAME} {what}")),
                Err(_) => Err(format!("{FILE_NAME} is not text")),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Err(format!("{FILE_NAME} is missing"))),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }
}

fn is_ignored(entry: &Result<(String, Entry)>) -> bool {
    matches!(entry, Ok((name, _)) if IGNORED.contains(&file_name(name)))
}

fn file_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn parse_line(line: &str) -> Option<(String, Entry)> {
    let mut parts = line.splitn(3, ' ');
    let crc32 = u32::from_str_radix(parts.next()?, 16).ok()?;
    let bytes = parts.next()?.parse().ok()?;
    Some((parts.next()?.to_string(), Entry { bytes, crc32 }))
}

/// A relative path with `/` on every platform; `None` where the name cannot stand in a text line.
fn portable_name(relative: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = relative.iter().map(|part| part.to_str()).collect();
    Some(parts?.join("/")).filter(|name| !name.contains(['\n', '\r']))
}

/// Checks every file of a checkpoint directory against its MANIFEST.
///
/// # Errors
/// One [`Error::File`] that names every file that is missing, extra, of the wrong length, or changed.
pub fn verify(dir: &Path) -> Result<()> {
    verify_part(dir, "")
}

/// As [`verify`], for the files whose path begins with `prefix` ("model/": a reader of the model need not read the
/// optimizer, six times its size).
pub fn verify_part(dir: &Path, prefix: &str) -> Result<()> {
    verify_watched(dir, prefix, &|_| {}).map(|_| ())
}

/// As [`verify_part`]; `read` is told the bytes read since its last call. Returns the number of files and their bytes.
pub fn verify_watched(dir: &Path, prefix: &str, read: &(dyn Fn(u64) + Sync)) -> Result<(usize, u64)> {
    let damaged = |what: String| Error::file(dir, format!("the checkpoint is damaged: {what}"));
    if !dir.is_dir() {
        return Err(damaged("there is no such directory".to_string()));
    }
    let manifest = Manifest::read(dir)?.map_err(damaged)?;
    let problems = problems(dir, &manifest, prefix, read)?;
    if !problems.is_empty() {
        return Err(damaged(problems.join("; ")));
    }
    let files = manifest.files.iter().filter(|(name, _)| name.starts_with(prefix));
    Ok(files.fold((0, 0), |(files, bytes), (_, entry)| (files + 1, bytes + entry.bytes)))
}

fn problems(dir: &Path, manifest: &Manifest, prefix: &str, read: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>> {
    let mut problems: Vec<String> = manifest
        .files
        .par_iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, expected)| problem(&dir.join(name.split('/').collect::<PathBuf>()), name, *expected, read))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    for file in storage::walk(dir)?.0 {
        let name = portable_name(&file).unwrap_or_else(|| file.to_string_lossy().into_owned());
        let ours = name == FILE_NAME || manifest.files.contains_key(&name) || IGNORED.contains(&file_name(&name));
        if !ours && name.starts_with(prefix) {
            problems.push(format!("{name} is not part of it (extra file)"));
        }
    }
    Ok(problems)
}

fn problem(path: &Path, name: &str, expected: Entry, read: &(dyn Fn(u64) + Sync)) -> Result<Option<String>> {
    let name = Short(name);
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => return Ok(Some(format!("{name} is not a file"))),
        Ok(found) if found.len() != expected.bytes => {
            return Ok(Some(format!("{name} has {} bytes, expected {}", found.len(), expected.bytes)));
        }
        Ok(_) => {}
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::InvalidFilename
                    | io::ErrorKind::InvalidInput
            ) =>
        {
            return Ok(Some(format!("{name} is missing")));
        }
        Err(error) => return Err(Error::io("read", path)(error)),
    }
    let (_, crc32) = storage::checksum_watched(path, read)?;
    let changed = || format!("{name} has changed (CRC-32 {crc32:08x}, expected {:08x})", expected.crc32);
    Ok((crc32 != expected.crc32).then(changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("model")).unwrap();
        fs::write(dir.path().join("model").join("weights with space"), vec![7; 1000]).unwrap();
        fs::write(dir.path().join("state.json"), b"{}").unwrap();
        fs::write(dir.path().join("empty"), b"").unwrap();
        let manifest = Manifest::of_synced(dir.path()).unwrap();
        fs::write(dir.path().join(FILE_NAME), manifest.to_text()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), Ok(manifest));
        dir
    }

    fn message(dir: &tempfile::TempDir) -> String {
        verify(dir.path()).expect_err("must be refused").to_string()
    }

    #[test]
    fn every_kind_of_damage_is_named() {
        let dir = checkpoint();
        verify(dir.path()).unwrap();
        fs::write(dir.path().join(".DS_Store"), b"").unwrap();
        verify(dir.path()).unwrap();

        let weights = dir.path().join("model").join("weights with space");
        let mut bytes = fs::read(&weights).unwrap();
        bytes[500] ^= 1;
        fs::write(&weights, &bytes).unwrap();
        fs::remove_file(dir.path().join("empty")).unwrap();
        fs::write(dir.path().join("state.json"), b"{").unwrap();
        fs::write(dir.path().join("model").join("other"), b"").unwrap();
        let message = message(&dir);
        for part in [
            "model/weights with space has changed",
            "empty is missing",
            "state.json has 1 bytes, expected 2",
            "model/other is not part of it",
        ] {
            assert!(message.contains(part), "{message}");
        }
        fs::remove_file(dir.path().join("model").join("other")).unwrap();
        assert!(!verify_part(dir.path(), "model/").unwrap_err().to_string().contains("state.json"));
        bytes[500] ^= 1;
        fs::write(&weights, &bytes).unwrap();
        verify_part(dir.path(), "model/").unwrap();
    }

    #[test]
    fn no_truncation_or_flip_of_the_manifest_itself_goes_unseen() {
        let dir = checkpoint();
        let path = dir.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            message(&dir);
        }
        for at in 0..whole.len() {
            for bit in [0, 3, 7] {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                fs::write(&path, &bytes).unwrap();
                assert!(message(&dir).contains("MANIFEST"), "byte {at}");
            }
        }
        // Names that no file system takes, whole.
        for (name, shown) in
            [("x".repeat(5000), "... (5000 bytes) is missing"), ("a\0b".to_string(), r"a\u{0}b is missing")]
        {
            let body = format!("{FIRST_LINE}\n00000000 0 {name}\n");
            fs::write(&path, format!("{body}end 1 files {:08x}\n", crc32fast::hash(body.as_bytes()))).unwrap();
            assert!(message(&dir).contains(shown), "{}", message(&dir));
        }
        // A later version of the format, whole.
        let body = format!("{FIRST_LINE}2\n");
        fs::write(&path, format!("{body}end 0 files {:08x}\n", crc32fast::hash(body.as_bytes()))).unwrap();
        assert!(message(&dir).contains("does not begin with the line"));
        fs::remove_file(&path).unwrap();
        assert!(message(&dir).contains("MANIFEST is missing"));
    }
}
