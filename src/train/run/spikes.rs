//! Losses and gradients that leap: what is done, and what is told.

use trainer_backends::DecoderBackend;

use super::Run;
use crate::checkpoint::find_latest;
use crate::config::SpikePolicy;
use crate::error::{Error, Result};
use crate::parallel::session::{every, lead, shared};
use crate::report::progress::TrainProgress;
use crate::report::spikes::{self, SpikeRecord};
use crate::train::save;
use crate::train::spikes::{Action, Ceilings, Line};
use crate::train::step::{HeldBack, StepReport};

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spiked {
    /// It was as others are.
    No,
    /// It leapt, and the run goes on behind it.
    Stayed,
    /// The run is back at an earlier step.
    GoneBack,
}

impl<B: DecoderBackend> Run<'_, B> {
    /// What the next step must not exceed for its update to be made.
    pub(super) fn ceilings(&self) -> Option<Ceilings> {
        let spikes = &self.config.spikes;
        Some(match spikes.policy {
            SpikePolicy::Continue => Ceilings::NONE,
            SpikePolicy::Skip | SpikePolicy::Rollback => self.loop_state.recent.ceilings(spikes),
        })
    }

    /// Looks at a step that was made, and acts where it leapt.
    ///
    /// # Errors
    /// Numbers that are not finite where the policy goes on from leaps alone; more leaps than the configuration allows; a
    /// checkpoint that cannot be gone back to.
    pub(super) fn judge(&mut self, report: &StepReport, progress: &TrainProgress) -> Result<Spiked> {
        if report.overflow.is_some() {
            // An overflow of fp16 says nothing of the loss: the scale sees to it.
            return Ok(Spiked::No);
        }
        let spikes = self.config.spikes.clone();
        let recent = &self.loop_state.recent;
        let (loss, log_norm) = (recent.loss(), recent.log_norm());
        let leapt = match spikes.policy {
            SpikePolicy::Continue => recent.ceilings(&spikes).exceeded(report.loss, report.grad_norm),
            SpikePolicy::Skip | SpikePolicy::Rollback => report.held_back.is_some(),
        };
        if report.held_back.is_none() {
            self.loop_state.recent.push(report.loss, report.grad_norm, spikes.window);
        }
        if !leapt {
            return Ok(Spiked::No);
        }
        let step = self.state.step;
        let allowed = spikes.policy == SpikePolicy::Continue || self.handled.allow(step, &spikes);
        let checkpoint = match spikes.policy {
            SpikePolicy::Rollback if allowed => {
                let settled = self.saver.settle(&self.replica);
                self.tell_saved(settled, progress);
                lead(&*self.replica.group, || Ok(find_latest(&self.out)?.map(|found| found.dir)))?
            }
            _ => None,
        };
        let ends = !allowed || (spikes.policy == SpikePolicy::Continue && report.held_back.is_some());
        let action = if ends { Action::Ended } else { Action::of(spikes.policy, checkpoint.is_some()) };
        let back_to = checkpoint.is_some().then(|| self.saver.newest());
        self.tell_spike(report, action, back_to, [loss, log_norm], progress);
        if ends {
            self.state.step -= 1;
            return Err(shared(match report.held_back {
                Some(why @ (HeldBack::NotFinite | HeldBack::AtFloor)) if allowed => why.error(step, report.loss),
                _ => Error::failed(format!(
                    "step {step}: more than {} spikes within {} steps (spikes.limit); lower optimizer.lr, or look at the data \
                     that {} names, and resume from the last checkpoint",
                    spikes.limit,
                    spikes.window,
                    self.out.join(spikes::FILE_NAME).display()
                )),
            }));
        }
        let Some(dir) = checkpoint else { return Ok(Spiked::Stayed) };
        let mut left_out = self.loop_state.left_out.clone();
        left_out.push(self.batches.batch_of(step));
        left_out.sort_unstable();
        // Two states would not fit where one just does.
        self.state.release();
        let loaded = save::load(&dir, &self.decoder, &self.config, &self.replica);
        (self.state, self.loop_state) = every(&*self.replica.group, loaded)?;
        self.batches.leave_out(&left_out);
        self.loop_state.left_out = left_out;
        lead(&*self.replica.group, || self.log.as_mut().map_or(Ok(()), |log| log.back_to(&self.out, self.state.step)))?;
        Ok(Spiked::GoneBack)
    }

    fn tell_spike(
        &self,
        report: &StepReport,
        action: Action,
        back_to: Option<u64>,
        [loss, log_norm]: [Line; 2],
        progress: &TrainProgress,
    ) {
        let step = self.state.step;
        let batch = self.batches.batch_of(step);
        if self.replica.is_first() {
            let record = SpikeRecord {
                step,
                action,
                loss: report.loss,
                grad_norm: report.grad_norm,
                loss_mean: loss.mean,
                loss_deviation: loss.deviation,
                log_norm_mean: log_norm.mean,
                log_norm_deviation: log_norm.deviation,
                back_to,
                batch,
                epoch: self.batches.epoch(batch),
                sequences: self.batches.sequences(batch),
                tokens_a_sequence: self.config.model.seq_len,
            };
            spikes::append(&self.out, &record);
        }
        let what = match action {
            // The error says it.
            Action::Ended => return,
            Action::Continued => "training goes on".to_owned(),
            Action::Skipped => "its update was left out".to_owned(),
            Action::RolledBack => format!(
                "going back to the checkpoint of step {}, and past its {} sequences",
                back_to.unwrap_or(0),
                self.config.train.batch
            ),
        };
        progress.say(&format!(
            "step {step}: loss {:.4} and gradient norm {:.3} leap from {:.4} +- {:.4} and {:.3}; {what} (see {})",
            report.loss,
            report.grad_norm,
            loss.mean,
            loss.deviation,
            log_norm.mean.exp(),
            spikes::FILE_NAME
        ));
    }
}
