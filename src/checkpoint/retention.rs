//! Removing checkpoints: those that retention no longer keeps, and what a killed run left half-done.

use std::fs;
use std::path::Path;

use super::layout::{self, Pointer, REPLACED, TEMPORARY, TRASH};
use super::storage;
use crate::error::Result;

/// Which checkpoints are kept, beside those that `latest` and `best` name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retention {
    /// The newest ones, at least one.
    pub last: usize,
    /// Every step that is a multiple of this; 0 means none.
    pub every: u64,
    /// Of every so many hours of training the first one; 0 means none. Training's own time counts, not the clock's.
    pub hours: f64,
}

/// Removes old checkpoints; returns the steps removed, in ascending order. `training_hours` tells for how long a checkpoint's
/// run had trained; one that does not tell is kept where hours count.
pub fn retain(
    run_dir: &Path,
    retention: &Retention,
    training_hours: impl Fn(&Path) -> Option<f64>,
) -> Result<Vec<u64>> {
    let steps = layout::list_steps(run_dir)?;
    let mut named = Vec::new();
    for pointer in Pointer::ALL {
        named.extend(pointer.read(run_dir)?);
    }
    let old = &steps[..steps.len().saturating_sub(retention.last.max(1))];
    let mut removed = Vec::new();
    let mut last_period = None;
    for &step in old {
        let period = || layout::existing_dir(run_dir, step).and_then(|dir| training_hours(&dir));
        if retention.hours > 0.0 {
            let period = period().map(|hours| (hours / retention.hours).floor());
            if period.is_none() || period != last_period {
                last_period = period;
                continue;
            }
        }
        if named.contains(&step) || (retention.every > 0 && step % retention.every == 0) {
            continue;
        }
        if let Some(dir) = layout::existing_dir(run_dir, step) {
            discard(&dir)?;
            removed.push(step);
        }
    }
    Ok(removed)
}

/// Removes a directory by way of another name, so that a crash leaves no half of it under its own.
pub(super) fn discard(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let trash = dir.with_file_name(format!("{TRASH}{}", name.trim_start_matches(REPLACED)));
    if trash.exists() {
        fs::remove_dir_all(&trash).map_err(storage::write_error("remove", &trash))?;
    }
    storage::rename(dir, &trash)?;
    storage::sync_dir(storage::parent(dir))?;
    fs::remove_dir_all(&trash).map_err(storage::write_error("remove", &trash))
}

/// Removes what a killed run left half-done; call it at the start of a run, holding its [`RunLock`](super::RunLock).
/// Returns the names that were dealt with.
///
/// A checkpoint that had been set aside for a successor which never came into place gets its name back.
pub fn clean_stale(run_dir: &Path) -> Result<Vec<String>> {
    let checkpoints = layout::checkpoints_dir(run_dir);
    let mut stale = Vec::new();
    for name in layout::entry_names(run_dir)? {
        let path = checkpoints.join(&name);
        if let Some(step) = name.strip_prefix(REPLACED).and_then(layout::parse_step_name) {
            let place = layout::step_dir(run_dir, step);
            if place.exists() {
                discard(&path)?;
            } else {
                storage::rename(&path, &place)?;
            }
        } else if [TEMPORARY, TRASH].iter().any(|prefix| name.starts_with(&format!("{prefix}step-"))) {
            fs::remove_dir_all(&path).map_err(storage::write_error("remove", &path))?;
        } else if Pointer::ALL.iter().any(|pointer| storage::sibling(&pointer.path(run_dir), ".tmp") == path) {
            fs::remove_file(&path).map_err(storage::write_error("remove", &path))?;
        } else {
            continue;
        }
        stale.push(name);
    }
    if !stale.is_empty() {
        storage::sync_dir(&checkpoints)?;
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::super::layout::{checkpoints_dir, list_steps, mark_best, step_dir};
    use super::super::{CheckpointWriter, latest, verify};
    use super::*;

    fn save(run: &Path, step: u64, content: &str) {
        let writer = CheckpointWriter::begin(run, step).unwrap();
        writer.write_file("state.json", content.as_bytes()).unwrap();
        writer.commit().unwrap();
    }

    #[test]
    fn retention_keeps_the_newest_the_multiples_and_the_named() {
        let run = tempfile::tempdir().unwrap();
        let retain = |last, every| {
            super::retain(run.path(), &Retention { last, every, hours: 0.0 }, |_| panic!("nobody asked for hours"))
        };
        assert!(retain(2, 100).unwrap().is_empty());
        (1..=10).for_each(|step| save(run.path(), step * 10, "{}"));
        mark_best(run.path(), 20).unwrap();
        assert_eq!(retain(2, 50).unwrap(), [10, 30, 40, 60, 70, 80]);
        assert_eq!(list_steps(run.path()).unwrap(), [20, 50, 90, 100]);
        // A run that went back to an older checkpoint: latest is not the newest.
        Pointer::Latest.write(run.path(), 50).unwrap();
        assert_eq!(retain(0, 0).unwrap(), [90]);
        assert_eq!(list_steps(run.path()).unwrap(), [20, 50, 100]);
        mark_best(run.path(), 100).unwrap();
        assert_eq!(retain(1, 0).unwrap(), [20]);
        assert!(latest(run.path()).unwrap().unwrap().ends_with("step-00000050"));
    }

    #[test]
    fn retention_by_time_keeps_the_first_of_every_period() {
        let run = tempfile::tempdir().unwrap();
        // Step s after s * 0.3 hours; one does not tell.
        (1..=12).for_each(|step| save(run.path(), step, "{}"));
        let hours = |dir: &Path| {
            let step = layout::parse_step_name(dir.file_name()?.to_str()?)?;
            (step != 6).then_some(step as f64 * 0.3)
        };
        let retention = Retention { last: 1, every: 0, hours: 1.0 };
        // Hours 0.3 to 0.9, 1.2 to 1.5 and (unknown) and 2.1 to 2.7, 3.0 to 3.3; the newest, 3.6, is kept anyway.
        assert_eq!(retain(run.path(), &retention, hours).unwrap(), [2, 3, 5, 8, 9, 11]);
        assert_eq!(list_steps(run.path()).unwrap(), [1, 4, 6, 7, 10, 12]);
        assert!(retain(run.path(), &retention, hours).unwrap().is_empty());
        // Without hours only the newest stays.
        assert_eq!(retain(run.path(), &Retention { hours: 0.0, ..retention }, hours).unwrap(), [1, 4, 6, 7, 10]);
    }

    #[test]
    fn leftovers_of_a_killed_run_are_removed_and_the_set_aside_restored() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(clean_stale(run.path()).unwrap().len(), 0);
        save(run.path(), 5, "old");
        save(run.path(), 6, "six");
        let dir = checkpoints_dir(run.path());
        for name in [".tmp-step-00000007", ".trash-step-00000003", ".replaced-step-00000006"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        fs::write(dir.join("notes.txt"), b"the user's own").unwrap();
        // Killed after step 5 was set aside, before its successor was renamed.
        fs::rename(step_dir(run.path(), 5), dir.join(".replaced-step-00000005")).unwrap();
        Pointer::Latest.write(run.path(), 5).unwrap();
        fs::write(dir.join(".latest.tmp"), b"step-0").unwrap();
        let found = latest(run.path()).unwrap().unwrap();
        assert_eq!(fs::read(found.join("state.json")).unwrap(), b"old");

        assert_eq!(clean_stale(run.path()).unwrap().len(), 5);
        let mut names = layout::entry_names(run.path()).unwrap();
        names.sort();
        assert_eq!(names, ["latest", "notes.txt", "step-00000005", "step-00000006"]);
        assert_eq!(latest(run.path()).unwrap(), Some(step_dir(run.path(), 5)));
        verify(&step_dir(run.path(), 5)).unwrap();
        assert_eq!(clean_stale(run.path()).unwrap().len(), 0);
    }
}
