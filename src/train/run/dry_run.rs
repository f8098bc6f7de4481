//! Everything that a run does before it trains, one step of it, and nothing written.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use trainer_backends::DecoderBackend;

use super::prepare::prepare;
use super::selection::Selection;
use super::{DeviceFacts, RunRequest, goes_on};
use crate::checkpoint::find_latest;
use crate::config::{Config, Precision};
use crate::error::{Error, Result};
use crate::eval::loss::{Share, loss_of_share};
use crate::model::memory::{Memory, Plan};
use crate::model::{Architecture, HostBuffers};
use crate::report::progress::duration;
use crate::report::table::Table;
use crate::train::data_check::DataCheck;
use crate::train::input::{TrainingBatches, TrainingData};
use crate::train::save;
use crate::train::state::TrainState;
use crate::train::step::{Watch, replica_step};

/// What a run would do, and what its first step did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DryRun {
    /// Steps made already: the step of the checkpoint that it would go on from, or 0.
    pub start_step: u64,
    pub steps: u64,
    /// Of the first step, mean over its tokens, nats.
    pub loss: f64,
    pub grad_norm: f64,
    /// Of the same batch after the step's update.
    pub second_loss: f64,
    /// Of the validation part's first micro-batch.
    pub val_loss: Option<f64>,
    /// The first step compiles kernels; the second one is what others take.
    pub first_step_s: f64,
    pub step_s: f64,
    pub tokens_per_s: f64,
    /// What the steps that are left take at that rate.
    pub training_s: f64,
    /// An estimate of the device's memory, and what there is, where that is known.
    pub memory_bytes: u64,
    pub device_memory_bytes: Option<u64>,
    /// Of one checkpoint; of the most that stand beside each other; and what is free where they would go, where known.
    pub checkpoint_bytes: u64,
    pub disk_bytes: u64,
    pub free_bytes: Option<u64>,
}

/// Tries a run out: configuration, data (every checksum), tokenizer, checkpoint, memory and disk; compiles the kernels, makes
/// two steps and a validation of one micro-batch, and writes nothing.
///
/// # Errors
/// What the run itself would end with before its first checkpoint, and a disk that will not hold its checkpoints.
pub fn dry_run<B: DecoderBackend>(
    request: RunRequest,
    data: &TrainingData,
    device: &B::Device,
    facts: &DeviceFacts,
) -> Result<DryRun> {
    let RunRequest { config, out, init_from, resume, group, overlap, .. } = request;
    DataCheck::start(data)?.settle()?;
    Selection::open(&config, data)?;
    let found = if goes_on(&out, resume) { find_latest(&out)? } else { None };
    let init_from = init_from.filter(|_| found.is_none());
    let (decoder, replica, given) =
        prepare::<B>(&config, init_from.as_deref(), data, device, facts, (&group, overlap))?;
    let mut batches = TrainingBatches::new(&data.train, &config)?;
    let mut state = match &found {
        Some(found) => {
            let (state, loop_state) = save::load(&found.dir, &decoder, &config, &replica)?;
            loop_state.check_same_data(&data.train, &found.dir)?;
            batches.leave_out(&loop_state.left_out);
            state
        }
        None => {
            let weights = given.unwrap_or_else(|| HostBuffers::init(&decoder.arch, &decoder.table, config.train.seed));
            TrainState::of_rank(&config, &decoder.table, weights, device, &replica)
        }
    };
    let start_step = state.step;
    let disk = Disk::new(&config, &decoder.arch, &out);
    disk.check(&out)?;

    let mut step = || -> Result<(f64, f64, f64)> {
        let started = Instant::now();
        let report = replica_step(&decoder, &mut state, &config, &batches, &replica, Watch::default())?;
        // The same batch once more: that its loss falls says more than a loss of other text.
        state.step = start_step;
        Ok((report.loss, report.grad_norm, started.elapsed().as_secs_f64()))
    };
    let (loss, grad_norm, first_step_s) = step()?;
    let (second_loss, _, step_s) = step()?;
    let val_loss = match &data.val {
        Some(val) if config.validation.every > 0 => {
            let batch = (config.train.micro_batch, config.model.seq_len);
            let (sum, tokens) =
                loss_of_share(&decoder, &state.weights, val, batch, 1, Share { index: 0, of: 1 }, |_, _| {})?;
            Some(sum / tokens as f64)
        }
        _ => None,
    };
    let left = config.train.steps.saturating_sub(start_step);
    Ok(DryRun {
        start_step,
        steps: config.train.steps,
        loss,
        grad_norm,
        second_loss,
        val_loss,
        first_step_s,
        step_s,
        tokens_per_s: config.tokens_per_step() as f64 / step_s,
        training_s: left as f64 * step_s,
        memory_bytes: Memory::estimate(&decoder.arch, &Plan::new(&config)).total(),
        device_memory_bytes: facts.memory_bytes,
        checkpoint_bytes: disk.checkpoint,
        disk_bytes: disk.most,
        free_bytes: disk.free,
    })
}

/// What checkpoints take.
struct Disk {
    checkpoint: u64,
    /// Those that are kept, the best, and the one being written.
    most: u64,
    free: Option<u64>,
}

impl Disk {
    fn new(config: &Config, arch: &Architecture, out: &Path) -> Self {
        let parameters = arch.parameters();
        let optimizer = if config.train.precision == Precision::Fp32 { 8 } else { 12 };
        let checkpoint = parameters * (config.train.precision.bytes() + optimizer);
        let (c, steps) = (&config.checkpoint, config.train.steps);
        let made = steps.checked_div(c.every).unwrap_or(0) + 1;
        let multiples = steps.checked_div(c.keep_every).unwrap_or(0);
        let kept = (c.keep_last as u64 + multiples + u64::from(config.validation.every > 0)).min(made);
        Self { checkpoint, most: checkpoint.saturating_mul(kept + 1), free: free_space(out) }
    }

    fn check(&self, out: &Path) -> Result<()> {
        match self.free {
            Some(free) if free < self.most => Err(Error::input(format!(
                "{} has {} free, and the run's checkpoints take up to {} there (one is {}): free some space, choose another \
                 --out, or keep fewer (checkpoint.keep_last, checkpoint.keep_every)",
                out.display(),
                gib(free),
                gib(self.most),
                gib(self.checkpoint)
            ))),
            _ => Ok(()),
        }
    }
}

/// Bytes free on the disk that holds `path`, or would.
fn free_space(path: &Path) -> Option<u64> {
    let existing = std::path::absolute(path).ok()?.ancestors().find(|dir| dir.exists())?.canonicalize().ok()?;
    #[cfg(unix)]
    {
        let found = nix::sys::statvfs::statvfs(&existing).ok()?;
        // Their types differ from system to system.
        #[allow(clippy::unnecessary_cast)]
        Some((found.blocks_available() as u64).saturating_mul(found.fragment_size() as u64))
    }
    #[cfg(not(unix))]
    {
        let disks = sysinfo::Disks::new_with_refreshed_list();
        let holds = |disk: &&sysinfo::Disk| existing.starts_with(disk.mount_point());
        let disk = disks.iter().filter(holds).max_by_key(|disk| disk.mount_point().components().count())?;
        Some(disk.available_space())
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / (1u64 << 30) as f64)
}

impl std::fmt::Display for DryRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = |free: Option<u64>| free.map_or_else(String::new, |bytes| format!(" of {}", gib(bytes)));
        let mut table = Table::pairs();
        let begins = match self.start_step {
            0 => format!("begin at step 1 of {}", self.steps),
            step => format!("go on from the checkpoint of step {step}, of {}", self.steps),
        };
        table
            .row(["it would", begins.as_str()])
            .row([
                "loss",
                &format!("{:.4}, then {:.4} on the same batch after one update", self.loss, self.second_loss),
            ])
            .row(["gradient norm", &format!("{:.3}", self.grad_norm)]);
        if let Some(val_loss) = self.val_loss {
            table.row(["validation", &format!("{val_loss:.4} on one micro-batch")]);
        }
        let time = format!(
            "{:.2} s a step, {:.0} tokens/s (the first step, with its compilation, {:.2} s)",
            self.step_s, self.tokens_per_s, self.first_step_s
        );
        table
            .row(["speed", &time])
            .row(["training", &format!("{} for the steps that are left", duration(self.training_s))])
            .row(["memory", &format!("about {}{}", gib(self.memory_bytes), of(self.device_memory_bytes))])
            .row([
                "disk",
                &format!(
                    "up to {}{} free, {} a checkpoint",
                    gib(self.disk_bytes),
                    of(self.free_bytes),
                    gib(self.checkpoint_bytes)
                ),
            ])
            .row(["written", "nothing"]);
        write!(f, "{table}")
    }
}
