//! `trainer sweep`: the kernels' choices at a configuration's shapes, each checked and timed.

use std::time::{SystemTime, UNIX_EPOCH};

use trainer_backends::DecoderBackend;
use trainer_backends::discovery::Choice;

use super::args::{Global, SweepArgs};
use super::backend::{Task, check_precision, with_backend};
use super::{print, print_json};
use crate::config::{Config, Precision};
use crate::error::{Error, Result};
use crate::report::voice;
use crate::sweep::{self, Ceiling, Operation, Plan, Report, Shape};

/// # Errors
/// `Error::Failed` where a variant's result was wrong; the report is printed all the same.
pub fn run(args: &SweepArgs, global: &Global) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let seed = args.seed.unwrap_or(now % 1_000_000_007);
    let config = configuration(args)?;
    let wanted = |operation: &Operation| args.only.is_empty() || args.only.contains(&operation.group());
    let plan = Plan {
        shape: Shape::new(&config),
        operations: Operation::all().into_iter().filter(wanted).collect(),
        choice: args.choice.clone(),
        repeats: args.repeats,
        largest: u64::MAX,
        until: sweep::until(args.budget),
        seed,
    };
    let report = with_backend(global, Sweep { args, plan, config: &config })?;
    if args.json {
        print_json(&report)?;
    } else {
        print(&report.to_string())?;
    }
    if report.wrong == 0 {
        return Ok(());
    }
    Err(Error::failed(format!("{} variants gave wrong results; repeat them with --seed {seed}", report.wrong)))
}

fn configuration(args: &SweepArgs) -> Result<Config> {
    let mut sets = Vec::new();
    sets.extend(args.seq.map(|seq| format!("model.seq_len={seq}")));
    sets.extend(args.micro_batch.map(|batch| format!("train.micro_batch={batch}")));
    // A step's batch is of no interest here.
    sets.extend(args.micro_batch.map(|batch| format!("train.batch={batch}")));
    sets.extend(args.precision.map(|precision| format!("train.precision={precision}")));
    sets.extend(args.dropout.map(|dropout| format!("model.dropout={dropout:?}")));
    Config::resolve(Some(&args.preset), None, &sets)
}

struct Sweep<'a> {
    args: &'a SweepArgs,
    plan: Plan,
    config: &'a Config,
}

impl Task for Sweep<'_> {
    type Output = Report;
    const JUDGES_KERNELS: bool = true;

    fn run<B: DecoderBackend>(self, device: &B::Device, choice: &Choice) -> Result<Report> {
        let precision: Precision = self.config.train.precision;
        check_precision::<B>(device, precision)?;
        let plan = Plan { largest: choice.device.max_binding_bytes.unwrap_or(u64::MAX), ..self.plan };
        let (operations, rates) = sweep::run::<B>(device, &plan, voice::say)?;
        let given = self.args.ceilings.of_device(&choice.device, precision);
        let given =
            given.filter(|_| self.args.ceilings.matmul_tflops.is_some() && self.args.ceilings.memory_gbs.is_some());
        let (matmul, memory) = given.map_or((rates.matmul, rates.memory), |given| (given.matmul, given.memory));
        let report = Report {
            backend: choice.backend.to_string(),
            device: choice.device.name.clone(),
            dtype: precision.to_string(),
            micro_batch: self.config.train.micro_batch,
            seq: self.config.model.seq_len,
            dropout: self.config.model.attention_dropout,
            seed: plan.seed,
            ceiling: Ceiling { matmul_tflops: matmul / 1e12, memory_gb_per_s: memory / 1e9, measured: given.is_none() },
            operations,
            tune: Vec::new(),
            wrong: 0,
        };
        Ok(report.finish())
    }
}
