//! What a run does about losses and gradients that leap out of line.

use serde::{Deserialize, Serialize};

/// What is done about a step whose loss or gradient norm leaps, or is not a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpikePolicy {
    /// It is reported, and the update made. Numbers that are not finite end the run.
    #[default]
    Continue,
    /// The step's update is left out.
    Skip,
    /// The run goes back to its last checkpoint, and never reads the step's sequences again ("PaLM: Scaling Language
    /// Modeling with Pathways", Chowdhery et al. 2022, section 5.1).
    Rollback,
}

impl SpikePolicy {
    /// The names that configuration files use.
    pub const NAMES: [&'static str; 3] = ["continue", "skip", "rollback"];
}

/// `[spikes]`
#[derive(Clone, Debug, PartialEq)]
pub struct Spikes {
    /// Default continue.
    pub policy: SpikePolicy,
    /// Standard deviations above the mean of the last steps that make a spike. Default 6.
    pub threshold: f64,
    /// Steps whose mean and deviation count. Default 128.
    pub window: usize,
    /// Spikes within `window` steps that may be skipped or rolled back; one more ends the run. Default 8.
    pub limit: usize,
}

impl Default for Spikes {
    fn default() -> Self {
        Self { policy: SpikePolicy::default(), threshold: 6.0, window: 128, limit: 8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_files() {
        let policies = [SpikePolicy::Continue, SpikePolicy::Skip, SpikePolicy::Rollback];
        for (policy, name) in policies.iter().zip(SpikePolicy::NAMES) {
            assert_eq!(serde_json::to_string(policy).unwrap(), format!("\"{name}\""));
        }
    }
}
