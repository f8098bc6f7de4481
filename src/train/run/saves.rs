//! Validation and checkpoints.

use std::time::{Duration, Instant};

use trainer_backends::DecoderBackend;

use super::Run;
use crate::breakdown;
use crate::error::{Error, Result};
use crate::eval::loss::{Share, loss_of_share};
use crate::parallel::Replica;
use crate::parallel::session::{self, every, lead, together};
use crate::parallel::signs::Signs;
use crate::profile::host;
use crate::report;
use crate::report::metrics::ValidationRecord;
use crate::report::progress::TrainProgress;
use crate::report::voice;
use crate::train::save::{Best, Saved, Snapshot};

impl<B: DecoderBackend> Run<'_, B> {
    /// Validates and saves where the configuration says so; a new best is always saved.
    pub(super) fn validate_and_save(&mut self, save_due: bool, progress: &TrainProgress) -> Result<()> {
        let (step, steps) = (self.state.step, self.config.train.steps);
        let due = |every: u64| every > 0 && step.is_multiple_of(every);
        let mut new_best = false;
        if self.data.val.is_some()
            && self.config.validation.every > 0
            && (due(self.config.validation.every) || step == steps)
        {
            let _span = host("validation");
            new_best = self.validate(progress)?;
        }
        if new_best || save_due || due(self.config.checkpoint.every) || step == steps {
            self.save(progress)?;
        }
        Ok(())
    }

    /// Measures the validation loss; returns whether it is the best so far.
    fn validate(&mut self, progress: &TrainProgress) -> Result<bool> {
        let Some(val) = &self.data.val else { return Ok(false) };
        let step = self.state.step;
        let batch = (self.config.train.micro_batch, self.config.model.seq_len);
        let batches = self.config.validation.batches;
        let share = Share { index: self.replica.group.rank(), of: self.replica.group.size() };
        let loss = loss_of_share(&self.decoder, &self.state.weights, val, batch, batches, share, |_, _| {});
        let loss = breakdown::check().and(loss);
        let (sum, tokens) = every(&*self.replica.group, loss)?;
        let mut sums = [sum, tokens as f64];
        self.replica.group.sums(&mut sums);
        let val_loss = sums[0] / sums[1];
        let pass_at_1 = lead(&*self.replica.group, || {
            self.selection.as_ref().map(|selection| selection.pass_at_1(&self.decoder, &self.state.weights)).transpose()
        })?;
        lead(&*self.replica.group, || {
            let Some(samples) = &self.samples else { return Ok(()) };
            match samples.write(&self.decoder, &self.state.weights, step) {
                Ok(records) => report::samples::append(&self.out, &records),
                // Training can do without them, but not without its device.
                Err(error) => {
                    breakdown::check()?;
                    progress.say(&format!("warning: no samples after step {step}: {error}"));
                }
            }
            Ok(())
        })?;
        self.log.iter_mut().for_each(|log| log.validation(ValidationRecord { step, val_loss, pass_at_1 }));
        self.val_loss = Some(val_loss);
        let found = Best { step, val_loss, pass_at_1 };
        let new_best = self.loop_state.best.is_none_or(|best| found.beats(&best));
        if new_best {
            self.loop_state.best = Some(found);
        }
        let solved =
            pass_at_1.map_or_else(String::new, |share| format!(", {:.1}% of the problems solved", 100.0 * share));
        let mark = if new_best { " (best)" } else { "" };
        progress.say(&format!("step {step}: validation loss {val_loss:.4}{solved}{mark}"));
        Ok(new_best)
    }

    /// Starts to write a checkpoint of this step, once the one before is written. Training goes on where that fails.
    ///
    /// # Errors
    /// As `snapshot`.
    fn save(&mut self, progress: &TrainProgress) -> Result<()> {
        let started = Instant::now();
        let span = host("wait for the checkpoint before");
        let before = self.saver.settle(&self.replica);
        drop(span);
        self.tell_saved(before, progress);
        let snapshot = self.snapshot()?;
        let begun = self.saver.begin(snapshot, self.loop_state.clone(), &self.replica);
        self.tell_saved(begun.map(|()| None), progress);
        self.longest_stall = self.longest_stall.max(started.elapsed());
        Ok(())
    }

    /// The state after this step.
    ///
    /// # Errors
    /// The data is damaged, or the ranks' weights differ: there is nothing worth saving.
    fn snapshot(&mut self) -> Result<Snapshot> {
        let checked = self.data_check.settle();
        every(&*self.replica.group, checked)?;
        self.save_begun = Instant::now();
        self.loop_state.step = self.state.step;
        self.loop_state.updates = self.state.updates;
        self.loop_state.loss_scale = self.state.loss_scale;
        let span = host("checkpoint snapshot");
        let snapshot = Snapshot::take(&self.state, &self.snapshots);
        drop(span);
        breakdown::check()?;
        check_same_weights(&self.replica, snapshot.step, || snapshot.weights_checksum())?;
        voice::log(&format!(
            "step {}: state copied in {:.3} s",
            snapshot.step,
            self.save_begun.elapsed().as_secs_f64()
        ));
        Ok(snapshot)
    }

    /// Looks after the checkpoint that is being written.
    pub(super) fn poll_saver(&mut self, told: &Signs, progress: &TrainProgress) {
        let polled = self.saver.poll(told, &self.replica);
        self.tell_saved(polled, progress);
    }

    pub(super) fn tell_saved(&self, result: Result<Option<Saved>>, progress: &TrainProgress) {
        match result {
            Ok(None) => {}
            Ok(Some(Saved { step, writing, tidying })) => {
                let seconds = writing.as_secs_f64();
                voice::log(&format!("the checkpoint of step {step} was written in {seconds:.2} s"));
                // A slow disk is worth knowing of.
                if writing > Duration::from_secs(60) {
                    progress.say(&format!("the checkpoint of step {step} took {seconds:.0} s to write"));
                }
                if let Err(error) = tidying {
                    progress.say(&format!(
                        "warning: the checkpoint of step {step} is saved, but naming the best or removing earlier ones \
                         failed: {error}; training goes on"
                    ));
                }
            }
            Err(error) => {
                session::overcome();
                let next = match self.is_finished() {
                    true => "it is tried once more",
                    false => "training goes on, and the next checkpoint will be tried",
                };
                progress.say(&format!("warning: {error}; {next}"));
            }
        }
    }

    /// Waits for the checkpoint that is being written, and sees to it that the last step has one.
    ///
    /// # Errors
    /// It cannot be written, or metrics.jsonl cannot; earlier checkpoints are intact.
    pub(super) fn finish_saving(&mut self, progress: &TrainProgress) -> Result<()> {
        let before = self.saver.settle(&self.replica);
        self.tell_saved(before, progress);
        if self.saver.newest() != self.state.step {
            let snapshot = self.snapshot()?;
            self.saver.begin(snapshot, self.loop_state.clone(), &self.replica)?;
            let last = self.saver.settle(&self.replica)?;
            self.tell_saved(Ok(last), progress);
        }
        lead(&*self.replica.group, || self.log.as_mut().map_or(Ok(()), |log| log.flush()))
    }
}

/// Every rank's weights are the same bits; each rank's log has their checksum.
///
/// # Errors
/// They are not: devices or builds of different kinds, or a fault.
pub(super) fn check_same_weights(replica: &Replica, step: u64, checksum: impl FnOnce() -> u32) -> Result<()> {
    if replica.is_alone() {
        return Ok(());
    }
    let checksum = checksum();
    voice::log(&format!("step {step}: weights {checksum:08x}"));
    let all = together(&*replica.group, Ok(checksum))?;
    match all.iter().position(|(_, other)| *other != all[0].1) {
        None => Ok(()),
        Some(rank) => Err(Error::failed(format!(
            "after step {step} the weights of rank {rank} on {} are not those of rank 0: start all ranks with the same build \
             on the same kind of device, from the last checkpoint (--resume)",
            all[rank].0
        ))),
    }
}
