//! What a sweep found.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::check::Difference;
use super::measure::Times;
use super::operation::{Operation, Shape, Work};
use crate::report::table::{Align, Table};

/// One way to run an operation.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Variant {
    /// `rule`, or the choice and its value.
    pub name: String,
    #[serde(skip)]
    pub choice: Option<(String, String)>,
    /// Milliseconds a call: the median; `None` where it was not timed.
    pub ms: Option<f64>,
    pub ms_min: Option<f64>,
    pub ms_max: Option<f64>,
    pub tflops: Option<f64>,
    pub gb_per_s: Option<f64>,
    /// Of the ceiling that bounds it.
    pub share: Option<f64>,
    /// L2 norm of the difference over that of the expected values; `null` where it is not finite.
    pub error: Option<f64>,
    /// Largest difference of a value over the largest expected one.
    pub max_error: Option<f64>,
    /// Why it was not timed.
    pub refused: Option<String>,
    pub best: bool,
    /// Seconds that trying it out took, compilation included.
    pub seconds: f64,
    #[serde(skip)]
    work: Work,
}

impl Variant {
    pub(super) fn new(name: String, difference: Difference, times: Option<Times>, refused: bool) -> Self {
        let why = if refused { "not for this shape or dtype" } else { "WRONG RESULT" };
        Self {
            name,
            ms: times.map(|times| times.median * 1e3),
            ms_min: times.map(|times| times.min * 1e3),
            ms_max: times.map(|times| times.max * 1e3),
            error: Some(difference.error),
            max_error: Some(difference.largest),
            refused: times.is_none().then(|| why.to_owned()),
            ..Self::default()
        }
    }

    pub(super) fn failed(name: String, why: &str) -> Self {
        Self { name, refused: Some(why.to_owned()), ..Self::default() }
    }

    /// With the rates of an operation that does `work`, and how long it took to try it out.
    pub(super) fn of(self, work: &Work, took: Duration) -> Self {
        let rate = |count: u64, unit: f64| self.ms.filter(|_| count > 0).map(|ms| count as f64 / (ms / 1e3) / unit);
        let (tflops, gb_per_s) = (rate(work.flops, 1e12), rate(work.bytes, 1e9));
        Self { tflops, gb_per_s, work: *work, seconds: took.as_secs_f64(), ..self }
    }
}

/// An operation's variants.
#[derive(Clone, Debug, Serialize)]
pub struct OperationReport {
    pub operation: String,
    pub group: &'static str,
    pub shape: String,
    pub flops: u64,
    pub bytes: u64,
    /// What results were held against: the CPU in fp32, or the rule's own variant.
    pub check: &'static str,
    /// Milliseconds at the ceilings.
    pub floor_ms: Option<f64>,
    pub variants: Vec<Variant>,
    /// Choices that are faster than the rule's.
    pub best: Vec<(String, String)>,
    /// Variants for which there was no time.
    pub left_out: usize,
}

impl OperationReport {
    pub(super) fn new(operation: Operation, shape: &Shape, check: &'static str) -> Self {
        let Work { flops, bytes, .. } = operation.work(shape);
        Self {
            operation: operation.name(shape),
            group: operation.group(),
            shape: operation.shape(shape),
            flops,
            bytes,
            check,
            floor_ms: None,
            variants: Vec::new(),
            best: Vec::new(),
            left_out: 0,
        }
    }

    /// One for which there was no time at all.
    pub(super) fn left_out(operation: Operation, shape: &Shape) -> Self {
        Self { left_out: 1, ..Self::new(operation, shape, "none") }
    }

    /// One that could not be made at all.
    pub(super) fn broken_down(operation: Operation, shape: &Shape) -> Self {
        let variant = Variant::failed("rule".into(), "broke down: the message above says where");
        Self { variants: vec![variant], ..Self::new(operation, shape, "none") }
    }

    pub(super) fn fastest(&self) -> Option<&Variant> {
        let timed = self.variants.iter().filter(|variant| variant.ms.is_some());
        timed.min_by(|a, b| a.ms.unwrap_or(f64::MAX).total_cmp(&b.ms.unwrap_or(f64::MAX)))
    }

    /// Marks the fastest variant, and fills in shares of the ceilings.
    fn finish(&mut self, ceiling: &Ceiling) {
        let fastest = self.fastest().map(|variant| variant.name.clone());
        for variant in &mut self.variants {
            variant.best = Some(&variant.name) == fastest.as_ref();
            let compute = variant.work.flops as f64 / (ceiling.matmul_tflops * 1e12);
            let moving = variant.work.bytes as f64 / (ceiling.memory_gb_per_s * 1e9);
            let floor_ms = compute.max(moving) * 1e3;
            self.floor_ms = (floor_ms > 0.0).then_some(floor_ms);
            variant.share = variant.ms.filter(|_| floor_ms > 0.0).map(|ms| floor_ms / ms);
        }
    }
}

/// The rates that shares are of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ceiling {
    pub matmul_tflops: f64,
    pub memory_gb_per_s: f64,
    /// Whether they were measured in this run, or given.
    pub measured: bool,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub backend: String,
    pub device: String,
    pub dtype: String,
    pub micro_batch: usize,
    pub seq: usize,
    pub dropout: f64,
    pub seed: u64,
    pub ceiling: Ceiling,
    pub operations: Vec<OperationReport>,
    /// What `--tune` takes; empty where the rules are the best.
    pub tune: Vec<String>,
    /// Variants whose results were wrong.
    pub wrong: usize,
}

impl Report {
    /// Puts the operations against the ceilings: measured ones are at least what an operation reached.
    pub fn finish(mut self) -> Self {
        let timed = || self.operations.iter().flat_map(|operation| &operation.variants);
        if self.ceiling.measured {
            let most = |rates: fn(&Variant) -> Option<f64>| timed().filter_map(rates).fold(0.0, f64::max);
            self.ceiling.matmul_tflops = self.ceiling.matmul_tflops.max(most(|variant| variant.tflops));
        }
        self.wrong = timed().filter(|variant| variant.refused.as_deref() == Some("WRONG RESULT")).count();
        let ceiling = self.ceiling;
        self.operations.iter_mut().for_each(|operation| operation.finish(&ceiling));
        let best = self.operations.iter().flat_map(|operation| &operation.best);
        self.tune = best.map(|(name, value)| format!("{name}={value}")).collect();
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let right = ["ms", "TFLOP/s", "GB/s", "of ceiling", "error", "max error"].map(|name| (name, Align::Right));
        let columns = [("variant", Align::Left)].into_iter().chain(right).chain([("", Align::Left)]);
        let columns: Vec<_> = columns.collect();
        let optional = |value: Option<f64>, digits: usize| value.map_or_else(String::new, |x| format!("{x:.digits$}"));
        for operation in &self.operations {
            let OperationReport { operation: name, shape, check, left_out, .. } = operation;
            let floor = operation.floor_ms.map_or_else(String::new, |ms| format!(", at least {ms:.4} ms"));
            writeln!(f, "{name} ({shape}{floor}; held against {check})")?;
            let mut table = Table::new(columns.clone());
            for variant in &operation.variants {
                let small = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.1e}"));
                let note = variant
                    .refused
                    .clone()
                    .unwrap_or_else(|| if variant.best { "<- best".into() } else { String::new() });
                table.row([
                    variant.name.clone(),
                    optional(variant.ms, 4),
                    optional(variant.tflops, 3),
                    optional(variant.gb_per_s, 1),
                    variant.share.map_or_else(String::new, |share| format!("{:.1}%", 100.0 * share)),
                    small(variant.error),
                    small(variant.max_error),
                    note,
                ]);
            }
            writeln!(
                f,
                "{table}{}",
                if *left_out > 0 { format!("{left_out} left out: no time\n") } else { String::new() }
            )?;
        }
        let Ceiling { matmul_tflops, memory_gb_per_s, measured } = self.ceiling;
        let origin = if measured { "measured here" } else { "as given" };
        writeln!(
            f,
            "ceilings, {origin}: {matmul_tflops:.3} TFLOP/s of products, {memory_gb_per_s:.1} GB/s (seed {})",
            self.seed
        )?;
        if self.wrong > 0 {
            writeln!(f, "{} variants gave WRONG RESULTS and were not timed", self.wrong)?;
        }
        match &self.tune[..] {
            [] => writeln!(f, "no choice is faster than the rules' own"),
            faster => writeln!(f, "faster than the rules' own: --tune {}", faster.join(",")),
        }
    }
}
