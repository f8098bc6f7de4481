//! How a run ended.

use serde::Serialize;

use crate::parallel::collective::Traffic;
use crate::train::save::Best;
use crate::train::stop::Stop;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunSummary {
    pub step: u64,
    /// Whether all steps were made.
    pub finished: bool,
    /// Why it ended before the last step, with everything saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stop>,
    pub loss: f64,
    pub val_loss: Option<f64>,
    pub best: Option<Best>,
    /// Steps of this process whose gradients overflowed fp16, or whose update was left out as a spike.
    pub skipped: u64,
    pub seconds: f64,
    pub tokens_per_s: f64,
    /// The longest that training has waited for a checkpoint in this process.
    pub longest_stall_s: f64,
    /// What this rank's part in training together has cost since the program started, where there are several ranks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communication: Option<Communication>,
}

/// What a rank has sent to others, and how many steps it was for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Communication {
    pub ranks: usize,
    pub zero: u8,
    /// Steps that this process made.
    pub steps: u64,
    /// Elements of all flat buffers.
    pub parameters: u64,
    /// Bytes that left this rank, by operation, in the steps alone; validation and checkpoints are not in it.
    pub step_bytes: Traffic,
    /// The share of the time in the steps' exchanges for which the training waited; the rest ran beside its work.
    pub exposed: f64,
}
