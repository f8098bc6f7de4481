//! `trainer generate` and `trainer logits`: what a model says.

use std::path::PathBuf;

use clap::Args;

use super::value::{positive, temperature, top_p, whole};
use crate::config::Precision;

#[derive(Clone, Debug, Args)]
pub struct GenerateArgs {
    /// Model: a Hugging Face directory, a checkpoint or a run
    #[arg(long, value_name = "MODEL")]
    pub model: PathBuf,
    /// Text to complete (may be repeated) [default: read from standard input]
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_file", allow_hyphen_values = true)]
    pub prompt: Vec<String>,
    /// File with the text to complete (may be repeated); - is standard input
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Vec<PathBuf>,
    /// Tokens to generate, at most
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = positive)]
    pub max_tokens: usize,
    /// 0 takes the likeliest token each time; higher is more varied
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = temperature)]
    pub temperature: f64,
    /// Sample from the likeliest tokens that make up this probability, above 0 to 1
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = top_p)]
    pub top_p: f64,
    /// Sample from this many likeliest tokens [default: all]
    #[arg(long, value_name = "K", value_parser = positive)]
    pub top_k: Option<usize>,
    /// Seed of the sampling
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole)]
    pub seed: u64,
    /// Completions of each prompt
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub samples: usize,
    /// Text that ends a completion, and is not part of it (may be repeated)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
    /// Completions that are made at a time
    #[arg(long, value_name = "N", default_value_t = crate::eval::generate::Generation::BATCH, value_parser = positive)]
    pub batch: usize,
    /// Number format of weights and cache: fp16 and bf16 halve what each token reads, where the device has them
    #[arg(long, value_enum, default_value = "fp32")]
    pub precision: Precision,
    /// Compute the whole sequence again for each token instead of keeping keys and values
    #[arg(long)]
    pub no_cache: bool,
    /// Print the completions as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct LogitsArgs {
    /// Model: a Hugging Face directory, a checkpoint or a run
    #[arg(long, value_name = "MODEL")]
    pub model: PathBuf,
    /// Token shard; it is cut into sequences of --seq-len tokens, and what is left over is dropped
    #[arg(long, value_name = "FILE.bin")]
    pub tokens: PathBuf,
    /// Tokens per sequence
    #[arg(long, value_name = "T", value_parser = positive)]
    pub seq_len: usize,
    /// File to write: tensor "logits", f32 [N, T, vocabulary]
    #[arg(long, value_name = "FILE.safetensors")]
    pub out: PathBuf,
}
