//! A whole run: set-up, the loop over steps, and what stands around a step: metrics, validation, checkpoints, signals.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use trainer_backends::DecoderBackend;

use super::input::{TrainingBatches, TrainingData};
use super::loss_scale::Overflow;
use super::prepare::{claim, prepare};
use super::save::{self, Best, LoopState};
use super::state::TrainState;
use super::step::{StepReport, replica_step};
use super::stop;
use crate::checkpoint::{self, RunLock, storage};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::eval::loss::{Share, loss_of_share};
use crate::model::{Decoder, HostBuffers, ParameterTable};
use crate::parallel::collective::Traffic;
use crate::parallel::session::{self, every, lead, together};
use crate::parallel::{Collective, Replica};
use crate::report::log::RunLog;
use crate::report::memory::peak_resident;
use crate::report::metrics::{StepRecord, ValidationRecord};
use crate::report::progress::TrainProgress;
use crate::report::voice::{self, say};

/// The file in a run directory that holds its resolved configuration.
pub const CONFIG: &str = "config.toml";

/// What a run is asked to do.
pub struct RunRequest {
    pub config: Config,
    pub out: PathBuf,
    /// A model to start from in place of random weights.
    pub init_from: Option<PathBuf>,
    /// Go on from the latest checkpoint, if there is one.
    pub resume: bool,
    /// The ranks that train together; `Alone` for one device.
    pub group: Arc<dyn Collective>,
}

/// The device, for the user and for MFU.
#[derive(Clone, Debug)]
pub struct DeviceFacts {
    /// "cpu, AMD EPYC": for the table at the start.
    pub description: String,
    /// Peak matmul FLOP/s in the run's precision, where it is known.
    pub peak_flops: Option<f64>,
    /// Largest range of a buffer that a kernel can bind, where there is a limit.
    pub max_binding_bytes: Option<u64>,
}

impl DeviceFacts {
    /// # Errors
    /// A model whose flat fp32 buffers are larger than what the device's kernels can bind.
    pub(super) fn check_bindings(&self, table: &ParameterTable) -> Result<()> {
        let largest = table.groups.iter().map(|group| 4 * group.len as u64).max().unwrap_or(0);
        match self.max_binding_bytes {
            Some(limit) if largest > limit => Err(Error::input(format!(
                "{} binds at most {} MiB at a time, and this model's largest parameter group takes {} MiB in fp32: choose \
                 a smaller vocabulary or hidden size, or another device (--backend cuda or cpu)",
                self.description,
                limit >> 20,
                largest.div_ceil(1 << 20)
            ))),
            _ => Ok(()),
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunSummary {
    pub step: u64,
    /// Whether all steps were made; false where a signal ended it.
    pub finished: bool,
    pub loss: f64,
    pub val_loss: Option<f64>,
    pub best: Option<Best>,
    pub skipped: u64,
    pub seconds: f64,
    pub tokens_per_s: f64,
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
}

/// Trains until the last step or a signal.
///
/// # Errors
/// Bad input before anything is written; a loss that is not finite, a full disk, and the like while running: the last
/// checkpoint is intact then.
pub fn run<B: DecoderBackend>(
    request: RunRequest,
    data: &TrainingData,
    device: &B::Device,
    facts: &DeviceFacts,
) -> Result<RunSummary> {
    stop::listen()?;
    let ranks = request.group.size() as f64;
    let facts = &DeviceFacts { peak_flops: facts.peak_flops.map(|peak| ranks * peak), ..facts.clone() };
    let mut run = Run::<B>::open(request, data, device, facts)?;
    let batches = TrainingBatches::new(&data.train, &run.config)?;
    let mut progress = TrainProgress::new(run.state.step, run.config.train.steps);
    if run.state.step >= run.config.train.steps {
        progress.say(&format!("all {} steps were made before: there is nothing left to train", run.config.train.steps));
    }
    let trained = run.train(&batches, &mut progress);
    run.log_end(trained.as_ref().err());
    let last = trained?;
    progress.finish();
    let finished = run.is_finished();
    if !finished {
        progress.say(&format!(
            "stopped after step {}; go on with: trainer train --out {} --resume",
            run.state.step,
            run.out.display()
        ));
    }
    let summary = run.summary(last, finished);
    // The lock is given back before the ranks part: the first to go may be followed by the next run at once.
    drop(run);
    session::finish();
    Ok(summary)
}

/// A run in progress.
pub(super) struct Run<'a, B: DecoderBackend> {
    pub(super) config: Config,
    pub(super) out: PathBuf,
    pub(super) data: &'a TrainingData,
    /// Of all ranks together.
    peak_flops: Option<f64>,
    pub(super) decoder: Decoder<B>,
    pub(super) state: TrainState<B>,
    pub(super) replica: Replica,
    loop_state: LoopState,
    /// The first rank's.
    log: Option<RunLog>,
    /// Of this process's steps.
    step_bytes: Traffic,
    steps_made: u64,
    /// The step of the newest checkpoint; 0 before the first one.
    saved: u64,
    val_loss: Option<f64>,
    skipped: u64,
    /// Held by the first rank for as long as the run is open.
    _lock: Option<RunLock>,
}

impl<'a, B: DecoderBackend> Run<'a, B> {
    fn open(request: RunRequest, data: &'a TrainingData, device: &B::Device, facts: &DeviceFacts) -> Result<Self> {
        let RunRequest { config, out, init_from, resume, group } = request;
        let ready = prepare::<B>(&config, init_from.as_deref(), data, device, facts, &group);
        let (decoder, replica, given) = every(&*group, ready)?;

        let mut lock = None;
        let found = lead(&*group, || {
            let (held, found) = claim(&out, resume)?;
            lock = Some(held);
            Ok(found)
        })?;
        session::tell_in(&out);
        let from_checkpoint = |dir: &Path| {
            let (state, loop_state) = save::load(dir, &decoder, &config, &replica)?;
            check_same_data(data, &loop_state, dir)?;
            Ok((state, loop_state))
        };
        let (state, loop_state) = match &found {
            Some(dir) => every(&*group, from_checkpoint(dir))?,
            None => {
                let random = || HostBuffers::init(&decoder.arch, &decoder.table, config.train.seed);
                let weights = given.unwrap_or_else(random);
                (TrainState::of_rank(&config, &decoder.table, weights, device, &replica), LoopState::new(data))
            }
        };
        check_same_weights(&replica, &state)?;
        let mut log = None;
        lead(&*group, || {
            storage::replace_file(&out.join(CONFIG), config.to_toml()?.as_bytes())?;
            log = Some(RunLog::open(&out, state.step, &facts.description, group.size())?);
            // A kill between the save and the pointer's move would otherwise forget it.
            loop_state.best.map_or(Ok(()), |best| remark_best(&out, best))
        })?;
        let saved = state.step;
        let run = Self {
            config,
            out,
            data,
            peak_flops: facts.peak_flops,
            decoder,
            state,
            replica,
            loop_state,
            log,
            step_bytes: Traffic::default(),
            steps_made: 0,
            saved,
            val_loss: None,
            skipped: 0,
            _lock: lock,
        };
        say(run.overview(facts, init_from.as_deref()).trim_end());
        Ok(run)
    }

    /// Makes the steps that are left, or those until a signal, and saves. Returns the last one's record.
    fn train(&mut self, batches: &TrainingBatches, progress: &mut TrainProgress) -> Result<Option<StepRecord>> {
        let mut last = None;
        while !self.is_finished() && !self.replica.stopping() {
            let started = Instant::now();
            let before = self.replica.group.traffic();
            let report = replica_step(&self.decoder, &mut self.state, &self.config, batches, &self.replica)?;
            let record = self.record(&report, started.elapsed().as_secs_f64(), before)?;
            progress.step(&record);
            self.tell_overflow(&report, progress);
            last = Some(record);
            self.validate_and_save(progress)?;
        }
        if self.saved != self.state.step {
            self.save()?;
        }
        Ok(last)
    }

    fn is_finished(&self) -> bool {
        self.state.step >= self.config.train.steps
    }

    /// Writes down how the session ended, and what memory it took.
    fn log_end(&self, error: Option<&Error>) {
        if let Some(log) = &self.log {
            let ended = error.map_or(Ok(self.is_finished()), Err);
            let peak = || B::memory(&self.decoder.device).map(|memory| memory.reserved).or_else(peak_resident);
            // A device that has failed is asked nothing more.
            let peak = error.is_none().then(peak).flatten();
            log.end(self.state.step, ended, peak);
        }
    }

    /// Counts a step, and writes it to the metrics.
    fn record(&mut self, report: &StepReport, seconds: f64, before: Traffic) -> Result<StepRecord> {
        let spent = self.replica.group.traffic() - before;
        self.step_bytes = self.step_bytes + spent;
        self.steps_made += 1;
        let tokens = self.config.tokens_per_step();
        self.loop_state.tokens += tokens;
        self.loop_state.seconds += seconds;
        self.skipped += u64::from(report.overflow.is_some());
        let tokens_per_s = tokens as f64 / seconds;
        let flops = self.decoder.arch.flops_per_token(self.config.model.seq_len) * tokens_per_s;
        let record = StepRecord {
            step: self.state.step,
            loss: report.loss,
            lr: report.lr,
            grad_norm: report.grad_norm,
            loss_scale: report.loss_scale,
            skipped: report.overflow.is_some(),
            tokens: self.loop_state.tokens,
            tokens_per_s,
            mfu: self.peak_flops.map(|peak| flops / peak),
            seconds: self.loop_state.seconds,
            communication: (!self.replica.is_alone()).then(|| spent.time.as_secs_f64() / seconds),
        };
        self.log.as_mut().map_or(Ok(()), |log| log.step(record))?;
        Ok(record)
    }

    fn tell_overflow(&self, report: &StepReport, progress: &TrainProgress) {
        let scale = self.state.loss_scale.map_or(1.0, |scale| scale.scale);
        match report.overflow {
            Some(Overflow::Forgiven) => progress.say(&format!(
                "step {}: gradients overflowed fp16, so this step's update was skipped; the loss scale stays at {scale}",
                self.state.step
            )),
            Some(Overflow::Halved) => progress.say(&format!(
                "step {}: gradients overflowed fp16, so this step's update was skipped; the loss scale is now {scale}",
                self.state.step
            )),
            Some(Overflow::AtFloor) | None => {}
        }
    }

    /// Validates and saves where the configuration says so; a new best is always saved.
    fn validate_and_save(&mut self, progress: &TrainProgress) -> Result<()> {
        let (step, steps) = (self.state.step, self.config.train.steps);
        let due = |every: u64| every > 0 && step.is_multiple_of(every);
        let mut new_best = false;
        if let Some(val) = &self.data.val
            && self.config.validation.every > 0
            && (due(self.config.validation.every) || step == steps)
        {
            let batch = (self.config.train.micro_batch, self.config.model.seq_len);
            let batches = self.config.validation.batches;
            let share = Share { index: self.replica.group.rank(), of: self.replica.group.size() };
            let loss = loss_of_share(&self.decoder, &self.state.weights, val, batch, batches, share, |_, _| {});
            let (sum, tokens) = every(&*self.replica.group, loss)?;
            let mut sums = [sum, tokens as f64];
            self.replica.group.sums(&mut sums);
            let val_loss = sums[0] / sums[1];
            let record = ValidationRecord { step, val_loss };
            self.log.as_mut().map_or(Ok(()), |log| log.validation(record))?;
            self.val_loss = Some(val_loss);
            new_best = self.loop_state.best.is_none_or(|best| val_loss < best.val_loss);
            if new_best {
                self.loop_state.best = Some(Best { step, val_loss });
            }
            progress
                .say(&format!("step {step}: validation loss {val_loss:.4}{}", if new_best { " (best)" } else { "" }));
        }
        if new_best || due(self.config.checkpoint.every) || step == steps {
            self.save()?;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        self.loop_state.step = self.state.step;
        self.loop_state.updates = self.state.updates;
        self.loop_state.loss_scale = self.state.loss_scale;
        let tokenizer = self.data.tokenizer.as_ref();
        check_same_weights(&self.replica, &self.state)?;
        save::save(&self.out, &self.decoder, &self.state, &self.config, &self.loop_state, tokenizer, &self.replica)?;
        self.saved = self.state.step;
        lead(&*self.replica.group, || {
            if let Some(best) = self.loop_state.best.filter(|best| best.step == self.state.step) {
                checkpoint::mark_best(&self.out, best.step)?;
            }
            checkpoint::retain(&self.out, self.config.checkpoint.keep_last, self.config.checkpoint.keep_every)?;
            Ok(())
        })
    }

    fn summary(&self, last: Option<StepRecord>, finished: bool) -> RunSummary {
        let seconds = self.loop_state.seconds;
        RunSummary {
            step: self.state.step,
            finished,
            loss: last.map_or(f64::NAN, |record| record.loss),
            val_loss: self.val_loss,
            best: self.loop_state.best,
            skipped: self.skipped,
            seconds,
            tokens_per_s: if seconds > 0.0 { self.loop_state.tokens as f64 / seconds } else { 0.0 },
            communication: (!self.replica.is_alone()).then(|| Communication {
                ranks: self.replica.group.size(),
                zero: self.replica.zero,
                steps: self.steps_made,
                parameters: self.decoder.table.groups.iter().map(|group| group.len as u64).sum(),
                step_bytes: self.step_bytes,
            }),
        }
    }
}

impl LoopState {
    fn new(data: &TrainingData) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            step: 0,
            updates: 0,
            loss_scale: None,
            tokens: 0,
            seconds: 0.0,
            best: None,
            data: format!("{:016x}", data.train.fingerprint()),
        }
    }
}

/// Every rank's weights are the same bits; each rank's log has their checksum.
///
/// # Errors
/// They are not: devices or builds of different kinds, or a fault.
fn check_same_weights<B: DecoderBackend>(replica: &Replica, state: &TrainState<B>) -> Result<()> {
    if replica.is_alone() {
        return Ok(());
    }
    let mut crc = crc32fast::Hasher::new();
    state.weights.iter().for_each(|group| crc.update(group.clone().into_data().as_bytes()));
    let crc = crc.finalize();
    voice::log(&format!("step {}: weights {crc:08x}", state.step));
    let all = together(&*replica.group, Ok(crc))?;
    match all.iter().position(|(_, other)| *other != all[0].1) {
        None => Ok(()),
        Some(rank) => Err(Error::failed(format!(
            "after step {} the weights of rank {rank} on {} are not those of rank 0: start all ranks with the same build on \
             the same kind of device, from the last checkpoint (--resume)",
            state.step, all[rank].0
        ))),
    }
}

fn check_same_data(data: &TrainingData, loop_state: &LoopState, checkpoint: &Path) -> Result<()> {
    let found = format!("{:016x}", data.train.fingerprint());
    if found == loop_state.data {
        return Ok(());
    }
    Err(Error::file(
        checkpoint,
        format!(
            "was trained on other data (fingerprint {} there, {found} here): resume with the data that the run started \
             with, or start a new run from its weights with --init-from",
            loop_state.data
        ),
    ))
}

/// Points `best` at the best step's checkpoint if that still exists.
fn remark_best(out: &Path, best: Best) -> Result<()> {
    if checkpoint::layout::step_dir(out, best.step).is_dir() {
        checkpoint::mark_best(out, best.step)?;
    }
    Ok(())
}

/// What an interrupted or finished run's directory says it is.
///
/// # Errors
/// No configuration there.
pub fn stored_config(out: &Path, sets: &[String]) -> Result<Config> {
    let path = out.join(CONFIG);
    if !path.is_file() {
        return Err(Error::file(
            out,
            format!("holds no run to resume ({CONFIG} is missing): give --preset or --config to start one"),
        ));
    }
    Config::resolve(None, Some(&path), sets)
}
