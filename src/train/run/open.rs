//! From what is asked for to a run that is ready for its next step.

use std::path::Path;
use std::time::{Duration, Instant};

use trainer_backends::DecoderBackend;

use super::prepare::{claim, origin, prepare, write_origin};
use super::samples::Samples;
use super::saves::check_same_weights;
use super::selection::Selection;
use super::{CONFIG, Resume, Run, RunRequest};
use crate::checkpoint::layout::{list_steps, step_dir};
use crate::checkpoint::{self, Retention, storage};
use crate::error::Result;
use crate::model::HostBuffers;
use crate::parallel::collective::Traffic;
use crate::parallel::session::{self, every, lead};
use crate::profile::{ProfiledSteps, WARM_UP};
use crate::report::log::RunLog;
use crate::report::voice::say;
use crate::train::data_check::DataCheck;
use crate::train::device::DeviceFacts;
use crate::train::input::{TrainingBatches, TrainingData};
use crate::train::save::{self, Best, Description, HostMemory, LoopState, Saver, Share};
use crate::train::spikes::Handled;
use crate::train::state::TrainState;
use crate::train::stop::Allowance;

/// Whether a run directory holds something to go on from, and that is wanted.
pub fn goes_on(out: &Path, resume: Resume) -> bool {
    matches!(resume, Resume::Auto | Resume::Always) && list_steps(out).is_ok_and(|steps| !steps.is_empty())
}

impl<'a, B: DecoderBackend> Run<'a, B> {
    pub(super) fn open(
        request: RunRequest,
        data: &'a TrainingData,
        device: &B::Device,
        facts: &DeviceFacts,
    ) -> Result<Self> {
        let RunRequest { config, out, init_from, resume, max_hours, profile, group, overlap } = request;
        let allowance = Allowance::new(max_hours);
        // A run that goes on has its own weights.
        let (init_from, left_aside) = if goes_on(&out, resume) { (None, init_from) } else { (init_from, None) };
        // One that is asked to go on and has no checkpoint yet begins as it began.
        let begins_again = resume == Resume::Always && !goes_on(&out, resume);
        let init_from = if begins_again { every(&*group, origin(&out))? } else { init_from };
        let ready = DataCheck::start(data).and_then(|check| {
            let ready = prepare::<B>(&config, init_from.as_deref(), data, device, facts, (&group, overlap))?;
            let looks = (Selection::open(&config, data)?, Samples::open(&config, data)?);
            Ok((check, ready, TrainingBatches::new(&data.train, &config)?, looks))
        });
        let (data_check, (decoder, replica, given), mut batches, (selection, samples)) = every(&*group, ready)?;

        let mut lock = None;
        let found = lead(&*group, || {
            let (held, found) = claim(&out, resume)?;
            lock = Some(held);
            Ok(found)
        })?;
        session::tell_in(&out);
        let from_checkpoint = |dir: &Path| {
            let (state, loop_state) = save::load(dir, &decoder, &config, &replica)?;
            loop_state.check_same_data(&data.train, dir)?;
            Ok((state, loop_state))
        };
        let (state, loop_state) = match &found {
            Some(dir) => every(&*group, from_checkpoint(dir))?,
            None => {
                let random = || HostBuffers::init(&decoder.arch, &decoder.table, config.train.seed);
                let weights = given.unwrap_or_else(random);
                (TrainState::of_rank(&config, &decoder.table, weights, device, &replica), LoopState::new(&data.train))
            }
        };
        check_same_weights(&replica, state.step, || save::weights_checksum(&state.weights))?;
        batches.leave_out(&loop_state.left_out);
        if begins_again {
            let with = init_from
                .as_ref()
                .map_or("random weights".into(), |model| format!("the weights of {}", model.display()));
            say(&format!("{} has no checkpoint to go on from: it begins at step 1, with {with}", out.display()));
        }
        if found.is_some() && resume == Resume::Auto {
            say(&format!(
                "{} holds this run up to step {}: going on from there (--resume=never refuses that)",
                out.display(),
                state.step
            ));
        }
        if let Some(model) = left_aside {
            say(&format!(
                "--init-from {} was for the beginning: the run goes on with its own weights",
                model.display()
            ));
        }
        let mut log = None;
        lead(&*group, || {
            if found.is_none() {
                write_origin(&out, init_from.as_deref())?;
            }
            storage::replace_file(&out.join(CONFIG), config.to_toml()?.as_bytes())?;
            log = Some(RunLog::open(&out, state.step, &facts.description, group.size())?);
            // A kill between the save and the pointer's move would otherwise forget it.
            loop_state.best.map_or(Ok(()), |best| remark_best(&out, best))
        })?;
        let description = Description::new(&config, &decoder.arch, &decoder.table, data.tokenizer.clone());
        let retention = Retention {
            last: config.checkpoint.keep_last,
            every: config.checkpoint.keep_every,
            hours: config.checkpoint.keep_hours,
        };
        let saver = Saver::new(&out, description, Share::new(&replica, &decoder.table), retention, state.step);
        let profiled = profile.filter(|_| replica.is_first());
        let samples = samples.filter(|_| replica.is_first());
        let snapshots = HostMemory::of(&state);
        let run = Self {
            config,
            out,
            data,
            data_check,
            batches,
            peak_flops: facts.peak_flops,
            decoder,
            state,
            replica,
            loop_state,
            allowance,
            log,
            saver,
            snapshots,
            save_begun: Instant::now(),
            profiled: profiled.map(|steps| ProfiledSteps::new(WARM_UP, steps, &facts.description)),
            longest_stall: Duration::ZERO,
            handled: Handled::default(),
            selection,
            samples,
            memory_seen: None,
            step_bytes: Traffic::default(),
            exposed: Duration::ZERO,
            steps_made: 0,
            val_loss: None,
            skipped: 0,
            _lock: lock,
        };
        say(run.overview(facts, init_from.as_deref()).trim_end());
        Ok(run)
    }
}

/// Points `best` at the best step's checkpoint if that still exists.
fn remark_best(out: &Path, best: Best) -> Result<()> {
    if step_dir(out, best.step).is_dir() {
        checkpoint::mark_best(out, best.step)?;
    }
    Ok(())
}
