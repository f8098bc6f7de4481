//! Steps whose loss or gradient norm leaps out of line.
//!
//! Both are held against the steps before: a value is a spike where it lies more than `spikes.threshold` standard
//! deviations above the mean of the last `spikes.window` updates. Losses are compared as they are and norms by their
//! logarithm, since those vary by factors.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::config::{SpikePolicy, Spikes};

/// Nothing is judged by fewer updates than this, or by half a window.
const FEWEST: usize = 16;
/// A run of nearly equal losses must not make a spike of their noise: deviations count as at least this share of the mean...
const LEAST_LOSS_DEVIATION: f64 = 1e-3;
/// ... and those of the norm's logarithm as at least this much, 10 per cent.
const LEAST_NORM_DEVIATION: f64 = 0.1;

/// Losses and gradient norms of the last updates, oldest first. Part of a checkpoint, so that a resumed run judges as the
/// undisturbed one does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    losses: VecDeque<f32>,
    norms: VecDeque<f32>,
}

/// What a step must not exceed for its update to be made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Mean over the step's tokens, nats.
    pub loss: f64,
    /// Global L2 norm before clipping.
    pub grad_norm: f64,
}

impl Ceilings {
    /// Nothing exceeds these but what is no number.
    pub const NONE: Self = Self { loss: f64::INFINITY, grad_norm: f64::INFINITY };

    pub fn exceeded(&self, loss: f64, grad_norm: f64) -> bool {
        !(loss <= self.loss && grad_norm <= self.grad_norm)
    }
}

/// Mean and deviation that a value is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    pub mean: f64,
    pub deviation: f64,
}

impl Recent {
    /// Adds an update's.
    pub fn push(&mut self, loss: f64, grad_norm: f64, window: usize) {
        for (values, value) in [(&mut self.losses, loss), (&mut self.norms, grad_norm)] {
            values.push_back(value as f32);
            while values.len() > window {
                values.pop_front();
            }
        }
    }

    /// What the next step is judged by.
    pub fn ceilings(&self, spikes: &Spikes) -> Ceilings {
        if self.losses.len() < FEWEST.max(spikes.window / 2) {
            return Ceilings::NONE;
        }
        let (loss, norm) = (self.loss(), self.log_norm());
        Ceilings {
            loss: loss.mean + spikes.threshold * loss.deviation,
            grad_norm: (norm.mean + spikes.threshold * norm.deviation).exp(),
        }
    }

    /// Of the last losses.
    pub fn loss(&self) -> Line {
        let line = line(self.losses.iter().map(|loss| f64::from(*loss)));
        Line { deviation: line.deviation.max(LEAST_LOSS_DEVIATION * line.mean.abs()), ..line }
    }

    /// Of the natural logarithm of the last norms.
    pub fn log_norm(&self) -> Line {
        let line = line(self.norms.iter().map(|norm| f64::from(norm.max(f32::MIN_POSITIVE)).ln()));
        Line { deviation: line.deviation.max(LEAST_NORM_DEVIATION), ..line }
    }
}

fn line(values: impl Iterator<Item = f64> + Clone) -> Line {
    let count = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / count;
    let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    Line { mean, deviation: variance.sqrt() }
}

/// Counts the spikes of this process that were not simply gone on from.
#[derive(Debug, Default)]
pub struct Handled(VecDeque<u64>);

impl Handled {
    /// Counts one more at `step`; false where there have been too many within a window.
    pub fn allow(&mut self, step: u64, spikes: &Spikes) -> bool {
        // A run that was rolled back makes steps again: those it left behind still count.
        let close = |other: &u64| other.abs_diff(step) < spikes.window as u64;
        self.0.retain(close);
        self.0.push_back(step);
        self.0.len() <= spikes.limit
    }
}

/// What was done about a spike, for the log and the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Continued,
    Skipped,
    RolledBack,
    /// The run ended.
    Ended,
}

impl Action {
    /// What a policy does, where there is a checkpoint to go back to and where there is none.
    pub fn of(policy: SpikePolicy, has_checkpoint: bool) -> Self {
        match policy {
            SpikePolicy::Continue => Self::Continued,
            SpikePolicy::Rollback if has_checkpoint => Self::RolledBack,
            SpikePolicy::Skip | SpikePolicy::Rollback => Self::Skipped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Losses that wander around 3 by a few hundredths, norms around 1.
    fn recent(count: u64, window: usize) -> Recent {
        let mut recent = Recent::default();
        for i in 0..count {
            let wave = (i as f64 * 1.7).sin();
            recent.push(3.0 + 0.05 * wave, 1.0 + 0.2 * wave, window);
        }
        recent
    }

    #[test]
    fn a_leap_is_a_spike_and_the_noise_is_none() {
        let spikes = Spikes::default();
        let ceilings = recent(200, spikes.window).ceilings(&spikes);
        assert!(!ceilings.exceeded(3.05, 1.2) && !ceilings.exceeded(1.0, 0.1));
        assert!(ceilings.exceeded(3.5, 1.0) && ceilings.exceeded(3.0, 5.0));
        // Six deviations of 0.05 / sqrt 2.
        assert!((ceilings.loss - 3.212).abs() < 0.01, "{ceilings:?}");
        for broken in [f64::NAN, f64::INFINITY] {
            assert!(ceilings.exceeded(broken, 1.0) && ceilings.exceeded(3.0, broken));
            assert!(Ceilings::NONE.exceeded(broken, f64::NAN));
        }
    }

    #[test]
    fn few_updates_judge_nothing_and_equal_ones_are_given_room() {
        let spikes = Spikes::default();
        assert_eq!(recent(63, spikes.window).ceilings(&spikes), Ceilings::NONE);
        let mut equal = Recent::default();
        (0..64).for_each(|_| equal.push(2.0, 1.0, spikes.window));
        let ceilings = equal.ceilings(&spikes);
        assert!((ceilings.loss - 2.012).abs() < 1e-6 && (ceilings.grad_norm - 0.6f64.exp()).abs() < 1e-6);
    }

    #[test]
    fn the_window_forgets_and_survives_a_checkpoint() {
        let mut recent = recent(500, 40);
        assert_eq!((recent.losses.len(), recent.norms.len()), (40, 40));
        let json = serde_json::to_string(&recent).unwrap();
        assert_eq!(serde_json::from_str::<Recent>(&json).unwrap(), recent);
        (0..40).for_each(|_| recent.push(1.0, 1.0, 40));
        assert_eq!(recent.loss().mean, 1.0);
    }

    #[test]
    fn too_many_within_a_window_end_it() {
        let spikes = Spikes { limit: 2, window: 100, ..Spikes::default() };
        let mut handled = Handled::default();
        assert!(handled.allow(10, &spikes) && handled.allow(20, &spikes));
        assert!(!handled.allow(30, &spikes));
        let mut handled = Handled::default();
        assert!([10, 20, 200, 210].into_iter().all(|step| handled.allow(step, &spikes)));
        assert_eq!(Action::of(SpikePolicy::Rollback, false), Action::Skipped);
        assert_eq!(Action::of(SpikePolicy::Rollback, true), Action::RolledBack);
    }
}
