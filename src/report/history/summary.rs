//! How a run stands, in a few numbers.

use serde::Serialize;

use super::Curves;
use crate::report::sessions::{Outcome, Session};

/// Whether a run goes on, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// A trainer holds its lock.
    Running,
    /// All steps were made.
    Finished,
    /// By a signal, with everything saved.
    Stopped,
    /// By an error, or killed.
    Failed,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// What the run directory says besides its curves.
pub(super) struct Signs {
    /// Whether a trainer holds the lock, where that can be told.
    pub held: Option<bool>,
    /// Seconds since 1970.
    pub now: f64,
    /// When metrics.jsonl was last written, in seconds since 1970.
    pub written: Option<f64>,
    /// What the configuration asks for.
    pub steps: Option<u64>,
    /// The step of the newest checkpoint.
    pub saved: Option<u64>,
}

/// The numbers of a run. Losses are nats a token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub status: Status,
    /// Why it failed.
    pub message: Option<String>,
    /// Steps made.
    pub step: u64,
    /// Steps that the configuration asks for.
    pub steps: Option<u64>,
    /// Of the last step whose loss is finite.
    pub loss: Option<f32>,
    pub best_val_loss: Option<f32>,
    pub best_val_step: Option<u64>,
    pub skipped: usize,
    pub tokens: u64,
    /// Of training.
    pub seconds: f32,
    /// Median of the last `RECENT` steps, as is `mfu`.
    pub tokens_per_s: Option<f32>,
    pub mfu: Option<f32>,
    /// Seconds since its last step or validation.
    pub age: Option<f64>,
}

const RECENT: usize = 100;
/// Where no lock tells, a run that wrote this many seconds ago is taken for running.
const FRESH: f64 = 120.0;

impl Summary {
    pub(super) fn new(curves: &Curves, sessions: &[Session], signs: &Signs) -> Self {
        let step = curves.step.last().copied().unwrap_or(0);
        let age = signs.written.map(|written| (signs.now - written).max(0.0));
        let all = signs.steps.is_some_and(|steps| step >= steps);
        let running = signs.held.unwrap_or_else(|| !all && age.is_some_and(|age| age < FRESH));
        let (status, message) = match sessions.last().map(|session| session.end.as_ref()) {
            _ if running => (Status::Running, None),
            // Written before sessions were.
            None if all => (Status::Finished, None),
            None => (Status::Stopped, None),
            // Killed after the last step was saved, with nothing left to do.
            Some(None) if all && signs.saved >= signs.steps => (Status::Finished, None),
            Some(None) => (Status::Failed, Some("ended without a word: killed, or the machine went down".to_owned())),
            Some(Some(end)) => match end.outcome {
                // Finished once, and then asked for more steps that were not begun.
                Outcome::Finished if all => (Status::Finished, None),
                Outcome::Finished | Outcome::Stopped => (Status::Stopped, None),
                Outcome::Failed => (Status::Failed, end.message.clone()),
            },
        };
        let best = curves.validation.loss.iter().zip(&curves.validation.step).filter(|(loss, _)| loss.is_finite());
        let best = best.min_by(|a, b| a.0.total_cmp(b.0));
        Self {
            status,
            message,
            step,
            steps: signs.steps,
            loss: curves.loss.iter().rev().copied().find(|loss| loss.is_finite()),
            best_val_loss: best.map(|(loss, _)| *loss),
            best_val_step: best.map(|(_, step)| *step),
            skipped: curves.skipped.iter().filter(|skipped| **skipped).count(),
            tokens: curves.tokens.last().copied().unwrap_or(0),
            seconds: curves.seconds.last().copied().unwrap_or(0.0),
            tokens_per_s: recent_median(&curves.tokens_per_s),
            mfu: recent_median(&curves.mfu),
            age,
        }
    }
}

fn recent_median(values: &[f32]) -> Option<f32> {
    let recent = &values[values.len().saturating_sub(RECENT)..];
    let mut recent: Vec<f32> = recent.iter().copied().filter(|value| value.is_finite()).collect();
    recent.sort_by(f32::total_cmp);
    recent.get(recent.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::super::curves::tests::step;
    use super::*;
    use crate::report::sessions::{Ended, Started};

    fn session(outcome: Option<Outcome>) -> Session {
        let start = Started {
            started: 0.0,
            step: 0,
            version: String::new(),
            device: String::new(),
            ranks: 1,
            host: String::new(),
            system: String::new(),
        };
        let message = (outcome == Some(Outcome::Failed)).then(|| "no space is left".to_owned());
        let end = outcome.map(|outcome| Ended { ended: 1.0, step: 3, outcome, message, peak_memory: None });
        Session { start, end }
    }

    #[test]
    fn what_a_run_says_of_itself() {
        let curves = Curves::new(&[step(1, 3.0), step(2, 2.0), step(3, f64::NAN)]);
        let status = |sessions: &[Session], held: Option<bool>, steps: u64, written: f64| {
            let signs = Signs { held, now: 1000.0, written: Some(written), steps: Some(steps), saved: None };
            let summary = Summary::new(&curves, sessions, &signs);
            assert_eq!((summary.step, summary.loss, summary.skipped), (3, Some(2.0), 1));
            (summary.status, summary.message)
        };
        let ended = |outcome| [session(Some(outcome))];
        assert_eq!(status(&[], Some(true), 5, 0.0).0, Status::Running);
        assert_eq!(status(&ended(Outcome::Stopped), Some(true), 5, 0.0).0, Status::Running);
        assert_eq!(status(&[], Some(false), 5, 999.0).0, Status::Stopped);
        assert_eq!(status(&[], Some(false), 3, 0.0).0, Status::Finished);
        assert_eq!(status(&ended(Outcome::Finished), Some(false), 3, 0.0).0, Status::Finished);
        assert_eq!(status(&ended(Outcome::Finished), Some(false), 5, 0.0).0, Status::Stopped);
        assert_eq!(status(&ended(Outcome::Stopped), Some(false), 5, 0.0).0, Status::Stopped);
        let (failed, message) = status(&ended(Outcome::Failed), Some(false), 5, 0.0);
        assert_eq!((failed, message.as_deref()), (Status::Failed, Some("no space is left")));
        let (killed, message) = status(&[session(None)], Some(false), 5, 0.0);
        assert!(killed == Status::Failed && message.is_some_and(|message| message.contains("killed")));
        assert_eq!(status(&[session(None)], None, 5, 950.0).0, Status::Running);
        assert_eq!(status(&[session(None)], None, 5, 500.0).0, Status::Failed);
        let saved =
            |step| Signs { held: Some(false), now: 1000.0, written: Some(0.0), steps: Some(3), saved: Some(step) };
        let status = |step| Summary::new(&curves, &[session(None)], &saved(step)).status;
        assert_eq!((status(2), status(3)), (Status::Failed, Status::Finished));
    }

    #[test]
    fn medians_leave_out_what_is_unknown() {
        assert_eq!(recent_median(&[f32::NAN, 1.0, 5.0, 2.0]), Some(2.0));
        assert_eq!(recent_median(&[f32::NAN]), None);
        let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        assert_eq!(recent_median(&values), Some(950.0));
    }
}
