//! A run directory: its logs, its configuration, every checkpoint, and what names one of them.

use std::fs;
use std::path::Path;

use super::{Checks, checkpoint};
use crate::checkpoint::layout::{self, Pointer};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::report::metrics::{self, Record};
use crate::report::{samples, sessions};
use crate::train::run::CONFIG;

pub(super) fn check(dir: &Path, checks: &mut Checks) {
    let path = dir.join(CONFIG);
    checks.add(&path, configured(&path));
    let path = dir.join(metrics::FILE_NAME);
    // Written with the first step.
    if path.exists() {
        checks.add(&path, logged(&path));
    }
    let path = dir.join(sessions::FILE_NAME);
    if path.exists() {
        checks.add(&path, recorded(&path));
    }
    let path = dir.join(samples::FILE_NAME);
    if path.exists() {
        let checked = samples::check(&path);
        checks.add(&path, checked.map(|count| format!("{count} samples, every line a record (it has no checksum)")));
    }
    let steps = match layout::list_steps(dir) {
        Ok(steps) => steps,
        Err(error) => return checks.add(&layout::checkpoints_dir(dir), Err(error)),
    };
    let places = || steps.iter().filter_map(|step| Some((*step, layout::existing_dir(dir, *step)?)));
    places().for_each(|(_, place)| checkpoint::expect(&place, checks));
    let mut whole = Vec::new();
    for (step, place) in places() {
        let before = checks.list.len();
        checkpoint::check_expected(&place, Some(step), checks);
        if !place.exists() {
            // A trainer at work replaced it with a newer one meanwhile.
            checks.list.truncate(before);
        } else if checks.ok_since(before) {
            whole.push(step);
        }
    }
    for pointer in Pointer::ALL {
        let path = pointer.path(dir);
        if path.exists() || (pointer == Pointer::Latest && !steps.is_empty()) {
            checks.add(&path, pointed(dir, pointer, &steps, &whole));
        }
    }
}

fn configured(path: &Path) -> Result<String> {
    if !path.exists() {
        return Err(Error::file(path, "is missing: restore it from a copy, or start a new run with --init-from"));
    }
    Config::resolve(None, Some(path), &[]).map(|_| "a whole configuration (it has no checksum)".to_string())
}

fn logged(path: &Path) -> Result<String> {
    let records = metrics::read(path)?;
    let steps = records.iter().filter(|record| matches!(record, Record::Step(_))).count();
    Ok(format!("{steps} steps and {} validations, every line a record (it has no checksum)", records.len() - steps))
}

fn recorded(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let (sessions, torn) = sessions::check(&bytes).map_err(|line| {
        Error::file(path, format!("line {line} is no record of a session: remove that line; training does not need it"))
    })?;
    let torn = if torn == 0 { String::new() } else { format!(", {torn} lines torn by a kill") };
    Ok(format!("{sessions} sessions{torn} (it has no checksum)"))
}

/// A pointer must name a checkpoint that is there and whole. `steps`: what was there before they were read.
fn pointed(run: &Path, pointer: Pointer, steps: &[u64], whole: &[u64]) -> Result<String> {
    let path = pointer.path(run);
    let damaged = |what: String| {
        let advice = match (pointer, whole.last()) {
            (Pointer::Latest, Some(step)) => {
                format!("to go on from the newest whole one, write {} into this file", layout::step_name(*step))
            }
            (Pointer::Latest, None) => "restore a checkpoint from a copy, or start a new run".to_string(),
            (Pointer::Best, _) => "restore that checkpoint from a copy, or remove this file".to_string(),
        };
        Err(Error::file(&path, format!("{what}: {advice}")))
    };
    if !path.exists() {
        return damaged("is missing".to_string());
    }
    let Some(step) = pointer.read(run)? else { return damaged("names no checkpoint".to_string()) };
    let name = layout::step_name(step);
    if layout::existing_dir(run, step).is_none() {
        damaged(format!("names {name}, which is not there"))
    } else if steps.contains(&step) && !whole.contains(&step) {
        damaged(format!("names {name}, which is damaged"))
    } else {
        Ok(format!("names {name}"))
    }
}
