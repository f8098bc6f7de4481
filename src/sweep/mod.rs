//! Every choice that the kernels of a training step, and of generation, leave to measurements, tried out at a configuration's shapes.
//!
//! ```text
//! operation  the operations of a step, and which choices each of them has
//! inputs     fresh random inputs, on the device and, the same values, on the CPU
//! prepared   an operation with its inputs, ready to run any number of times
//! generation the one that is not a training step's
//! check      a variant's results against the CPU's or the first variant's
//! measure    times, and the device's ceilings
//! report     what is printed
//! ```
//!
//! A choice is varied with the ones before it at their best. A variant is timed only if its results are right.

mod check;
mod generation;
mod inputs;
mod measure;
mod operation;
mod prepared;
mod report;

pub use measure::Rates;
pub use operation::{Operation, Shape};
pub use report::{Ceiling, OperationReport, Report, Variant};

use std::time::{Duration, Instant};

use burn_tensor::DType;
use trainer_backends::tuning::Tunable;
use trainer_backends::{Cpu, DecoderBackend};

use crate::breakdown;
use crate::error::{Error, Result};
use check::{Check, Difference};
use inputs::Inputs;
use prepared::{Prepared, prepare};

/// Operations with more of either are not made on the CPU for comparison: it would take minutes.
const CPU_FLOPS: u64 = 4_000_000_000;
const CPU_BYTES: u64 = 1 << 28;

/// A variant must be faster than the rule's by more than this share to be taken in its place: less is noise.
const GAIN: f64 = 0.02;

/// What to try out.
#[derive(Clone, Debug)]
pub struct Plan {
    pub shape: Shape,
    pub operations: Vec<Operation>,
    /// Only choices whose name begins so.
    pub choice: Option<String>,
    pub repeats: usize,
    /// Bytes of the largest buffer that a kernel may read or write.
    pub largest: u64,
    /// No variant is begun later.
    pub until: Option<Instant>,
    pub seed: u64,
}

impl Plan {
    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// Tries out what `plan` says; `tell` hears of each operation before it begins. The choices are the rule's again afterwards.
///
/// # Errors
/// A device that fails as such; a variant that fails is in the report.
pub fn run<B: DecoderBackend>(
    device: &B::Device,
    plan: &Plan,
    mut tell: impl FnMut(&str),
) -> Result<(Vec<OperationReport>, Rates)> {
    tell("ceilings");
    let rates = measure::rates::<B>(device, plan.shape.dtype, plan.largest)?;
    let tunables = B::tunables(device, &plan.shape.layers());
    let mut reports = Vec::new();
    for operation in &plan.operations {
        if plan.is_over() {
            reports.push(OperationReport::left_out(*operation, &plan.shape));
            continue;
        }
        tell(&operation.name(&plan.shape));
        let wanted = |tunable: &&Tunable| {
            operation.has(&plan.shape, &tunable.name)
                && plan.choice.as_ref().is_none_or(|begin| tunable.name.starts_with(begin))
        };
        let tunables: Vec<&Tunable> = tunables.iter().filter(wanted).collect();
        // Want of memory, above all, is one operation's.
        let tried = breakdown::caught(|| Trial::<B>::new(device, plan, *operation)?.vary(&tunables));
        for tunable in tunables {
            B::tune(device, &tunable.name, None).map_err(|error| Error::failed(error.to_string()))?;
        }
        reports.push(match tried {
            Some(report) => report?,
            None => OperationReport::broken_down(*operation, &plan.shape),
        });
    }
    Ok((reports, rates))
}

/// One operation while its choices are varied.
struct Trial<'a, B: DecoderBackend> {
    device: &'a B::Device,
    plan: &'a Plan,
    operation: Operation,
    /// Several sets of inputs, used in turn, so that what is read is not in the cache.
    sets: Vec<Prepared<B>>,
    check: Check<B>,
    report: OperationReport,
}

impl<'a, B: DecoderBackend> Trial<'a, B> {
    /// Draws the inputs, makes the expected results and times the rule's own variant.
    fn new(device: &'a B::Device, plan: &'a Plan, operation: Operation) -> Result<Self> {
        let shape = &plan.shape;
        let work = operation.work(shape);
        let on_cpu = work.flops <= CPU_FLOPS && work.bytes <= CPU_BYTES;
        let mut inputs = Inputs::<B>::draw(device, plan.seed, on_cpu);
        let mut first = prepare(operation, shape, shape.dtype, &mut inputs);
        let check = if on_cpu {
            let mut on_host = Inputs::<Cpu>::given(inputs.recorded());
            let mut oracle = prepare(operation, shape, DType::F32, &mut on_host);
            Check::against_cpu(oracle.results())
        } else {
            Check::against_first(first.results())
        };
        let mut sets = vec![first];
        for i in 1..measure::sets(work.bytes) {
            sets.push(prepare(operation, shape, shape.dtype, &mut Inputs::draw(device, plan.seed + i, false)));
        }
        let report = OperationReport::new(operation, shape, check.name());
        let mut trial = Self { device, plan, operation, sets, check, report };
        let rule = trial.variant("rule".into())?;
        trial.report.variants.push(rule);
        Ok(trial)
    }

    /// Varies one choice after the other.
    fn vary(mut self, tunables: &[&Tunable]) -> Result<OperationReport> {
        for tunable in tunables {
            let before = self.report.fastest().and_then(|variant| variant.ms);
            for value in &tunable.values {
                if self.plan.is_over() {
                    self.report.left_out += 1;
                    continue;
                }
                self.tune(&tunable.name, Some(value))?;
                let mut variant = self.variant(format!("{}={value}", tunable.name))?;
                variant.choice = Some((tunable.name.clone(), value.clone()));
                self.report.variants.push(variant);
            }
            // Of this choice the best stays, if it is one.
            let of_this = |variant: &&Variant| variant.choice.as_ref().is_some_and(|(name, _)| *name == tunable.name);
            let timed = self.report.variants.iter().filter(of_this).filter(|variant| variant.ms.is_some());
            let best = timed.min_by(|a, b| a.ms.unwrap_or(f64::MAX).total_cmp(&b.ms.unwrap_or(f64::MAX)));
            let gains = best.filter(|best| before.zip(best.ms).is_none_or(|(before, ms)| ms < before * (1.0 - GAIN)));
            let value = gains.and_then(|best| best.choice.clone()).map(|(_, value)| value);
            self.tune(&tunable.name, value.as_deref())?;
            self.report.best.extend(value.map(|value| (tunable.name.clone(), value)));
        }
        Ok(self.report)
    }

    fn tune(&self, name: &str, value: Option<&str>) -> Result<()> {
        B::tune(self.device, name, value).map_err(|error| Error::failed(error.to_string()))
    }

    /// Checks and times the kernels as they are chosen now.
    fn variant(&mut self, name: String) -> Result<Variant> {
        B::refused_choice();
        let mut refused = false;
        let begun = Instant::now();
        let tried = breakdown::caught(|| -> Result<(Difference, Option<measure::Times>)> {
            self.check.poison(self.device);
            let difference = self.check.compare(self.sets[0].results());
            refused = B::refused_choice();
            if refused || difference.error > self.check.tolerance(self.plan.shape.dtype) {
                return Ok((difference, None));
            }
            let times = measure::time::<B>(self.device, &mut self.sets, self.plan.repeats)?;
            Ok((difference, Some(times)))
        });
        let variant = match tried {
            None => Variant::failed(name, "broke down: the message above says where"),
            Some(Err(error)) => Variant::failed(name, &error.to_string()),
            Some(Ok((difference, times))) => Variant::new(name, difference, times, refused),
        };
        B::sync(self.device)
            .map_err(|error| Error::failed(format!("the device failed after {}: {error}", variant.name)))?;
        Ok(variant.of(&self.operation.work(&self.plan.shape), begun.elapsed()))
    }
}

/// When a sweep that may take `budget` seconds from now ends.
pub fn until(budget: Option<f64>) -> Option<Instant> {
    budget.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds))
}
