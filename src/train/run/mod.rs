//! A whole run: set-up, the loop over steps, and what stands around a step: metrics, validation, checkpoints, signals.
//!
//! ```text
//! open      from what is asked for to a run that is ready for its next step
//! prepare   what can be wrong there
//! overview  the table at the start
//! saves     validation and checkpoints
//! samples   what the model writes as it learns
//! selection the best checkpoint by what the model solves
//! spikes    losses that leap
//! profile   where the time of a few steps goes
//! dry_run   all of it but the training
//! summary   how it ended
//! ```

mod dry_run;
mod open;
mod overview;
mod prepare;
mod profile;
mod samples;
mod saves;
mod selection;
mod spikes;
mod summary;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use trainer_backends::DecoderBackend;

use self::samples::Samples;
use self::selection::Selection;
use self::spikes::Spiked;
use super::data_check::DataCheck;
use super::input::{TrainingBatches, TrainingData};
use super::loss_scale::Overflow;
use super::save::{HostMemory, LoopState, Saver};
use super::spikes::Handled;
use super::state::TrainState;
use super::step::{StepReport, Watch, replica_step};
use super::stop::{self, Allowance, Stop};
use crate::breakdown;
use crate::checkpoint::RunLock;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::Decoder;
use crate::parallel::collective::Traffic;
use crate::parallel::session;
use crate::parallel::signs::{Sign, Signs};
use crate::parallel::{Collective, Replica};
use crate::profile::{ProfiledSteps, host};
use crate::report::log::RunLog;
use crate::report::memory::{peak_resident, resident};
use crate::report::metrics::StepRecord;
use crate::report::progress::TrainProgress;

pub use super::device::DeviceFacts;
pub use dry_run::{DryRun, dry_run};
pub use open::goes_on;
pub use summary::{Communication, RunSummary};

/// The file in a run directory that holds its resolved configuration.
pub const CONFIG: &str = "config.toml";

/// Whether a run goes on from what its directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Resume {
    /// Where it holds a checkpoint.
    Auto,
    /// It is expected to hold a run.
    Always,
    /// It must not hold one.
    Never,
    /// What it holds makes way (the demo's).
    #[value(skip)]
    Replace,
}

/// What a run is asked to do.
pub struct RunRequest {
    pub config: Config,
    pub out: PathBuf,
    /// A model to start from in place of random weights.
    pub init_from: Option<PathBuf>,
    pub resume: Resume,
    /// Hours after which the run saves and ends; `None`: as many as it takes.
    pub max_hours: Option<f64>,
    /// How many steps are profiled.
    pub profile: Option<u64>,
    /// The ranks that train together; `Alone` for one device.
    pub group: Arc<dyn Collective>,
    /// Exchanges between ranks are made while the device works.
    pub overlap: bool,
}

/// Trains until the last step, a signal, or the end of its time.
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
    let mut progress = TrainProgress::new(run.state.step, run.config.train.steps, run.state.loss_scale.is_some());
    if run.state.step >= run.config.train.steps {
        progress.say(&format!("all {} steps were made before: there is nothing left to train", run.config.train.steps));
    }
    let trained = run.train(&mut progress);
    if trained.is_err() && (run.replica.is_alone() || session::all_know()) {
        // The checkpoint that is being written is worth having.
        let settled = run.saver.settle(&run.replica);
        run.tell_saved(settled, &progress);
    }
    run.log_end(&trained);
    let (last, stopped) = trained?;
    progress.finish();
    if let Some(stop) = stopped {
        let why = match stop {
            Stop::Interrupted => "stopped",
            Stop::Preempted => "the machine is about to be taken away: stopped",
            Stop::TimeUp => "--max-hours are over: stopped",
        };
        progress.say(&format!(
            "{why} after step {}; go on with: trainer train --out {} --resume",
            run.state.step,
            run.out.display()
        ));
    }
    let summary = run.summary(last, stopped);
    // The lock is given back before the ranks part: the first to go may be followed by the next run at once.
    drop(run);
    session::finish();
    Ok(summary)
}

/// A run in progress.
struct Run<'a, B: DecoderBackend> {
    config: Config,
    out: PathBuf,
    data: &'a TrainingData,
    data_check: DataCheck,
    batches: TrainingBatches<'a>,
    /// Of all ranks together.
    peak_flops: Option<f64>,
    decoder: Decoder<B>,
    state: TrainState<B>,
    replica: Replica,
    loop_state: LoopState,
    allowance: Allowance,
    /// The first rank's.
    log: Option<RunLog>,
    saver: Saver,
    snapshots: HostMemory,
    /// When the last checkpoint was begun or, before that, the run.
    save_begun: Instant,
    /// The longest that training has waited for a checkpoint.
    longest_stall: Duration,
    handled: Handled,
    /// The first rank's, where problems decide on the best checkpoint.
    selection: Option<Selection>,
    /// The first rank's.
    samples: Option<Samples>,
    /// When the memory was last looked at.
    memory_seen: Option<Instant>,
    /// The first rank's, until they are made.
    profiled: Option<ProfiledSteps>,
    /// Of this process's steps.
    step_bytes: Traffic,
    /// The time in exchanges for which those have waited.
    exposed: Duration,
    steps_made: u64,
    val_loss: Option<f64>,
    skipped: u64,
    /// Held by the first rank for as long as the run is open.
    _lock: Option<RunLock>,
}

/// Asking the device waits for what is queued.
const MEMORY_EVERY: Duration = Duration::from_secs(1);

/// The last step's record, and why the run ended before the last step of all.
type Trained = (Option<StepRecord>, Option<Stop>);

impl<B: DecoderBackend> Run<'_, B> {
    /// Makes the steps that are left, or those until it is to stop, and saves.
    fn train(&mut self, progress: &mut TrainProgress) -> Result<Trained> {
        let mut last = None;
        let mut told = Signs::default();
        let mut stopped = None;
        while !self.is_finished() {
            let shown = self.signs();
            if self.replica.is_alone() {
                told = shown;
            }
            stopped = Stop::of(&told);
            if stopped.is_some() {
                break;
            }
            self.profile_next(progress)?;
            let started = Instant::now();
            let before = (self.replica.group.traffic(), self.replica.courier.exposed());
            let report = self.step(shown)?;
            told = report.signs;
            let spent = self.replica.group.traffic() - before.0;
            let exposed = self.replica.courier.exposed() - before.1;
            match self.judge(&report, progress)? {
                Spiked::GoneBack => continue,
                Spiked::No | Spiked::Stayed => {}
            }
            let metrics = host("metrics");
            let record = self.record(&report, started.elapsed().as_secs_f64(), (spent, exposed));
            progress.step(&record);
            self.tell_overflow(&report, progress);
            drop(metrics);
            last = Some(record);
            self.data_check.poll()?;
            self.poll_saver(&told, progress);
            self.validate_and_save(told.any(Sign::SaveDue), progress)?;
        }
        self.finish_profile(progress)?;
        self.finish_saving(progress)?;
        Ok((last, stopped))
    }

    fn step(&mut self, signs: Signs) -> Result<StepReport> {
        let watch = Watch { ceilings: self.ceilings(), signs };
        let (decoder, state, config, batches) = (&self.decoder, &mut self.state, &self.config, &self.batches);
        let report = replica_step(decoder, state, config, batches, &self.replica, watch);
        breakdown::check()?;
        report
    }

    /// What this rank has to tell the others.
    fn signs(&self) -> Signs {
        let first = self.replica.is_first();
        let every = Duration::try_from_secs_f64(60.0 * self.config.checkpoint.every_minutes).unwrap_or_default();
        let save_due = first && !every.is_zero() && self.save_begun.elapsed() >= every;
        let signs = stop::signs(&self.allowance, first).chain(self.saver.sign());
        Signs::of(signs.chain(save_due.then_some(Sign::SaveDue)))
    }

    fn is_finished(&self) -> bool {
        self.state.step >= self.config.train.steps
    }

    /// Writes down how the session ended, and what memory it took.
    fn log_end(&self, trained: &Result<Trained>) {
        if let Some(log) = &self.log {
            let ended = trained.as_ref().map(|_| self.is_finished());
            let peak = || B::memory(&self.decoder.device).map(|memory| memory.reserved).or_else(peak_resident);
            // A device that has failed is asked nothing more.
            let peak = ended.is_ok().then(peak).flatten();
            log.end(self.state.step, ended, peak);
        }
    }

    /// Counts a step, and writes it to the metrics.
    fn record(&mut self, report: &StepReport, seconds: f64, (spent, exposed): (Traffic, Duration)) -> StepRecord {
        self.step_bytes = self.step_bytes + spent;
        self.exposed += exposed;
        let together = !self.replica.is_alone();
        self.steps_made += 1;
        let tokens = self.config.tokens_per_step();
        self.loop_state.tokens += tokens;
        self.loop_state.seconds += seconds;
        let skipped = report.overflow.is_some() || report.held_back.is_some();
        self.skipped += u64::from(skipped);
        let tokens_per_s = tokens as f64 / seconds;
        let flops = self.decoder.arch.flops_per_token(self.config.model.seq_len) * tokens_per_s;
        let record = StepRecord {
            step: self.state.step,
            loss: report.loss,
            lr: report.lr,
            grad_norm: report.grad_norm,
            loss_scale: report.loss_scale,
            skipped,
            tokens: self.loop_state.tokens,
            tokens_per_s,
            mfu: self.peak_flops.map(|peak| flops / peak),
            seconds: self.loop_state.seconds,
            memory: self.memory(),
            communication: together.then(|| spent.time.as_secs_f64() / seconds),
            exposed: together.then(|| share(exposed, spent.time)),
        };
        self.log.iter_mut().for_each(|log| log.step(record));
        record
    }

    /// What the device holds or, where it does not say, the process; once in a while.
    fn memory(&mut self) -> Option<u64> {
        if self.log.is_none() || self.memory_seen.is_some_and(|seen| seen.elapsed() < MEMORY_EVERY) {
            return None;
        }
        self.memory_seen = Some(Instant::now());
        B::memory(&self.decoder.device).map(|memory| memory.reserved).or_else(resident)
    }

    fn tell_overflow(&self, report: &StepReport, progress: &TrainProgress) {
        let scale = self.state.loss_scale.map_or(1.0, |scale| scale.scale);
        let what = if report.loss.is_finite() { "gradients" } else { "the loss" };
        let tell = |now: &str| {
            progress.say(&format!(
                "step {}: {what} overflowed fp16, so this step's update was skipped; the loss scale {now} {scale}",
                self.state.step
            ));
        };
        match report.overflow {
            Some(Overflow::Forgiven) => tell("stays at"),
            Some(Overflow::Halved) => tell("is now"),
            Some(Overflow::AtFloor) | None => {}
        }
    }

    fn summary(&self, last: Option<StepRecord>, stopped: Option<Stop>) -> RunSummary {
        let seconds = self.loop_state.seconds;
        RunSummary {
            step: self.state.step,
            finished: self.is_finished(),
            stopped,
            loss: last.map_or(f64::NAN, |record| record.loss),
            val_loss: self.val_loss,
            best: self.loop_state.best,
            skipped: self.skipped,
            seconds,
            tokens_per_s: if seconds > 0.0 { self.loop_state.tokens as f64 / seconds } else { 0.0 },
            longest_stall_s: self.longest_stall.as_secs_f64(),
            communication: (!self.replica.is_alone()).then(|| Communication {
                ranks: self.replica.group.size(),
                zero: self.replica.zero,
                steps: self.steps_made,
                parameters: self.decoder.table.groups.iter().map(|group| group.len as u64).sum(),
                step_bytes: self.step_bytes,
                exposed: share(self.exposed, self.step_bytes.time),
            }),
        }
    }
}

/// The part of a time in exchanges that was waited for: 1 where nothing was hidden.
fn share(exposed: Duration, all: Duration) -> f64 {
    (exposed.as_secs_f64() / all.as_secs_f64().max(f64::MIN_POSITIVE)).min(1.0)
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
