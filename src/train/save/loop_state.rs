//! state.json

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::dataset::Dataset;
use crate::error::{Error, Result, Short};
use crate::train::loss_scale::LossScale;
use crate::train::spikes::Recent;

/// Its name in a checkpoint directory.
pub const STATE: &str = "state.json";

/// More steps than a configuration may ask for, and more tokens than they can have, are damage: what goes on counts up from
/// them.
const MOST_STEPS: u64 = 99_999_999;
const MOST_TOKENS: u64 = 1 << 62;

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
        let refused =
            |why: String| Error::file(&path, format!("is not the state of a run: {why}; take another checkpoint"));
        let state: Self = serde_json::from_slice(&json).map_err(|error| refused(Short(error).to_string()))?;
        if state.step > MOST_STEPS || state.tokens > MOST_TOKENS || state.updates > state.step {
            let (step, updates, tokens) = (state.step, state.updates, state.tokens);
            return Err(refused(format!("{updates} updates in {step} steps of {tokens} tokens together")));
        }
        if let Some(scale) = state.loss_scale.filter(|scale| !scale.is_sound()) {
            return Err(refused(format!("no loss scale is {scale:?}")));
        }
        Ok(state)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    /// What goes on counts up from these numbers, and the rules of the loss scale keep it within bounds.
    #[test]
    fn states_that_no_run_comes_to_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let whole: serde_json::Value = serde_json::from_slice(&fixtures::state(4)).unwrap();
        let read = |change: serde_json::Value| {
            let mut state = whole.clone();
            state.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            fs::write(dir.path().join(STATE), state.to_string()).unwrap();
            LoopState::read(dir.path()).map_err(|error| error.to_string())
        };
        let scale = |scale: f64, clean: u64, hysteresis: u32| serde_json::json!({"loss_scale": {"scale": scale, "clean_steps": clean, "hysteresis": hysteresis}});
        for sound in [serde_json::json!({}), scale(65_536.0, 999, 2), scale(1.0, 0, 1)] {
            read(sound).unwrap();
        }
        for (odd, why) in [
            (serde_json::json!({"updates": 5}), "5 updates in 4 steps"),
            (serde_json::json!({"step": u64::MAX}), "in 18446744073709551615 steps"),
            (serde_json::json!({"tokens": u64::MAX}), "of 18446744073709551615 tokens"),
            (scale(0.5, 0, 2), "no loss scale is"),
            (scale(2.0, 1000, 2), "no loss scale is"),
            (scale(2.0, 0, 0), "no loss scale is"),
        ] {
            let refused = read(odd).unwrap_err();
            assert!(refused.contains(why) && refused.contains("state.json"), "{refused}");
        }
    }
}
