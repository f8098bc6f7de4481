//! state.json

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::dataset::Dataset;
use crate::error::{Error, Result};
use crate::train::loss_scale::LossScale;
use crate::train::spikes::Recent;

/// Its name in a checkpoint directory.
pub(super) const STATE: &str = "state.json";

/// The best validation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub step: u64,
    pub val_loss: f64,
    /// Share of the problems solved, where that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass_at_1: Option<f64>,
}

impl Best {
    /// Whether this validation is better than an earlier one: more problems solved or, where as many are or nobody counts, a
    /// lower loss.
    pub fn beats(&self, earlier: &Self) -> bool {
        match (self.pass_at_1, earlier.pass_at_1) {
            (Some(own), Some(other)) if own != other => own > other,
            _ => self.val_loss < earlier.val_loss,
        }
    }
}

/// What a run needs to go on besides weights and moments: state.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoopState {
    /// The version of the program that wrote it.
    pub version: String,
    pub step: u64,
    pub updates: u64,
    pub loss_scale: Option<LossScale>,
    /// Tokens trained on, over all resumes.
    pub tokens: u64,
    /// Seconds of training, over all resumes.
    pub seconds: f64,
    pub best: Option<Best>,
    /// `Dataset::fingerprint` of the training split, as hexadecimal: the data position is (step, this, `left_out`).
    pub data: String,
    /// Batches that no step reads, ascending: batch b is the one that step b + 1 reads where none is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<u64>,
    /// What spikes are judged by.
    #[serde(default)]
    pub recent: Recent,
}

impl LoopState {
    /// Before the first step.
    pub fn new(train: &Dataset) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            step: 0,
            updates: 0,
            loss_scale: None,
            tokens: 0,
            seconds: 0.0,
            best: None,
            data: fingerprint(train),
            left_out: Vec::new(),
            recent: Recent::default(),
        }
    }

    /// Reads a checkpoint's state.json.
    ///
    /// # Errors
    /// No such file, or another one of that name.
    pub fn read(checkpoint: &Path) -> Result<Self> {
        let path = checkpoint.join(STATE);
        let json = fs::read(&path).map_err(Error::io("read", &path))?;
        serde_json::from_slice(&json)
            .map_err(|error| Error::file(&path, format!("is not the state of a run: {error}; take another checkpoint")))
    }

    /// # Errors
    /// The checkpoint was made on other data.
    pub fn check_same_data(&self, train: &Dataset, checkpoint: &Path) -> Result<()> {
        let found = fingerprint(train);
        if found == self.data {
            return Ok(());
        }
        Err(Error::file(
            checkpoint,
            format!(
                "was trained on other data (fingerprint {} there, {found} here): resume with the data that the run started \
                 with, or start a new run from its weights with --init-from",
                self.data
            ),
        ))
    }
}

fn fingerprint(train: &Dataset) -> String {
    format!("{:016x}", train.fingerprint())
}
