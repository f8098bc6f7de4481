//! `trainer devices`, `trainer selftest`, `trainer trial` and `trainer bench`: what a device is and does.

use std::path::PathBuf;

use clap::Args;
use trainer_backends::selftest::Group;

use super::ceilings::CeilingArgs;
use super::value::{fraction, from_zero, positive, whole};
use crate::config::{Precision, Recompute};

#[derive(Clone, Debug, Args)]
pub struct DevicesArgs {
    /// Print the devices as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct SelftestArgs {
    /// Only these operations, without the training steps: norm, activations, embedding, optimizer, linear, products, loss, attention, attention-blocks, decode
    #[arg(long, value_name = "GROUP", value_delimiter = ',', value_parser = group)]
    pub only: Vec<Group>,
    /// Only these number formats [default: those that the device computes in]
    #[arg(long, value_enum, value_name = "FORMAT", value_delimiter = ',')]
    pub dtype: Vec<Precision>,
    /// Seed of the inputs [default: drawn from the clock, and printed]
    #[arg(long, value_name = "N", value_parser = whole)]
    pub seed: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct TrialArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// Sizes of a built-in configuration, in place of the five size options
    #[arg(long, value_name = "NAME", conflicts_with_all = ["hidden", "layers", "heads", "vocab", "seq"])]
    pub preset: Option<String>,
    /// Width of the residual stream
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = positive)]
    pub hidden: usize,
    /// Blocks
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = positive)]
    pub layers: usize,
    /// Attention heads
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = positive)]
    pub heads: usize,
    /// Tokens of the vocabulary
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = positive)]
    pub vocab: usize,
    /// Tokens per sequence
    #[arg(long, value_name = "T", default_value_t = 256, value_parser = positive)]
    pub seq: usize,
    /// Sequences per forward and backward pass
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = positive)]
    pub micro_batch: usize,
    /// Micro-batches per optimizer step
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub accumulate: usize,
    /// Number format of weights and activations
    #[arg(long, value_enum, default_value = "fp32")]
    pub precision: Precision,
    /// Probability of attention and residual dropout, from 0 to less than 1
    #[arg(long, value_name = "P", default_value_t = 0.1, value_parser = fraction)]
    pub dropout: f64,
    /// What the backward pass computes again in place of keeping it
    #[arg(long, value_enum, default_value = "none")]
    pub recompute: Recompute,
    /// Timed optimizer steps
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = positive)]
    pub steps: usize,
    /// Optimizer steps before the timed ones
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = from_zero)]
    pub warmup: usize,
    /// Profile 3 further steps, and print where their time goes; beside it the least time, where ceilings are known
    #[arg(long)]
    pub by_part: bool,
    #[command(flatten)]
    pub ceilings: CeilingArgs,
    /// Write the trace of the profiled steps there, for ui.perfetto.dev
    #[arg(long, value_name = "FILE", requires = "by_part")]
    pub trace: Option<PathBuf>,
    /// Print tokens_per_s, step_ms_median, step_ms_min, step_ms_max, model_tflops, peak_gib, activation_gib, params, with --by-part also parts, and more as one JSON object
    #[arg(long)]
    pub json: bool,
}

fn group(text: &str) -> Result<Group, String> {
    let known = || Group::ALL.map(Group::name).join(", ");
    Group::ALL.into_iter().find(|group| group.name() == text).ok_or_else(|| format!("expected one of {}", known()))
}
