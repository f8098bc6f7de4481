//! A run as people look at it: its curves, configuration, sessions and how it stands, read from its directory.

mod curves;
mod summary;
mod thin;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::Serialize;

pub use curves::Curves;
pub use summary::{Status, Summary};
pub use thin::Thinned;

use super::samples::SampleRecord;
use super::{metrics, samples, sessions};
use crate::checkpoint::RunLock;
use crate::checkpoint::layout::list_steps;
use crate::error::{Error, Result, Short};
use crate::profile::ByPart;
use crate::train::run::CONFIG;
use summary::Signs;

/// Validations whose samples a page shows, at most.
const MOST_SAMPLED: usize = 200;

/// What a run directory holds.
#[derive(Clone, Debug, Serialize)]
pub struct History {
    /// What people call it; `names` tells several apart.
    pub name: String,
    pub summary: Summary,
    /// ("train.steps", "1500") each, in the file's order; empty where there is no config.toml.
    pub config: Vec<(String, String)>,
    pub sessions: Vec<sessions::Session>,
    pub curves: Curves,
    /// What the model wrote at validations.
    pub samples: Vec<SampleRecord>,
    /// Where the time of a few steps went, if the run was profiled.
    pub parts: Option<ByPart>,
    /// Where steps were left out of the curves.
    pub thinned: Option<Thinned>,
}

impl History {
    /// Reads a run's directory, also while it is being written.
    ///
    /// # Errors
    /// No run there; a damaged metrics.jsonl or config.toml.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(metrics::FILE_NAME);
        if !is_run(dir) {
            let what = if dir.is_dir() { "holds no run" } else { "is no directory" };
            return Err(Error::file(
                dir,
                format!("{what}: expected what `trainer train --out` wrote ({} is missing)", metrics::FILE_NAME),
            ));
        }
        let records = if path.is_file() { metrics::read(&path)? } else { Vec::new() };
        let curves = Curves::new(&records);
        let config = read_config(&dir.join(CONFIG))?;
        let sessions = sessions::read(dir);
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
        let written = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|time| time.as_secs_f64());
        let steps = config.iter().find(|(key, _)| key == "train.steps").and_then(|(_, steps)| steps.parse().ok());
        let saved = list_steps(dir).ok().and_then(|steps| steps.last().copied());
        let signs = Signs { held: RunLock::is_held(dir), now: sessions::now(), written, steps, saved };
        let summary = Summary::new(&curves, &sessions, &signs);
        let samples = thin::samples(samples::read(dir), MOST_SAMPLED);
        let parts = ByPart::read(dir);
        Ok(Self { name: dir.display().to_string(), summary, config, sessions, curves, samples, parts, thinned: None })
    }

    /// Leaves at most about `limit` steps in the curves, and says so in `thinned`.
    pub fn thin(&mut self, limit: usize) {
        self.thinned = thin::thin(&mut self.curves, limit);
    }
}

/// Whether a directory is that of a run.
pub fn is_run(dir: &Path) -> bool {
    dir.join(metrics::FILE_NAME).is_file() || (dir.join(CONFIG).is_file() && dir.join("checkpoints").is_dir())
}

/// The shortest ends of paths that tell them apart: the last names, or the whole paths where two of those are the same.
pub fn names(dirs: &[PathBuf]) -> Vec<String> {
    let whole = |dir: &PathBuf| dir.display().to_string();
    let last = |dir: &PathBuf| {
        // "." and "runs/.." have no name of their own.
        let named = dir.file_name().map(|name| name.to_string_lossy().into_owned());
        named.or_else(|| Some(dir.canonicalize().ok()?.file_name()?.to_string_lossy().into_owned()))
    };
    let short: Vec<String> = dirs.iter().map(|dir| last(dir).unwrap_or_else(|| whole(dir))).collect();
    let unique = |name: &String| short.iter().filter(|other| *other == name).count() == 1;
    if short.iter().all(unique) { short } else { dirs.iter().map(whole).collect() }
}

/// A resolved configuration as lines of people: whatever version wrote it.
fn read_config(path: &Path) -> Result<Vec<(String, String)>> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    let mut lines = Vec::new();
    let tables: toml::Table = toml::from_str(&text)
        .map_err(|error| Error::file(path, format!("is no configuration: {}", Short(error.message()))))?;
    flatten("", &tables, &mut lines);
    // The parsed table is sorted; people know the file's order.
    let place = |key: &str| {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        let table = text.find(&format!("[{table}]")).unwrap_or(0);
        (table, text[table..].find(&format!("\n{name} =")).unwrap_or(0))
    };
    lines.sort_by_cached_key(|(key, _)| place(key));
    Ok(lines)
}

fn flatten(prefix: &str, table: &toml::Table, lines: &mut Vec<(String, String)>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(table) => flatten(&key, table, lines),
            toml::Value::String(text) => lines.push((key, text.clone())),
            other => lines.push((key, other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_configuration_keeps_its_order() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path().join(CONFIG);
        let config = Config::resolve(Some("demo"), None, &[]).unwrap();
        fs::write(&path, config.to_toml().unwrap()).unwrap();
        let lines = read_config(&path).unwrap();
        let value = |key: &str| lines.iter().find(|line| line.0 == key).map(|line| line.1.as_str());
        assert_eq!(value("train.steps"), Some("1500"));
        assert_eq!(value("train.precision"), Some("fp32"));
        let keys: Vec<&str> = lines.iter().map(|line| line.0.as_str()).collect();
        let text = fs::read_to_string(&path).unwrap();
        let names = text.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
        assert!(keys.iter().map(|key| key.rsplit_once('.').unwrap().1).eq(names), "{keys:?}\n{text}");
        fs::write(&path, "[train").unwrap();
        assert_eq!(read_config(&path).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn names_tell_runs_apart() {
        let names = |dirs: &[&str]| names(&dirs.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(names(&["runs/a", "runs/b/"]), ["a", "b"]);
        assert_eq!(names(&["first/a", "second/a"]), ["first/a", "second/a"]);
        assert_eq!(names(&["/"]), ["/"]);
    }

    #[test]
    fn a_directory_without_a_run_is_refused() {
        let empty = tempfile::tempdir().unwrap();
        let message = History::read(empty.path()).unwrap_err().to_string();
        assert!(message.contains("holds no run") && message.contains("metrics.jsonl"), "{message}");
        let message = History::read(Path::new("/absent")).unwrap_err().to_string();
        assert!(message.contains("is no directory"), "{message}");
    }
}
