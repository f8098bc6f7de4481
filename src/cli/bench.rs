//! `trainer bench`: whole training steps on random tokens, timed.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use trainer_backends::DecoderBackend;
use trainer_backends::discovery::Choice;
use trainer_backends::dropout::mix64;

use super::args::{BenchArgs, Global};
use super::backend::{Task, check_precision, facts, with_backend};
use super::{print, print_json};
use crate::checkpoint::storage::parent;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::memory::{Memory, Plan};
use crate::model::work::{StepFloor, StepShape};
use crate::model::{Decoder, HostBuffers, MicroBatchDropout};
use crate::profile::{ByPart, ProfiledSteps};
use crate::report::memory::peak_resident;
use crate::report::peak::peak_flops;
use crate::report::table::{Align, Table};
use crate::train::state::TrainState;
use crate::train::step::{Batches, training_step};

/// Steps of `--by-part`, behind the timed ones.
const PROFILED_STEPS: u64 = 3;

/// One measurement. Field names are those of benches/peers/pytorch_phi.py.
#[derive(Serialize)]
struct Report {
    backend: String,
    device: String,
    params: u64,
    dtype: String,
    micro_batch: usize,
    accumulate: usize,
    seq: usize,
    dropout: f64,
    steps: usize,
    step_ms_median: f64,
    step_ms_min: f64,
    step_ms_max: f64,
    tokens_per_s: f64,
    /// TFLOP/s of the model's FLOPs, full-attention convention.
    model_tflops: f64,
    mfu: Option<f64>,
    /// Peak memory: of the process on the CPU, else what the allocator took from the driver.
    peak_gib: Option<f64>,
    /// What `trainer estimate` says of that, without what allocators round up.
    estimated_gib: f64,
    /// What the forward pass of a micro-batch keeps for the backward pass, as the allocator counts it.
    activation_gib: Option<f64>,
    estimated_activation_gib: f64,
    /// Loss of the last step: of random tokens, so near ln(vocabulary).
    loss: f64,
    #[serde(flatten)]
    by_part: Option<ByPart>,
    /// The least time of the step by part, where the device's ceilings are known (docs/time-model.md).
    #[serde(skip_serializing_if = "Option::is_none")]
    floor: Option<StepFloor>,
}

impl Report {
    fn line(&self) -> String {
        let mfu = self.mfu.map(|mfu| format!(" ({:.1}% MFU)", 100.0 * mfu)).unwrap_or_default();
        let peak = self.peak_gib.map(|gib| format!("; peak memory {gib:.2} GiB")).unwrap_or_default();
        format!(
            "{} {}: {:.1} tokens/s; step {:.2} ms median ({:.2} to {:.2}); {:.3} model TFLOP/s{mfu}{peak}; {} parameters",
            self.backend,
            self.dtype,
            self.tokens_per_s,
            self.step_ms_median,
            self.step_ms_min,
            self.step_ms_max,
            self.model_tflops,
            self.params
        )
    }
}

pub fn run(args: &BenchArgs, global: &Global) -> Result<()> {
    let config = configuration(args)?;
    args.trace.as_deref().map_or(Ok(()), check_folder)?;
    let report = with_backend(global, Bench { args, config })?;
    if args.json {
        return print_json(&report);
    }
    print(&format!("{}\n", report.line()))?;
    let Some(by_part) = &report.by_part else { return Ok(()) };
    print(&format!("\n{by_part}"))?;
    report.floor.as_ref().map_or(Ok(()), |floor| print(&format!("\n{}", beside_floor(by_part, floor))))
}

/// Each part's time beside the least that it takes.
fn beside_floor(by_part: &ByPart, floor: &StepFloor) -> String {
    let columns = ["ms", "floor ms", "of the floor"].map(|name| (name, Align::Right));
    let mut table = Table::new([("part", Align::Left)].into_iter().chain(columns));
    let times = |ms: f64, floor: f64| [format!("{ms:.2}"), format!("{floor:.2}"), format!("{:.2}x", ms / floor)];
    for part in &floor.parts {
        let found = by_part.parts.iter().find(|found| found.part == part.part);
        let cells = found.map(|found| times(found.ms, part.floor_ms)).into_iter().flatten();
        table.row([part.part.clone()].into_iter().chain(cells));
    }
    table
        .rule()
        .row(["step, operations one at a time".to_owned()].into_iter().chain(times(by_part.step_ms, floor.step_ms)));
    let model = &floor.ceilings;
    format!(
        "{table}ceilings: {:.3} TFLOP/s of products, {:.3} of attention's, {:.1} GB/s; docs/time-model.md\n",
        model.matmul / 1e12,
        model.attention / 1e12,
        model.memory / 1e9
    )
}

/// A trace that cannot be written is found out before the steps are made.
fn check_folder(trace: &Path) -> Result<()> {
    let folder = parent(trace);
    if folder.is_dir() {
        return Ok(());
    }
    Err(Error::file(folder, format!("is no folder to write {} to: create it or choose another", trace.display())))
}

fn configuration(args: &BenchArgs) -> Result<Config> {
    let mut sets = Vec::new();
    if args.preset.is_none() {
        sets.extend([
            format!("model.hidden={}", args.hidden),
            format!("model.layers={}", args.layers),
            format!("model.heads={}", args.heads),
            format!("model.vocab={}", args.vocab),
            format!("model.seq_len={}", args.seq),
        ]);
    }
    sets.extend([
        format!("train.batch={}", args.micro_batch * args.accumulate),
        format!("train.micro_batch={}", args.micro_batch),
        format!("train.precision={}", args.precision),
        format!("train.recompute={}", args.recompute.name()),
        // Enough that the schedule never reaches zero.
        format!("train.steps={}", 1_000 + args.warmup + args.steps),
        format!("model.dropout={:?}", args.dropout),
        "optimizer.lr=1e-4".into(),
    ]);
    Config::resolve(Some(args.preset.as_deref().unwrap_or("demo")), None, &sets)
}

/// The same random tokens whatever the position, as the PyTorch peer has them.
struct RandomTokens {
    vocab: u64,
}

impl Batches for RandomTokens {
    fn fill(&self, _: u64, inputs: &mut [i32], targets: &mut [i32]) -> Result<()> {
        let token = |i: usize| (mix64(i as u64) % self.vocab) as i32;
        inputs.iter_mut().enumerate().for_each(|(i, input)| *input = token(i));
        targets.iter_mut().enumerate().for_each(|(i, target)| *target = token(i + 1));
        Ok(())
    }
}

struct Bench<'a> {
    args: &'a BenchArgs,
    config: Config,
}

impl Task for Bench<'_> {
    type Output = Report;

    fn run<B: DecoderBackend>(self, device: &B::Device, choice: &Choice) -> Result<Report> {
        let Self { args, config } = self;
        check_precision::<B>(device, args.precision)?;
        let decoder = Decoder::<B>::new(config.architecture(), config.model.seq_len, device, config.train.recompute);
        let facts = facts(choice, args.precision);
        facts.check_bindings(&decoder.table)?;
        facts.check_memory(&config, 1)?;
        let weights = HostBuffers::init(&decoder.arch, &decoder.table, 0);
        let mut state = TrainState::new(&config, &decoder.table, weights, device);
        let batches = RandomTokens { vocab: config.model.vocab as u64 };
        let mut times = Vec::with_capacity(args.steps);
        let mut loss = f64::NAN;
        for step in 0..args.warmup + args.steps {
            let started = Instant::now();
            // Reads loss and norm back, so the step is over when it returns but for the update, which the sync waits for.
            loss = training_step(&decoder, &mut state, &config, &batches)?.loss;
            B::sync(device).map_err(|error| Error::failed(format!("the device failed: {error}")))?;
            if step >= args.warmup {
                times.push(started.elapsed().as_secs_f64());
            }
        }
        // Before the activations are measured, which takes memory of its own.
        let peak = B::memory(device).map(|memory| gib(memory.reserved)).or_else(|| peak_resident_gib(choice));
        let mut inputs = vec![0; args.micro_batch * config.model.seq_len];
        batches.fill(0, &mut inputs, &mut [])?;
        let dropout = MicroBatchDropout::default();
        let activations = decoder.activation_bytes(&state.weights, &inputs, args.micro_batch, dropout);
        let by_part = if args.by_part {
            let mut steps = ProfiledSteps::new(0, PROFILED_STEPS, &facts.description);
            for _ in 0..PROFILED_STEPS {
                steps.next::<B>(device, state.step + 1)?;
                training_step(&decoder, &mut state, &config, &batches)?;
            }
            let profile = steps.finish()?.ok_or_else(|| Error::failed("no step was profiled"))?;
            args.trace.as_deref().map_or(Ok(()), |trace| profile.write(trace))?;
            Some(profile.by_part())
        } else {
            None
        };
        let ceilings = by_part.as_ref().and_then(|_| args.ceilings.of_device(&choice.device, args.precision));
        let floor = ceilings.map(|ceilings| StepFloor::new(&decoder.arch, &StepShape::new(&config), ceilings));
        let estimate = Memory::estimate(&decoder.arch, &Plan::new(&config));
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        let tokens_per_s = config.tokens_per_step() as f64 / median;
        let flops = decoder.arch.flops_per_token(config.model.seq_len) * tokens_per_s;
        Ok(Report {
            backend: choice.backend.to_string(),
            device: choice.device.name.clone(),
            params: decoder.arch.parameters(),
            dtype: args.precision.to_string(),
            micro_batch: args.micro_batch,
            accumulate: args.accumulate,
            seq: config.model.seq_len,
            dropout: args.dropout,
            steps: args.steps,
            step_ms_median: median * 1e3,
            step_ms_min: times[0] * 1e3,
            step_ms_max: times[times.len() - 1] * 1e3,
            tokens_per_s,
            model_tflops: flops / 1e12,
            mfu: peak_flops(&choice.device.name, args.precision).map(|peak| flops / peak),
            peak_gib: peak,
            estimated_gib: gib(estimate.total()),
            activation_gib: activations.map(gib),
            estimated_activation_gib: gib(estimate.activations),
            loss,
            by_part,
            floor,
        })
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

/// The process's peak resident memory, where the model lives in it.
fn peak_resident_gib(choice: &Choice) -> Option<f64> {
    (choice.backend == trainer_backends::discovery::Backend::Cpu).then(peak_resident).flatten().map(gib)
}
