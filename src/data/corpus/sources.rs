//! Finds the files of a corpus.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use super::Skip;
use crate::error::{Error, Result};

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// How a file holds its documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The file is one document.
    Text,
    /// A line is a JSON object with a text field.
    JsonLines(Compression),
    /// A row has a text column.
    Parquet,
}

impl Format {
    /// The format of the files that are read from folders; `None` for every other name.
    fn in_folder(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if ends(&[".py", ".txt", ".md"]) {
            Some(Self::Text)
        } else if ends(&[".jsonl", ".ndjson"]) {
            Some(Self::JsonLines(Compression::None))
        } else if ends(&[".jsonl.gz", ".ndjson.gz"]) {
            Some(Self::JsonLines(Compression::Gzip))
        } else if ends(&[".jsonl.zst", ".ndjson.zst"]) {
            Some(Self::JsonLines(Compression::Zstd))
        } else if ends(&[".parquet"]) {
            Some(Self::Parquet)
        } else {
            None
        }
    }

    /// The format of a file that was named itself: whatever is not known otherwise is text. Only here are .json files taken
    /// for JSON lines: those that lie about in folders (a library's data files) mostly are not.
    fn of_named(name: &str) -> Self {
        let lines = name.to_ascii_lowercase().replace(".json", ".jsonl").replace(".jsonll", ".jsonl");
        Self::in_folder(name).or_else(|| Self::in_folder(&lines)).unwrap_or(Self::Text)
    }
}

/// One file of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    /// Size on disk.
    pub bytes: u64,
    pub format: Format,
}

/// The files of a corpus.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order of the inputs; within a folder, by name.
    pub sources: Vec<Source>,
    /// Entries that could not be looked at.
    pub skipped: Vec<Skip>,
    /// Files in folders whose kind is not read, pipes and devices among them.
    pub other_files: u64,
    /// Whether the text comes through a pipe, which can be read only once.
    pub piped: bool,
}

/// Folders that hold a version-control system's own files.
const VERSION_CONTROL: [&str; 3] = [".git", ".hg", ".svn"];

/// Finds the files of `inputs`: folders are walked to the bottom for .py, .txt, .md, .jsonl (and .gz, .zst) and .parquet
/// files, symbolic links followed; a file that is named itself is read whatever its name. A file that is reached twice is
/// read once; a pipe is taken where it is the only input. Memory grows with the number of files, by some hundred bytes each.
///
/// # Errors
/// An input that does not exist; a device, or a pipe beside other inputs.
pub fn find(inputs: &[PathBuf]) -> Result<Found> {
    let (mut found, mut seen) = (Found::default(), HashSet::new());
    for input in inputs {
        let metadata = fs::metadata(input).map_err(Error::io("read", input))?;
        found.piped = is_pipe(&metadata);
        if metadata.is_dir() {
            walk(input, &mut found, &mut seen);
        } else if found.piped && inputs.len() > 1 {
            let what = "is a pipe, which is read only where it is the one input: write its text to a file first";
            return Err(Error::file(input, what));
        } else if !found.piped && !metadata.is_file() {
            return Err(Error::file(input, "is neither a file nor a folder: expected text to prepare"));
        } else {
            let name = input.file_name().unwrap_or_default().to_string_lossy();
            found.add(input, metadata.len(), Format::of_named(&name), &mut seen);
        }
    }
    Ok(found)
}

#[cfg(unix)]
fn is_pipe(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&metadata.file_type())
}

#[cfg(not(unix))]
fn is_pipe(_: &fs::Metadata) -> bool {
    false
}

fn walk(folder: &Path, found: &mut Found, seen: &mut HashSet<PathBuf>) {
    let walk = WalkBuilder::new(folder)
        .standard_filters(false)
        .follow_links(true)
        .sort_by_file_name(Ord::cmp)
        .filter_entry(|entry| !VERSION_CONTROL.iter().any(|name| entry.file_name() == *name))
        .build();
    for entry in walk {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                found.skipped.push(Skip { path: path_of(&error, folder), reason: reason_of(&error), record: None });
                continue;
            }
        };
        if entry.file_type().is_some_and(|kind| kind.is_dir()) {
            continue;
        }
        let is_file = entry.file_type().is_some_and(|kind| kind.is_file());
        let Some(format) = Format::in_folder(&entry.file_name().to_string_lossy()).filter(|_| is_file) else {
            found.other_files += 1;
            continue;
        };
        match entry.metadata() {
            Ok(metadata) => found.add(entry.path(), metadata.len(), format, seen),
            Err(error) => {
                let reason = reason_of(&error);
                found.skipped.push(Skip { path: entry.path().to_path_buf(), reason, record: None });
            }
        }
    }
}

impl Found {
    fn add(&mut self, path: &Path, bytes: u64, format: Format, seen: &mut HashSet<PathBuf>) {
        let identity = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        if seen.insert(identity) {
            self.sources.push(Source { path: path.to_path_buf(), bytes, format });
        }
    }
}

/// The path that a walk's error is about.
fn path_of(error: &ignore::Error, folder: &Path) -> PathBuf {
    match error {
        ignore::Error::WithPath { path, .. } => path.clone(),
        ignore::Error::Loop { child, .. } => child.clone(),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => path_of(err, folder),
        _ => folder.to_path_buf(),
    }
}

/// What a walk's error says beside the path.
fn reason_of(error: &ignore::Error) -> String {
    match error {
        ignore::Error::WithPath { err, .. }
        | ignore::Error::WithDepth { err, .. }
        | ignore::Error::WithLineNumber { err, .. } => reason_of(err),
        ignore::Error::Loop { ancestor, .. } => format!("links to {}, which it lies in", ancestor.display()),
        // The walk wraps the system's error in one that names the path.
        ignore::Error::Io(error) => match error.get_ref().and_then(|wrapped| wrapped.source()) {
            Some(cause) => format!("cannot be read: {cause}"),
            None => format!("cannot be read: {error}"),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_walked_by_name_and_named_files_are_taken_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("b/.git")).unwrap();
        for name in [
            "z.py",
            "a.MD",
            "b/x.jsonl.zst",
            "b/y.parquet",
            "b/.git/HEAD.txt",
            "b/lib.so",
            "c.json.gz",
            "d.jsonl.gz",
            "note.rst",
        ] {
            fs::write(at(name), "x").unwrap();
        }
        let found = find(&[at("note.rst"), dir.path().to_path_buf(), at("z.py"), at("c.json.gz")]).unwrap();
        let names: Vec<_> = found
            .sources
            .iter()
            .map(|s| s.path.strip_prefix(dir.path()).unwrap().to_string_lossy().replace('\\', "/"))
            .collect();
        assert_eq!(names, ["note.rst", "a.MD", "b/x.jsonl.zst", "b/y.parquet", "d.jsonl.gz", "z.py", "c.json.gz"]);
        assert_eq!(found.sources[2].format, Format::JsonLines(Compression::Zstd));
        assert_eq!(found.sources[4].format, Format::JsonLines(Compression::Gzip));
        assert_eq!(found.sources[6].format, Format::JsonLines(Compression::Gzip));
        assert_eq!((found.other_files, found.skipped.len()), (3, 0));
        assert_eq!(find(&[at("missing")]).unwrap_err().exit_code(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn broken_links_and_loops_are_named() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("gone.py")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).unwrap();
        fs::write(dir.path().join("a.py"), "x").unwrap();
        std::os::unix::fs::symlink("a.py", dir.path().join("same.py")).unwrap();
        let found = find(&[dir.path().to_path_buf()]).unwrap();
        assert_eq!(found.sources.len(), 1);
        let mut skipped: Vec<_> = found.skipped.iter().map(|skip| skip.path.file_name().unwrap()).collect();
        skipped.sort();
        assert_eq!(skipped, ["gone.py", "loop"]);
        let path = |skip: &Skip| skip.path.file_name().unwrap().to_string_lossy().into_owned();
        let once = found.skipped.iter().all(|skip| !skip.reason.contains(&path(skip)));
        assert!(once && found.skipped.iter().any(|skip| skip.reason.starts_with("cannot be read: No such file")));
    }

    #[cfg(unix)]
    #[test]
    fn pipes_are_counted_in_folders_and_read_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        nix::unistd::mkfifo(&at("pipe.py"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(at("a.py"), "x").unwrap();
        let found = find(&[dir.path().to_path_buf()]).unwrap();
        assert_eq!((found.sources.len(), found.other_files, found.piped), (1, 1, false));
        let found = find(&[at("pipe.py")]).unwrap();
        assert_eq!((found.sources.len(), found.piped), (1, true));
        for inputs in [&[at("pipe.py"), at("a.py")][..], &[at("a.py"), at("pipe.py")], &[PathBuf::from("/dev/null")]] {
            let error = find(inputs).unwrap_err();
            let why = error.to_string();
            let refused = why.contains("pipe.py: is a pipe") || why.contains("/dev/null: is neither a file");
            assert!(refused && error.exit_code() == 2, "{why}");
        }
    }
}
