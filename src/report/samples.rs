//! RUN/samples.jsonl: what the model goes on with after the same beginnings, at each validation.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::voice::say;
use crate::checkpoint::storage::replace_file;
use crate::error::{Error, Result};

/// The name of the file in a run directory.
pub const FILE_NAME: &str = "samples.jsonl";

/// One continuation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleRecord {
    /// The step after which it was made.
    pub step: u64,
    /// Where the validation part's text was cut.
    pub prompt: String,
    /// What the model wrote behind it.
    pub text: String,
}

/// Appends lines. What cannot be written is one warning: training does not need it.
pub fn append(run_dir: &Path, records: &[SampleRecord]) {
    let path = run_dir.join(FILE_NAME);
    let write = || -> io::Result<()> {
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        OpenOptions::new().create(true).append(true).open(&path)?.write_all(&lines)
    };
    if let Err(error) = write() {
        say(&format!("warning: cannot write {}: {error}", path.display()));
    }
}

/// The samples of a run, in order; none where nothing was written. A line that is no record is left out.
pub fn read(run_dir: &Path) -> Vec<SampleRecord> {
    let bytes = fs::read(run_dir.join(FILE_NAME)).unwrap_or_default();
    bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// How many samples a file holds. Its last line may be torn.
///
/// # Errors
/// The first other line that is no record.
pub fn check(path: &Path) -> Result<usize> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let whole = &lines[..lines.len() - 1];
    let bad = whole.iter().position(|line| serde_json::from_slice::<SampleRecord>(line).is_err());
    match bad {
        None => Ok(whole.len()),
        Some(index) => Err(Error::file(
            path,
            format!("line {} is no sample: remove that line; training does not need it", index + 1),
        )),
    }
}

/// Drops what a resumed run will write again, and lines that are no records.
pub fn truncate_after(run_dir: &Path, step: u64) {
    let path = run_dir.join(FILE_NAME);
    let Ok(bytes) = fs::read(&path) else { return };
    let kept = |line: &&[u8]| {
        line.ends_with(b"\n") && serde_json::from_slice::<SampleRecord>(line).is_ok_and(|record| record.step <= step)
    };
    let kept: Vec<u8> = bytes.split_inclusive(|byte| *byte == b'\n').filter(kept).flatten().copied().collect();
    if kept.len() < bytes.len()
        && let Err(error) = replace_file(&path, &kept)
    {
        say(&format!("warning: {error}; it keeps samples of steps that will be made again"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(step: u64) -> SampleRecord {
        SampleRecord { step, prompt: "def f(".into(), text: format!("x):\n    return {step}\n") }
    }

    #[test]
    fn a_resume_drops_later_samples_and_the_torn_line() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path().join(FILE_NAME);
        assert_eq!(read(run.path()), []);
        truncate_after(run.path(), 3);
        assert!(!path.exists());
        append(run.path(), &[sample(2), sample(2)]);
        append(run.path(), &[sample(4)]);
        let whole = fs::read(&path).unwrap();
        assert_eq!(check(&path).unwrap(), 3);
        fs::write(&path, [&whole[..], br#"{"step":6,"pro"#].concat()).unwrap();
        assert_eq!((read(run.path()).len(), check(&path).unwrap()), (3, 3));
        truncate_after(run.path(), 4);
        assert_eq!(fs::read(&path).unwrap(), whole);
        truncate_after(run.path(), 2);
        assert_eq!(read(run.path()), [sample(2), sample(2)]);
        fs::write(&path, [b"{}\n", &whole[..]].concat()).unwrap();
        assert!(check(&path).unwrap_err().to_string().contains("line 1 is no sample"));
    }
}
