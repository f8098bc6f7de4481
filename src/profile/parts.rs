//! The table by part.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::MODE;
use super::recorder::{Event, Kind};
use crate::checkpoint::storage::replace_file;
use crate::error::{Error, Result};
use crate::report::table::{Align, Table};

/// Spans of one name, as a mean over the profiled steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub part: String,
    /// Milliseconds a step.
    pub ms: f64,
    /// Of the step's time.
    pub share: f64,
    /// A step.
    pub calls: f64,
    /// Rate of its products, in 10^9 FLOPs a second; `None` where it has none.
    pub gflops: Option<f64>,
    /// Rate of what it must read and write, in 10^9 bytes a second; `None` where that is not known.
    pub gb_per_s: Option<f64>,
}

/// Where the time of the profiled steps went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ByPart {
    #[serde(rename = "profiled_steps")]
    pub steps: usize,
    /// Milliseconds a step, one operation at a time.
    #[serde(rename = "profiled_step_ms")]
    pub step_ms: f64,
    /// The longest first. They do not overlap.
    pub parts: Vec<Part>,
}

#[derive(Default)]
struct Sum {
    nanoseconds: u64,
    calls: u64,
    flops: u64,
    bytes: u64,
}

/// The name of the table's file in a run directory.
pub const PARTS: &str = "profile-parts.json";
/// More than any table is no table.
const MOST_BYTES: u64 = 1 << 20;

impl ByPart {
    /// Writes the table into a run's directory.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, run_dir: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(|error| Error::failed(format!("table as JSON: {error}")))?;
        replace_file(&run_dir.join(PARTS), &json)
    }

    /// The table of a run; `None` where it was not profiled, or the file is none of ours.
    pub fn read(run_dir: &Path) -> Option<Self> {
        let file = File::open(run_dir.join(PARTS)).ok()?;
        serde_json::from_reader(file.take(MOST_BYTES)).ok()
    }

    /// Adds up spans by name: those within another part belong to that one.
    pub fn of(events: &[Event]) -> Self {
        let steps: Vec<&Event> = events.iter().filter(|event| event.kind == Kind::Step).collect();
        let total: u64 = steps.iter().map(|step| step.end - step.start).sum();
        let mut sums = FxHashMap::<&str, Sum>::default();
        for event in events.iter().filter(|event| event.kind.is_part() && !event.within_part) {
            let sum = sums.entry(&event.work.name).or_default();
            sum.nanoseconds += event.end - event.start;
            sum.calls += 1;
            sum.flops += event.work.flops;
            sum.bytes += event.work.bytes;
        }
        let a_step = |count: u64| count as f64 / steps.len().max(1) as f64;
        let mut parts: Vec<Part> = sums
            .into_iter()
            .map(|(name, sum)| {
                // 10^9 of anything a second is one a nanosecond.
                let rate = |count: u64| (count > 0).then(|| count as f64 / sum.nanoseconds.max(1) as f64);
                Part {
                    part: name.to_owned(),
                    ms: a_step(sum.nanoseconds) / 1e6,
                    share: sum.nanoseconds as f64 / total.max(1) as f64,
                    calls: a_step(sum.calls),
                    gflops: rate(sum.flops),
                    gb_per_s: rate(sum.bytes),
                }
            })
            .collect();
        parts.sort_by(|a, b| b.ms.total_cmp(&a.ms).then_with(|| a.part.cmp(&b.part)));
        Self { steps: steps.len(), step_ms: a_step(total) / 1e6, parts }
    }
}

impl fmt::Display for ByPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = ["ms", "share", "calls", "GFLOP/s", "GB/s"].map(|name| (name, Align::Right));
        let mut table = Table::new([("part", Align::Left)].into_iter().chain(columns));
        let percent = |share: f64| format!("{:.1}%", 100.0 * share);
        let optional = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.1}"));
        for part in &self.parts {
            // A validation every few steps is no whole number of calls a step.
            let calls = if part.calls.fract() == 0.0 { part.calls.to_string() } else { format!("{:.2}", part.calls) };
            let (ms, share) = (format!("{:.2}", part.ms), percent(part.share));
            table.row([part.part.clone(), ms, share, calls, optional(part.gflops), optional(part.gb_per_s)]);
        }
        let (ms, share): (f64, f64) =
            self.parts.iter().fold((0.0, 0.0), |(ms, share), part| (ms + part.ms, share + part.share));
        let between = "between them".to_owned();
        table.row([between, format!("{:.2}", self.step_ms - ms), percent(1.0 - share)]).rule();
        table.row(["step".to_owned(), format!("{:.2}", self.step_ms), percent(1.0)]);
        write!(f, "{table}")?;
        writeln!(f, "a step's mean over {} profiled ones; {MODE}", self.steps)
    }
}
