//! `trainer runs`: the runs below a directory, and how each stands.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{Global, RunsArgs};
use super::{print, print_json};
use crate::error::{Error, Result};
use crate::report::history::{History, Status, Summary, is_run};
use crate::report::progress::duration;
use crate::report::table::{Align, Table, thousands};

/// How many levels below the directory are looked into.
const LEVELS: usize = 2;

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Listing {
    runs: Vec<Entry>,
    /// Runs that cannot be read.
    unreadable: Vec<Unreadable>,
}

#[derive(Debug, Serialize)]
struct Entry {
    path: PathBuf,
    #[serde(flatten)]
    summary: Summary,
}

#[derive(Debug, Serialize)]
struct Unreadable {
    path: PathBuf,
    message: String,
}

pub fn run(args: &RunsArgs, _: &Global) -> Result<()> {
    let mut listing = Listing { runs: Vec::new(), unreadable: Vec::new() };
    for path in find(&args.dir)? {
        match History::read(&path) {
            Ok(History { summary, .. }) => listing.runs.push(Entry { path, summary }),
            Err(error) => listing.unreadable.push(Unreadable { message: error.to_string(), path }),
        }
    }
    if args.json {
        return print_json(&listing);
    }
    if listing.runs.is_empty() && listing.unreadable.is_empty() {
        eprintln!("no run in {} or {LEVELS} levels below it", args.dir.display());
        return Ok(());
    }
    listing.unreadable.iter().for_each(|run| eprintln!("warning: {}", run.message));
    print(&table(&args.dir, &listing.runs).to_string())
}

/// The run directories at `dir` and below it, sorted. What is inside a run is not looked at.
fn find(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Err(Error::file(dir, "is no directory: name the one that holds your runs"));
    }
    let mut found = Vec::new();
    let mut level = vec![dir.to_path_buf()];
    for depth in 0..=LEVELS {
        let mut next = Vec::new();
        for dir in level {
            if is_run(&dir) {
                found.push(dir);
            } else if depth < LEVELS {
                // A directory that may not be read holds no run of this user.
                let entries = fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path());
                next.extend(entries.filter(|path| path.is_dir()));
            }
        }
        level = next;
    }
    found.sort();
    Ok(found)
}

fn table(dir: &Path, runs: &[Entry]) -> Table {
    let columns = ["run", "state", "step", "loss", "best val", "tokens/s", "last step"];
    let align = |name| if ["run", "state"].contains(&name) { Align::Left } else { Align::Right };
    let mut table = Table::new(columns.map(|name| (name, align(name))));
    for Entry { path, summary } in runs {
        let name = path.strip_prefix(dir).ok().filter(|name| !name.as_os_str().is_empty()).unwrap_or(path);
        table.row([
            name.display().to_string(),
            state(summary),
            summary.steps.map_or_else(|| summary.step.to_string(), |steps| format!("{} of {steps}", summary.step)),
            loss(summary.loss),
            loss(summary.best_val_loss),
            summary.tokens_per_s.map_or_else(String::new, |speed| thousands(f64::from(speed).round() as u64)),
            summary.age.map_or_else(String::new, |age| format!("{} ago", since(age))),
        ]);
    }
    table
}

fn state(summary: &Summary) -> String {
    match summary.status {
        Status::Running | Status::Finished => summary.status.name().to_owned(),
        Status::Stopped | Status::Failed => format!("{} at step {}", summary.status.name(), summary.step),
    }
}

fn loss(loss: Option<f32>) -> String {
    loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.4}"))
}

fn since(seconds: f64) -> String {
    let days = (seconds / 86_400.0) as u64;
    if days < 2 { duration(seconds) } else { format!("{days} days") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_two_levels_down_and_not_inside_others() {
        let dir = tempfile::tempdir().unwrap();
        for run in ["b", "a/one", "a/two", "too/deep/here", "b/checkpoints/inner"] {
            fs::create_dir_all(dir.path().join(run)).unwrap();
            fs::write(dir.path().join(run).join("metrics.jsonl"), "").unwrap();
        }
        let found = find(dir.path()).unwrap();
        let expected = ["a/one", "a/two", "b"].map(|run| dir.path().join(run));
        assert_eq!(found, expected);
        assert_eq!(find(&dir.path().join("b")).unwrap(), [dir.path().join("b")]);
        assert_eq!(find(&dir.path().join("absent")).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn ages_read_well() {
        assert_eq!([5.0, 3_700.0, 90_000.0, 200_000.0].map(since), ["5s", "1h01m", "25h00m", "2 days"]);
    }
}
