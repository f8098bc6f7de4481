//! `trainer exercises` and `trainer humaneval`: problems, samples, scores.

use std::path::PathBuf;

use clap::Args;

use super::value::{from_zero, positive, seconds, temperature, top_p, whole};
use crate::config::Precision;

#[derive(Clone, Debug, Args)]
pub struct ExercisesArgs {
    /// Directory to write: train.jsonl for `prepare`, held-out.jsonl in HumanEval's format
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Exercises to train on
    #[arg(long, value_name = "N", default_value_t = 75_000, value_parser = whole)]
    pub count: u64,
    /// Exercises that are held out
    #[arg(long, value_name = "N", default_value_t = 192, value_parser = from_zero)]
    pub held_out: usize,
    /// Seed of both
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole)]
    pub seed: u64,
    /// Print the counts as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct HumanevalArgs {
    /// The problems: HumanEval.jsonl, or .jsonl.gz
    #[arg(long, value_name = "FILE")]
    pub problems: PathBuf,
    /// Model to sample: a Hugging Face directory, a checkpoint or a run
    #[arg(long, value_name = "MODEL", conflicts_with = "score")]
    pub model: Option<PathBuf>,
    /// Samples to score: lines {"task_id", "completion"}, .jsonl or .jsonl.gz
    #[arg(long, value_name = "FILE")]
    pub score: Option<PathBuf>,
    /// File for the samples, or for the results [default: the samples file's name with _results.jsonl behind it]; what it holds
    /// already is not made again
    #[arg(long, value_name = "FILE.jsonl")]
    pub out: Option<PathBuf>,
    /// Samples of each problem
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive, help_heading = "Sampling")]
    pub samples: usize,
    /// 0 takes the likeliest token each time; higher is more varied
    #[arg(long, value_name = "X", default_value_t = 0.2, value_parser = temperature, help_heading = "Sampling")]
    pub temperature: f64,
    /// Sample from the likeliest tokens that make up this probability, above 0 to 1
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = top_p, help_heading = "Sampling")]
    pub top_p: f64,
    /// Sample from this many likeliest tokens [default: all]
    #[arg(long, value_name = "K", value_parser = positive, help_heading = "Sampling")]
    pub top_k: Option<usize>,
    /// Tokens of a sample, at most
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = positive, help_heading = "Sampling")]
    pub max_tokens: usize,
    /// Seed of the sampling
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole, help_heading = "Sampling")]
    pub seed: u64,
    /// Samples that are made at a time
    #[arg(long, value_name = "N", default_value_t = crate::eval::generate::Generation::BATCH, value_parser = positive,
          help_heading = "Sampling")]
    pub batch: usize,
    /// Number format of weights and cache
    #[arg(long, value_enum, default_value = "fp32", help_heading = "Sampling")]
    pub precision: Precision,
    /// Samples that run at a time [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub jobs: Option<usize>,
    /// Seconds that a sample may take
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = seconds)]
    pub timeout: f64,
    /// Print {"pass@1", "pass@10", "pass@100", ...}, those that the samples allow, as one JSON object
    #[arg(long)]
    pub json: bool,
}
