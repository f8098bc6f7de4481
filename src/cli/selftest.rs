//! `trainer selftest`: every operation of a device against the reference, then ten training steps against the CPU.

use std::time::{SystemTime, UNIX_EPOCH};

use burn_tensor::DType;
use serde::Serialize;
use trainer_backends::discovery::Choice;
use trainer_backends::dropout::mix64;
use trainer_backends::selftest::{self, Group};
use trainer_backends::{Cpu, DecoderBackend};

use super::args::{Global, SelftestArgs};
use super::backend::{Task, check_precision, with_backend};
use super::{print, print_json};
use crate::config::{Config, Precision, Recompute};
use crate::error::{Error, Result};
use crate::model::{Decoder, HostBuffers};
use crate::report::table::{Align, Table};
use crate::train::state::TrainState;
use crate::train::step::{Batches, training_step};

const STEPS: usize = 10;

/// The largest relative difference of a step's loss between two devices in fp32: sums in another order differ by 1e-6, and
/// ten AdamW steps enlarge it, most where a gradient is near zero and m / sqrt(v) decides on its sign.
const LOSS_TOLERANCE: f64 = 1e-3;

/// One comparison of an operation's result.
#[derive(Serialize)]
struct Row {
    operation: &'static str,
    dtype: &'static str,
    shape: String,
    /// Relative, in the L2 norm; `null` where a value is not finite.
    error: f64,
    tolerance: f64,
    passed: bool,
}

/// A loss of the parity run.
#[derive(Serialize)]
struct Step {
    step: usize,
    loss: f64,
    cpu_loss: f64,
    passed: bool,
}

#[derive(Serialize)]
struct Report {
    backend: String,
    device: String,
    seed: u64,
    dtypes: Vec<&'static str>,
    failed: usize,
    operations: Vec<Row>,
    parity: Vec<Step>,
}

/// # Errors
/// `Error::Failed` where a result is outside its tolerance; the report is printed all the same.
pub fn run(args: &SelftestArgs, global: &Global) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let seed = args.seed.unwrap_or(now);
    eprintln!("seed {seed}");
    let report = with_backend(global, Selftest { seed, only: &args.only, precisions: &args.dtype })?;
    if args.json {
        print_json(&report)?
    } else {
        print(&report.text())?
    }
    if report.failed == 0 {
        return Ok(());
    }
    Err(Error::failed(format!(
        "{} of {} comparisons are outside their tolerance on {} ({}); repeat them with --seed {seed}",
        report.failed,
        report.operations.len() + report.parity.len(),
        report.device,
        report.backend
    )))
}

struct Selftest<'a> {
    seed: u64,
    /// Empty: everything.
    only: &'a [Group],
    /// Empty: those that the device has.
    precisions: &'a [Precision],
}

impl Task for Selftest<'_> {
    type Output = Report;
    const JUDGES_KERNELS: bool = true;

    fn run<B: DecoderBackend>(self, device: &B::Device, choice: &Choice) -> Result<Report> {
        let Self { seed, only, precisions } = self;
        let groups = if only.is_empty() { &Group::ALL[..] } else { only };
        let asked: Result<Vec<DType>> = precisions.iter().map(|of| check_precision::<B>(device, *of)).collect();
        let all = [DType::F32, DType::F16, DType::BF16].into_iter().filter(|dtype| B::supports_dtype(device, *dtype));
        let dtypes = if precisions.is_empty() { all.collect() } else { asked? };
        let mut operations = Vec::new();
        for dtype in &dtypes {
            eprintln!("operations in {} ...", dtype.name());
            let cases = groups.iter().flat_map(|group| selftest::run::<B>(device, *group, *dtype, seed));
            operations.extend(cases.map(|case| Row {
                passed: case.passed(),
                operation: case.op,
                dtype: case.dtype.name(),
                shape: case.shape,
                error: case.error,
                tolerance: case.tolerance,
            }));
        }
        let (losses, cpu) = if only.is_empty() {
            eprintln!("{STEPS} training steps here and on the CPU ...");
            (losses::<B>(device, seed)?, losses_on_cpu(seed)?)
        } else {
            Default::default()
        };
        let parity: Vec<Step> = losses
            .into_iter()
            .zip(cpu)
            .enumerate()
            .map(|(i, (loss, cpu_loss))| {
                let passed = (loss - cpu_loss).abs() <= LOSS_TOLERANCE * cpu_loss.abs();
                Step { step: i + 1, loss, cpu_loss, passed }
            })
            .collect();
        let failed =
            operations.iter().filter(|row| !row.passed).count() + parity.iter().filter(|step| !step.passed).count();
        Ok(Report {
            backend: choice.backend.to_string(),
            device: choice.device.name.clone(),
            seed,
            dtypes: dtypes.iter().map(DType::name).collect(),
            failed,
            operations,
            parity,
        })
    }
}

impl Report {
    fn text(&self) -> String {
        let mark = |passed: bool| if passed { "ok" } else { "FAILED" };
        let mut operations = Table::new([
            ("operation", Align::Left),
            ("dtype", Align::Left),
            ("shape", Align::Left),
            ("error", Align::Right),
            ("tolerance", Align::Right),
            ("", Align::Left),
        ]);
        for row in &self.operations {
            operations.row([
                row.operation.to_owned(),
                row.dtype.to_owned(),
                row.shape.clone(),
                format!("{:.1e}", row.error),
                format!("{:.0e}", row.tolerance),
                mark(row.passed).to_owned(),
            ]);
        }
        let mut parity = Table::new([
            ("step", Align::Right),
            ("loss", Align::Right),
            ("on cpu", Align::Right),
            ("difference", Align::Right),
            ("tolerance", Align::Right),
            ("", Align::Left),
        ]);
        for step in &self.parity {
            parity.row([
                step.step.to_string(),
                format!("{:.6}", step.loss),
                format!("{:.6}", step.cpu_loss),
                format!("{:.1e}", (step.loss - step.cpu_loss).abs() / step.cpu_loss),
                format!("{LOSS_TOLERANCE:.0e}"),
                mark(step.passed).to_owned(),
            ]);
        }
        let comparisons = self.operations.len() + self.parity.len();
        let outcome = if self.failed == 0 {
            format!("all {comparisons} comparisons within tolerance")
        } else {
            format!("{} of {comparisons} comparisons FAILED", self.failed)
        };
        let parity = if self.parity.is_empty() { String::new() } else { format!("{parity}\n") };
        format!("{operations}\n{parity}{}: {outcome} (seed {})\n", self.device, self.seed)
    }
}

/// A decoder of every operation there is, small enough for a software device.
fn configuration(seed: u64) -> Result<Config> {
    let sets = [
        "model.hidden=96".to_owned(),
        "model.layers=2".into(),
        "model.heads=3".into(),
        "model.vocab=307".into(),
        "model.seq_len=37".into(),
        "model.dropout=0.1".into(),
        "train.batch=4".into(),
        "train.micro_batch=2".into(),
        "train.precision=fp32".into(),
        format!("train.steps={STEPS}"),
        format!("train.seed={}", seed >> 1),
        "optimizer.lr=1e-3".into(),
        "optimizer.warmup_steps=1".into(),
    ];
    Config::resolve(Some("demo"), None, &sets)
}

/// Tokens that follow a rule three times in four, so that there is something to learn.
struct Tokens {
    seed: u64,
    vocab: u64,
}

impl Tokens {
    fn token(&self, at: u64) -> i32 {
        let drawn = mix64(self.seed ^ mix64(at));
        let token = if drawn.is_multiple_of(4) { drawn >> 2 } else { at * 7 };
        (token % self.vocab) as i32
    }
}

impl Batches for Tokens {
    fn fill(&self, position: u64, inputs: &mut [i32], targets: &mut [i32]) -> Result<()> {
        let first = position * 37;
        for (i, (input, target)) in inputs.iter_mut().zip(targets).enumerate() {
            (*input, *target) = (self.token(first + i as u64), self.token(first + i as u64 + 1));
        }
        Ok(())
    }
}

fn losses_on_cpu(seed: u64) -> Result<Vec<f64>> {
    losses::<Cpu>(&Default::default(), seed)
}

fn losses<B: DecoderBackend>(device: &B::Device, seed: u64) -> Result<Vec<f64>> {
    let config = configuration(seed)?;
    let decoder = Decoder::<B>::new(config.architecture(), config.model.seq_len, device, Recompute::None);
    let weights = HostBuffers::init(&decoder.arch, &decoder.table, seed);
    let mut state = TrainState::new(&config, &decoder.table, weights, device);
    let tokens = Tokens { seed, vocab: config.model.vocab as u64 };
    (0..STEPS).map(|_| Ok(training_step(&decoder, &mut state, &config, &tokens)?.loss)).collect()
}
