//! RUN/spikes.jsonl: a line for each step whose loss or gradient norm leapt, with what it read. Only people read it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::voice::say;

/// The name of the file in a run directory.
pub const FILE_NAME: &str = "spikes.jsonl";

/// A step that leapt. A number that is not finite is written as null.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpikeRecord {
    pub step: u64,
    /// "continued", "skipped" or "rolled_back".
    pub action: crate::train::spikes::Action,
    /// Mean over the step's tokens, nats.
    pub loss: f64,
    /// Global L2 norm before clipping.
    pub grad_norm: f64,
    /// Mean and standard deviation of the losses before.
    pub loss_mean: f64,
    pub loss_deviation: f64,
    /// Mean and standard deviation of the natural logarithm of the norms before.
    pub log_norm_mean: f64,
    pub log_norm_deviation: f64,
    /// The step whose checkpoint the run went back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_to: Option<u64>,
    /// Which batch of the run's order it read, counted from 0, and its epoch.
    pub batch: u64,
    pub epoch: u64,
    /// The batch's sequences: sequence i is the training split's tokens from i x `tokens_a_sequence` on.
    pub sequences: Vec<u64>,
    pub tokens_a_sequence: usize,
}

/// Appends a line. What cannot be written is one warning: training does not need it.
pub fn append(run_dir: &Path, record: &SpikeRecord) {
    let path = run_dir.join(FILE_NAME);
    let write = || {
        let line = serde_json::to_string(record)?;
        OpenOptions::new().create(true).append(true).open(&path)?.write_all(format!("{line}\n").as_bytes())
    };
    if let Err(error) = write() {
        say(&format!("warning: cannot write {}: {error}", path.display()));
    }
}
