//! Names in a run directory: checkpoint directories by step, and the pointers to them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::storage;
use crate::error::{Error, Result};

/// What stands beside `step-*` for a moment; each prefix is followed by the checkpoint's own name.
pub(super) const TEMPORARY: &str = ".tmp-";
pub(crate) const REPLACED: &str = ".replaced-";
pub(super) const TRASH: &str = ".trash-";

/// `RUN/checkpoints`.
pub fn checkpoints_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("checkpoints")
}

/// The name of a step's checkpoint directory: `step-00000500`.
pub fn step_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// The inverse of [`step_name`]; `None` for anything that it does not write.
pub fn parse_step_name(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (step_name(step) == name).then_some(step)
}

/// `RUN/checkpoints/step-NNNNNNNN`, whether it exists or not.
pub fn step_dir(run_dir: &Path, step: u64) -> PathBuf {
    checkpoints_dir(run_dir).join(step_name(step))
}

/// Where a step's checkpoint stands now: under its own name or, if a crash fell between setting it aside and
/// putting its successor in place, under the name that it was set aside with.
pub fn existing_dir(run_dir: &Path, step: u64) -> Option<PathBuf> {
    let aside = checkpoints_dir(run_dir).join(format!("{REPLACED}{}", step_name(step)));
    [step_dir(run_dir, step), aside].into_iter().find(|dir| dir.is_dir())
}

/// The names in `RUN/checkpoints`; empty where there is no such directory.
pub(crate) fn entry_names(run_dir: &Path) -> Result<Vec<String>> {
    storage::names(&checkpoints_dir(run_dir))
}

/// Steps that have a checkpoint, in ascending order.
pub fn list_steps(run_dir: &Path) -> Result<Vec<u64>> {
    let mut steps: Vec<u64> = entry_names(run_dir)?
        .iter()
        .filter_map(|name| parse_step_name(name.strip_prefix(REPLACED).unwrap_or(name)))
        .filter(|step| existing_dir(run_dir, *step).is_some())
        .collect();
    steps.sort_unstable();
    steps.dedup();
    Ok(steps)
}

/// A small text file that names a checkpoint. Not a symbolic link: Windows and some network disks refuse those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pointer {
    /// The checkpoint written last: where a resumed run goes on.
    Latest,
    /// The checkpoint with the lowest validation loss.
    Best,
}

impl Pointer {
    pub const ALL: [Self; 2] = [Self::Latest, Self::Best];

    pub fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Best => "best",
        }
    }

    pub fn path(self, run_dir: &Path) -> PathBuf {
        checkpoints_dir(run_dir).join(self.name())
    }

    /// The step that the pointer names; `None` if it is missing or names no step. The directory may be gone.
    pub fn read(self, run_dir: &Path) -> Result<Option<u64>> {
        let path = self.path(run_dir);
        match fs::read(&path) {
            Ok(bytes) => Ok(std::str::from_utf8(&bytes).ok().and_then(|text| parse_step_name(text.trim()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    pub(super) fn write(self, run_dir: &Path, step: u64) -> Result<()> {
        storage::replace_file(&self.path(run_dir), format!("{}\n", step_name(step)).as_bytes())
    }
}

/// Points `RUN/checkpoints/best` at the checkpoint of `step`.
///
/// # Errors
/// If there is no such checkpoint, or the pointer cannot be written.
pub fn mark_best(run_dir: &Path, step: u64) -> Result<()> {
    if existing_dir(run_dir, step).is_none() {
        return Err(Error::failed(format!(
            "cannot mark step {step} as the best: {} does not exist; save its checkpoint first",
            step_dir(run_dir, step).display()
        )));
    }
    Pointer::Best.write(run_dir, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_names_round_trip_and_nothing_else_parses() {
        for step in [0, 1, 500, 99_999_999, 100_000_000, u64::MAX] {
            assert_eq!(parse_step_name(&step_name(step)), Some(step));
        }
        assert_eq!(step_name(500), "step-00000500");
        for name in ["step-5", "step-", "step-+0000005", "step-0000005x", ".tmp-step-00000005", "step-000000005"] {
            assert_eq!(parse_step_name(name), None, "{name}");
        }
    }

    #[test]
    fn pointers_that_name_nothing_read_as_none() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(Pointer::Latest.read(run.path()).unwrap(), None);
        fs::create_dir(checkpoints_dir(run.path())).unwrap();
        for content in [&b""[..], b"../../etc", b"\xff\xfe", b"step-1"] {
            fs::write(Pointer::Latest.path(run.path()), content).unwrap();
            assert_eq!(Pointer::Latest.read(run.path()).unwrap(), None);
        }
        // Written by hand in an editor on Windows.
        fs::write(Pointer::Latest.path(run.path()), b"step-00000007\r\n").unwrap();
        assert_eq!(Pointer::Latest.read(run.path()).unwrap(), Some(7));
    }

    #[test]
    fn the_best_must_exist() {
        let run = tempfile::tempdir().unwrap();
        assert!(mark_best(run.path(), 3).unwrap_err().to_string().contains("step-00000003"));
        fs::create_dir_all(step_dir(run.path(), 3)).unwrap();
        mark_best(run.path(), 3).unwrap();
        assert_eq!(Pointer::Best.read(run.path()).unwrap(), Some(3));
    }
}
