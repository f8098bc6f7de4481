//! `trainer estimate`: parameters, FLOPs, memory and time of a configuration, without training.

use serde::Serialize;

use super::args::{EstimateArgs, Global};
use crate::config::{Config, Precision, Recompute};
use crate::error::{Error, Result};
use crate::model::architecture::Architecture;
use crate::model::memory::{Memory, Plan, loss_chunk_tokens};
use crate::model::work::{StepFloor, StepShape};
use crate::parallel::scaling::{Cluster, Gpu, Groups, LINK_SHARE, StepTime, Work, step_time};
use crate::report::table::{Align, Table, bytes, si, thousands};

pub fn run(args: &EstimateArgs, global: &Global) -> Result<()> {
    let args = &EstimateArgs { devices: global.devices.unwrap_or(1), ..args.clone() };
    let estimate = Estimate::new(&super::resolve(&args.config)?, args)?;
    if args.json { super::print_json(&estimate) } else { super::print(&estimate.text()) }
}

/// The object that `--json` prints. Memory is in bytes on each device.
#[derive(Debug, Serialize)]
struct Estimate {
    parameters: u64,
    parameters_by_part: ParametersByPart,
    flops_per_token: f64,
    flops_per_step: f64,
    flops_total: f64,
    tokens_per_step: u64,
    steps: u64,
    precision: Precision,
    micro_batch: usize,
    accumulate: usize,
    devices: usize,
    zero: u8,
    seq_len: usize,
    recompute: Recompute,
    /// Tokens whose logits exist at a time.
    loss_chunk_tokens: u64,
    memory: Memory,
    memory_total: u64,
    /// Where a GPU was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<TimeEstimate>,
    /// Where it was asked for: the least time of a step by part, on one device.
    #[serde(skip_serializing_if = "Option::is_none")]
    floor: Option<StepFloor>,
}

/// What training takes on the GPUs that were named.
#[derive(Debug, Serialize)]
struct TimeEstimate {
    gpu: &'static str,
    gpu_memory: u64,
    nodes: u64,
    network_gbit: f64,
    mfu: f64,
    /// Every stage of ZeRO; on one device only the one that does not count.
    stages: Vec<Stage>,
}

#[derive(Debug, Serialize)]
struct Stage {
    zero: u8,
    /// Bytes on each device.
    memory: u64,
    #[serde(flatten)]
    time: StepTime,
    runs: Vec<Run>,
}

#[derive(Debug, Serialize)]
struct Run {
    steps: u64,
    days: f64,
    gpu_hours: f64,
}

impl TimeEstimate {
    /// # Errors
    /// More machines than devices.
    fn new(gpu: Gpu, args: &EstimateArgs, work: Work, steps: u64, memory: impl Fn(u8) -> u64) -> Result<Self> {
        let devices = args.devices as u64;
        if !devices.is_multiple_of(args.nodes) {
            return Err(Error::input(format!(
                "{devices} devices are not the same number on each of {} machines: choose --devices as a multiple of --nodes",
                args.nodes
            )));
        }
        let network = args.network * 1e9 / 8.0;
        let cluster = Cluster { gpu, devices, nodes: args.nodes, network, mfu: args.mfu };
        let runs = if args.steps.is_empty() { vec![steps] } else { args.steps.clone() };
        let stage = |zero: u8| {
            let time = step_time(&Work { zero, ..work }, &cluster);
            let run = |steps: &u64| {
                let hours = *steps as f64 * time.step / 3600.0;
                Run { steps: *steps, days: hours / 24.0, gpu_hours: hours * devices as f64 }
            };
            Stage { zero, memory: memory(zero), time, runs: runs.iter().map(run).collect() }
        };
        let stages = if devices == 1 { vec![stage(work.zero)] } else { (0..=2).map(stage).collect() };
        let (network_gbit, mfu) = (args.network, args.mfu);
        Ok(Self { gpu: gpu.name, gpu_memory: gpu.memory, nodes: args.nodes, network_gbit, mfu, stages })
    }

    fn text(&self, devices: usize) -> String {
        let columns = [
            "ZeRO stage",
            "memory on each",
            "sent by each a step",
            "communication",
            "exposed",
            "step",
            "run",
            "days",
            "GPU-hours",
        ];
        let mut table = Table::new(columns.map(|name| (name, Align::Right)));
        for stage in &self.stages {
            let Stage { zero, memory, time, .. } = stage;
            let fits = if *memory > self.gpu_memory { " too large" } else { "" };
            for run in &stage.runs {
                table.row([
                    zero.to_string(),
                    format!("{}{fits}", bytes(*memory)),
                    bytes(time.bytes_sent as u64),
                    format!("{:.3} s", time.communication),
                    format!("{:.3} s", time.exposed_communication),
                    format!("{:.2} s", time.step),
                    format!("{} steps", thousands(run.steps)),
                    format!("{:.2}", run.days),
                    thousands(run.gpu_hours.round() as u64),
                ]);
            }
        }
        let (gpu, memory) = (self.gpu, bytes(self.gpu_memory));
        let machines = if self.nodes == 1 { "one machine".to_owned() } else { format!("{} machines", self.nodes) };
        format!(
            "\ntime on {devices} x {gpu} ({memory} each) in {machines}\n{table}at {:.0}% MFU, with links at {:.0}% of their rate; \
             of these nothing is measured here: docs/scaling.md\n",
            100.0 * self.mfu,
            100.0 * LINK_SHARE
        )
    }
}

/// The least time of a step, part by part.
fn floor_text(floor: &StepFloor) -> String {
    let columns = ["calls", "TFLOP", "GB", "at least ms", "share"].map(|name| (name, Align::Right));
    let mut table = Table::new([("part", Align::Left)].into_iter().chain(columns).chain([("bound by", Align::Left)]));
    for part in &floor.parts {
        table.row([
            part.part.clone(),
            thousands(part.calls),
            if part.needed_flops == 0 { String::new() } else { format!("{:.2}", part.needed_flops as f64 / 1e12) },
            format!("{:.2}", part.bytes as f64 / 1e9),
            format!("{:.3}", part.floor_ms),
            format!("{:.1}%", 100.0 * part.share),
            part.bound.to_owned(),
        ]);
    }
    let ms = format!("{:.3}", floor.step_ms);
    table.rule().row(["step", "", "", "", &ms, "100.0%"]);
    let rates = floor.ceilings;
    format!(
        "\nthe least time of a step on one device, at {:.3} TFLOP/s of products, {:.3} of attention's, {:.1} GB/s\n{table}\
         {:.0} tokens/s, {:.1}% MFU; what this leaves out: docs/time-model.md\n",
        rates.matmul / 1e12,
        rates.attention / 1e12,
        rates.memory / 1e9,
        floor.tokens_per_s,
        100.0 * floor.mfu
    )
}

/// Parameters of the decoder, the parts of a block summed over its blocks.
#[derive(Debug, Serialize)]
struct ParametersByPart {
    embedding: u64,
    layer_norms: u64,
    attention: u64,
    mlp: u64,
    lm_head: u64,
}

impl ParametersByPart {
    fn of(architecture: &Architecture) -> Self {
        let [c, f, v, l] =
            [architecture.hidden, architecture.mlp, architecture.vocab, architecture.layers].map(|n| n as u64);
        Self {
            embedding: v * c,
            // Weight and bias, one norm a block and the final one.
            layer_norms: (l + 1) * 2 * c,
            // q, k, v and dense.
            attention: l * 4 * (c * c + c),
            mlp: l * (c * f + f + f * c + c),
            lm_head: v * c + v,
        }
    }

    fn parts(&self) -> [(&'static str, u64); 5] {
        [
            ("embedding", self.embedding),
            ("layer norms", self.layer_norms),
            ("attention", self.attention),
            ("MLP", self.mlp),
            ("lm_head", self.lm_head),
        ]
    }
}

impl Estimate {
    /// # Errors
    /// `Error::Input` where the configuration's batch does not divide over the micro-batches and devices asked for.
    fn new(config: &Config, args: &EstimateArgs) -> Result<Self> {
        let architecture = config.architecture();
        let (micro_batch, devices) = (args.micro_batch.unwrap_or(config.train.micro_batch), args.devices);
        let too_large =
            || Error::input("micro-batch x accumulate x devices is too large to count: choose smaller ones");
        let pass = micro_batch.checked_mul(devices).ok_or_else(too_large)?;
        let accumulate = match args.accumulate {
            Some(accumulate) => accumulate,
            None if config.train.batch.is_multiple_of(pass) => config.train.batch / pass,
            None => {
                return Err(Error::input(format!(
                    "train.batch {} is not a multiple of micro-batch {micro_batch} x {devices} devices: choose them so that it \
                     is, or give --accumulate",
                    config.train.batch
                )));
            }
        };
        let sequences = pass.checked_mul(accumulate).ok_or_else(too_large)? as u64;
        let tokens_per_step = sequences.checked_mul(config.model.seq_len as u64).ok_or_else(too_large)?;
        let precision = args.precision.unwrap_or(config.train.precision);
        let zero = args.zero.unwrap_or(config.train.zero);
        let memory_at = |zero: u8| {
            let (micro_batch, devices) = (micro_batch as u64, devices as u64);
            Memory::estimate(&architecture, &Plan { precision, micro_batch, devices, zero, ..Plan::new(config) })
        };
        let memory = memory_at(zero);
        let flops_per_token = architecture.flops_per_token(config.model.seq_len);
        let flops_per_step = flops_per_token * tokens_per_step as f64;
        let parameters = architecture.parameters();
        let groups = Groups::of(&architecture);
        let work = Work { parameters, precision, flops: flops_per_step, accumulate: accumulate as u64, zero, groups };
        let total_at = |zero: u8| memory_at(zero).total();
        let time = args.gpu.map(|gpu| TimeEstimate::new(gpu, args, work, config.train.steps, total_at)).transpose()?;
        let floor = if args.by_part {
            let ceilings = args.ceilings.of_gpu(args.gpu, precision).ok_or_else(|| {
                Error::input("--by-part needs rates to go by: give --gpu, or --matmul-tflops and --memory-gbs")
            })?;
            let (micro_batch, accumulate) = (micro_batch as u64, accumulate as u64);
            let shape = StepShape { precision, micro_batch, accumulate, ..StepShape::new(config) };
            Some(StepFloor::new(&architecture, &shape, ceilings))
        } else {
            None
        };
        Ok(Self {
            parameters,
            parameters_by_part: ParametersByPart::of(&architecture),
            flops_per_token,
            flops_per_step,
            flops_total: flops_per_step * config.train.steps as f64,
            tokens_per_step,
            steps: config.train.steps,
            precision,
            micro_batch,
            accumulate,
            devices,
            zero,
            seq_len: config.model.seq_len,
            recompute: config.train.recompute,
            loss_chunk_tokens: loss_chunk_tokens(
                (micro_batch as u64).saturating_mul(config.model.seq_len as u64),
                architecture.vocab,
            ),
            memory_total: memory.total(),
            memory,
            time,
            floor,
        })
    }

    fn text(&self) -> String {
        let mut parameters =
            Table::new([("parameters", Align::Left), ("count", Align::Right), ("share", Align::Right)]);
        let share = |part: u64, of: u64| format!("{:.1}%", 100.0 * part as f64 / of as f64);
        for (part, count) in self.parameters_by_part.parts() {
            parameters.row([part.to_owned(), thousands(count), share(count, self.parameters)]);
        }
        parameters.rule().row(["total".to_owned(), thousands(self.parameters)]);

        let mut compute = Table::pairs();
        compute.row(["training FLOPs a token", &format!("{}FLOPs", si(self.flops_per_token))]);
        let step = format!(
            "{} ({} x {} tokens x {} accumulated x {} device{})",
            thousands(self.tokens_per_step),
            self.micro_batch,
            thousands(self.seq_len as u64),
            self.accumulate,
            self.devices,
            if self.devices == 1 { "" } else { "s" },
        );
        compute.row(["tokens a step", &step]);
        compute.row(["FLOPs a step", &format!("{}FLOPs", si(self.flops_per_step))]);
        compute.row([
            format!("whole run of {} steps", thousands(self.steps)),
            format!("{}tokens, {}FLOPs", si(self.tokens_per_step as f64 * self.steps as f64), si(self.flops_total)),
        ]);

        let mut memory =
            Table::new([("memory on each device", Align::Left), ("bytes", Align::Right), ("share", Align::Right)]);
        for (part, count) in self.memory.parts() {
            memory.row([part.to_owned(), bytes(count), share(count, self.memory_total)]);
        }
        memory.rule().row(["total".to_owned(), bytes(self.memory_total)]);
        let time = self.time.as_ref().map_or_else(String::new, |time| time.text(self.devices));
        let floor = self.floor.as_ref().map_or_else(String::new, floor_text);
        format!("{parameters}\n{compute}\n{memory}{}\n{time}{floor}", self.notes())
    }

    /// What the memory table counts.
    fn notes(&self) -> String {
        let kept = match self.recompute {
            Recompute::None => "all block activations kept",
            Recompute::Activation => "layer norm and GELU recomputed",
            Recompute::Block => "block inputs kept, blocks recomputed",
        };
        let master = match self.precision {
            Precision::Fp32 => "; in fp32 the weights are the master weights",
            _ => "",
        };
        let split = match (self.devices, self.zero) {
            (1, _) => "",
            (_, 0) => "; every device holds all of it",
            (_, 1) => "; master weights and moments split over the devices",
            _ => "; master weights, moments and gradients split over the devices",
        };
        let chunk = self.loss_chunk_tokens;
        format!("{}, {kept}, logits of {chunk} tokens at a time{master}{split}", self.precision)
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::ConfigArgs;
    use super::super::args::ceilings::CeilingArgs;
    use super::*;

    fn args(preset: &str) -> EstimateArgs {
        let config = ConfigArgs { preset: Some(preset.into()), config: None, sets: Vec::new() };
        EstimateArgs {
            config,
            precision: None,
            micro_batch: None,
            accumulate: None,
            devices: 1,
            zero: None,
            gpu: None,
            nodes: 1,
            network: 200.0,
            mfu: 0.53,
            steps: Vec::new(),
            by_part: false,
            ceilings: Default::default(),
            json: false,
        }
    }

    #[test]
    fn the_least_time_wants_rates() {
        let by_part = EstimateArgs { by_part: true, micro_batch: Some(16), accumulate: Some(4), ..args("phi-1") };
        assert!(estimate(&by_part).unwrap_err().to_string().contains("--matmul-tflops"));
        let gpu = crate::parallel::scaling::GPUS.into_iter().find(|gpu| gpu.name == "h200");
        let sheet = estimate(&EstimateArgs { gpu, ..by_part.clone() }).unwrap();
        let ceilings = CeilingArgs { matmul_tflops: Some(788.0), attention_tflops: None, memory_gbs: Some(4300.0) };
        let measured = estimate(&EstimateArgs { gpu, ceilings, ..by_part }).unwrap();
        let ms = |estimate: &Estimate| estimate.floor.as_ref().unwrap().step_ms;
        assert!(ms(&sheet) < ms(&measured));
        assert!(measured.text().contains("788.000 TFLOP/s of products"), "{}", measured.text());
    }

    fn estimate(args: &EstimateArgs) -> Result<Estimate> {
        Estimate::new(&super::super::resolve(&args.config)?, args)
    }

    #[test]
    fn phi_1_is_shown_as_the_paper_counts_it() {
        let estimate = estimate(&args("phi-1")).unwrap();
        let text = estimate.text();
        for part in ["1,418,270,720", "9.085 GFLOPs", "2,097,152 (16 x 2,048 tokens x 64 accumulated x 1 device)"] {
            assert!(text.contains(part), "{text}");
        }
        let json = serde_json::to_value(&estimate).unwrap();
        assert_eq!(json["parameters"], 1_418_270_720u64);
        assert_eq!(json["precision"], "fp16");
        assert_eq!(json["memory"]["gradients"], 4 * 1_418_270_720u64);
        assert!((json["flops_per_token"].as_f64().unwrap() / 1e9 - 9.085).abs() < 1e-3);
    }

    #[test]
    fn parts_add_up() {
        for preset in crate::config::preset_names() {
            let estimate = estimate(&args(preset)).unwrap();
            let sum: u64 = estimate.parameters_by_part.parts().iter().map(|(_, count)| count).sum();
            assert_eq!(sum, estimate.parameters, "{preset}");
            assert_eq!(estimate.memory_total, estimate.memory.parts().iter().map(|(_, count)| count).sum::<u64>());
        }
    }

    #[test]
    fn options_replace_the_configurations() {
        let changed = EstimateArgs {
            precision: Some(Precision::Bf16),
            micro_batch: Some(4),
            devices: 8,
            ..args("phi-1-finetune")
        };
        let eight = estimate(&changed).unwrap();
        assert_eq!((eight.accumulate, eight.tokens_per_step, eight.precision), (8, 256 * 2048, Precision::Bf16));
        assert!(eight.text().contains("split over the devices"));
        let accumulated = estimate(&EstimateArgs { accumulate: Some(3), ..changed }).unwrap();
        assert_eq!(accumulated.tokens_per_step, 4 * 8 * 3 * 2048);
    }

    #[test]
    fn eight_a100s_take_the_papers_770_gpu_hours() {
        let gpu = crate::parallel::scaling::GPUS.into_iter().find(|gpu| gpu.name == "a100-80gb");
        let steps = vec![24_000, 36_000];
        let eight = EstimateArgs { devices: 8, gpu, steps, micro_batch: Some(8), ..args("phi-1") };
        let estimate = estimate(&eight).unwrap();
        let stages = &estimate.time.as_ref().unwrap().stages;
        assert_eq!(stages.iter().map(|stage| stage.zero).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(stages.windows(2).all(|pair| pair[0].memory > pair[1].memory), "{stages:?}");
        assert_eq!(stages[1].memory, estimate.memory_total);
        let runs = &stages[1].runs;
        assert!((runs[0].gpu_hours / 770.0 - 1.0).abs() < 0.01, "{runs:?}");
        assert!((runs[1].days / runs[0].days - 1.5).abs() < 1e-9 && runs[0].days < 4.05, "{runs:?}");
        let text = estimate.text();
        assert!(text.contains("8 x a100-80gb") && text.contains("24,000 steps"), "{text}");
        let error = super::tests::estimate(&EstimateArgs { nodes: 3, ..eight }).unwrap_err();
        assert!(error.to_string().contains("--nodes"), "{error}");
    }

    #[test]
    fn batches_that_do_not_divide_or_cannot_be_counted_are_refused() {
        let error = estimate(&EstimateArgs { devices: 7, ..args("phi-1") }).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("16 x 7 devices"), "{error}");
        let error = estimate(&EstimateArgs { micro_batch: Some(usize::MAX), devices: 2, ..args("phi-1") }).unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
    }
}
