//! `trainer sweep`

use clap::Args;

use super::ceilings::CeilingArgs;
use super::value::{fraction, positive, seconds, whole};
use crate::config::Precision;
use crate::sweep::Operation;

#[derive(Clone, Debug, Args)]
pub struct SweepArgs {
    /// Built-in configuration whose shapes are taken
    #[arg(long, value_name = "NAME", default_value = "phi-1")]
    pub preset: String,
    /// Tokens per sequence [default: the configuration's]
    #[arg(long, value_name = "T", value_parser = positive)]
    pub seq: Option<usize>,
    /// Sequences per forward and backward pass [default: the configuration's]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub micro_batch: Option<usize>,
    /// Number format of weights and activations [default: the configuration's]
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    /// Probability of attention and residual dropout [default: the configuration's]
    #[arg(long, value_name = "P", value_parser = fraction)]
    pub dropout: Option<f64>,
    /// Only these operations: products, head-products, head, attention, norm, activations, embedding, optimizer, generation
    #[arg(long, value_name = "GROUP", value_delimiter = ',', value_parser = group)]
    pub only: Vec<&'static str>,
    /// Only choices whose name starts with this, as in product.forward
    #[arg(long, value_name = "NAME")]
    pub choice: Option<String>,
    /// Times that a variant is timed; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    pub repeats: usize,
    /// Start no variant after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub budget: Option<f64>,
    /// Seed of the inputs [default: drawn from the clock, and printed]
    #[arg(long, value_name = "N", value_parser = whole)]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub ceilings: CeilingArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn group(text: &str) -> Result<&'static str, String> {
    let known = || Operation::GROUPS.join(", ");
    Operation::GROUPS.into_iter().find(|group| *group == text).ok_or_else(|| format!("expected one of {}", known()))
}
