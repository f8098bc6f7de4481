//! `trainer verify`

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::{Global, VerifyArgs};
use super::{print, print_json};
use crate::error::{Error, OneLine, Result};
use crate::verify::{Progress, verify};

struct Bar(ProgressBar);

impl Progress for Bar {
    fn expect(&self, bytes: u64) {
        self.0.inc_length(bytes);
    }

    fn read(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

/// Prints what was checked.
///
/// # Errors
/// Exit code 2 for a path that is nothing known, 1 where something is damaged.
pub fn run(args: &VerifyArgs, _: &Global) -> Result<()> {
    let bar = Bar(ProgressBar::new(0));
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {bytes} of {total_bytes}, {bytes_per_sec}, eta {eta}") {
        bar.0.set_style(style);
    }
    let report = verify(&args.path, &bar)?;
    bar.0.finish_and_clear();
    let damaged: Vec<String> = report.damaged().map(|check| check.path.display().to_string()).collect();
    if args.json {
        print_json(&json!({
            "path": report.path, "kind": report.kind, "ok": damaged.is_empty(), "checks": report.checks,
        }))?;
    } else {
        for check in &report.checks {
            let verdict = if check.ok { "ok" } else { "damaged" };
            print(&format!("{}: {verdict}: {}\n", OneLine(check.path.display()), check.what))?;
        }
    }
    if damaged.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!(
        "{} ({}) is damaged in {} of {} places: {}; what is said of each above tells what to do",
        report.path.display(),
        report.kind.name(),
        damaged.len(),
        report.checks.len(),
        damaged.join(", ")
    )))
}
