//! `trainer estimate`

use clap::Args;

use super::ConfigArgs;
use super::ceilings::CeilingArgs;
use super::value::{above_zero, positive, share, steps};
use crate::config::Precision;
use crate::parallel::scaling::{self, GPUS, Gpu};

#[derive(Clone, Debug, Args)]
pub struct EstimateArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Number format of weights and activations [default: the configuration's]
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    /// Sequences per forward and backward pass on one device [default: the configuration's]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub micro_batch: Option<usize>,
    /// Micro-batches per step on each device [default: what makes up the configuration's batch]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub accumulate: Option<usize>,
    /// From the global option.
    #[arg(skip = 1usize)]
    pub devices: usize,
    /// Stage of ZeRO: what the devices divide among them, as in train [default: the configuration's]
    #[arg(long, value_name = "0|1|2", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub zero: Option<u8>,
    /// GPU to estimate step time, days and GPU-hours for: a100-40gb, a100-80gb, h100, h200, l40s, rtx-4090 or v100
    #[arg(long, value_name = "NAME", value_parser = gpu)]
    pub gpu: Option<Gpu>,
    /// Machines that the devices are divided over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = steps, requires = "gpu")]
    pub nodes: u64,
    /// What one machine sends to the others, in Gbit/s
    #[arg(long, value_name = "GBIT", default_value_t = 200.0, value_parser = above_zero, requires = "gpu")]
    pub network: f64,
    /// FLOPs per second over the GPU's peak, communication aside
    #[arg(long, value_name = "SHARE", default_value_t = scaling::MFU, value_parser = share, requires = "gpu")]
    pub mfu: f64,
    /// Optimizer steps to estimate the time of (may be repeated) [default: the configuration's]
    #[arg(long, value_name = "N", value_parser = steps, requires = "gpu")]
    pub steps: Vec<u64>,
    /// The least time of a step by part, on one device, with these ceilings or --gpu's (docs/time-model.md)
    #[arg(long)]
    pub by_part: bool,
    #[command(flatten)]
    pub ceilings: CeilingArgs,
    /// Print the estimate as one JSON object
    #[arg(long)]
    pub json: bool,
}

fn gpu(text: &str) -> Result<Gpu, String> {
    let known = || GPUS.map(|gpu| gpu.name).join(", ");
    GPUS.into_iter().find(|gpu| gpu.name == text).ok_or_else(|| format!("expected one of {}", known()))
}
