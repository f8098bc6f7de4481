//! What a run writes down while it trains: metrics.jsonl, the same for TensorBoard, and when and where it was trained.

use std::path::Path;

use super::metrics::{self, MetricsLog, Record, StepRecord, ValidationRecord};
use super::samples;
use super::sessions::{Ended, Outcome, SessionLog, now};
use super::tensorboard::EventWriter;
use super::voice::say;
use crate::error::{Error, Result};

/// The three together. What cannot be written does not end the training; only metrics.jsonl is missed at its end.
#[derive(Debug)]
pub struct RunLog {
    metrics: MetricsLog,
    tensorboard: EventWriter,
    session: SessionLog,
}

impl RunLog {
    /// Goes on after `step` steps: what an earlier process wrote of later ones is dropped. `device` and `ranks` are for
    /// people.
    ///
    /// # Errors
    /// metrics.jsonl cannot be read or written.
    pub fn open(run_dir: &Path, step: u64, device: &str, ranks: usize) -> Result<Self> {
        metrics::truncate_after(&run_dir.join(metrics::FILE_NAME), step)?;
        samples::truncate_after(run_dir, step);
        Ok(Self {
            metrics: MetricsLog::open(run_dir)?,
            tensorboard: EventWriter::new(run_dir, step),
            session: SessionLog::new(run_dir, step, device, ranks),
        })
    }

    pub fn step(&mut self, record: StepRecord) {
        self.session.step();
        self.write(&Record::Step(record));
    }

    pub fn validation(&mut self, record: ValidationRecord) {
        self.write(&Record::Validation(record));
    }

    fn write(&mut self, record: &Record) {
        if let Some(refusal) = self.metrics.write(record) {
            say(&format!("warning: {refusal}; training goes on, and what is to be written there waits"));
        }
        self.tensorboard.write(record);
    }

    /// Writes what had to wait.
    ///
    /// # Errors
    /// metrics.jsonl can still not be written.
    pub fn flush(&mut self) -> Result<()> {
        self.metrics.flush()
    }

    /// The run goes on after `step`, an earlier step: what was written of later ones is dropped.
    ///
    /// # Errors
    /// As `open`.
    pub fn back_to(&mut self, run_dir: &Path, step: u64) -> Result<()> {
        self.metrics.flush()?;
        metrics::truncate_after(&run_dir.join(metrics::FILE_NAME), step)?;
        samples::truncate_after(run_dir, step);
        self.metrics = MetricsLog::open(run_dir)?;
        self.tensorboard = EventWriter::new(run_dir, step);
        Ok(())
    }

    /// The session is over after `step` steps. `ended`: whether all steps were made, or what went wrong. `peak_memory` is in
    /// bytes.
    pub fn end(&self, step: u64, ended: std::result::Result<bool, &Error>, peak_memory: Option<u64>) {
        let (outcome, message) = match ended {
            Ok(true) => (Outcome::Finished, None),
            Ok(false) => (Outcome::Stopped, None),
            Err(error) => (Outcome::Failed, Some(error.to_string())),
        };
        self.session.end(&Ended { ended: now().floor(), step, outcome, message, peak_memory });
    }
}
