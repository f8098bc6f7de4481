//! `trainer evaluate`

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use super::value::positive;
use crate::data::dataset::Split;

#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("given").required(true).args(["data", "text"]))]
pub struct EvaluateArgs {
    /// Model: a Hugging Face directory, a checkpoint or a run
    #[arg(long, value_name = "MODEL")]
    pub model: PathBuf,
    /// Prepared folder, token shard, or text as `prepare` reads it, which the model's own tokenizer then encodes
    #[arg(long, value_name = "DIR|FILE")]
    pub data: Option<PathBuf>,
    /// File of plain text, whatever its name; - is standard input
    #[arg(long, value_name = "FILE|-")]
    pub text: Option<PathBuf>,
    /// Part of a prepared folder
    #[arg(long, value_enum, default_value = "val")]
    pub split: SplitName,
    /// Sequences per forward pass
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    pub batch: usize,
    /// Tokens per window [default: the model's context, or all of the data where that is shorter]
    #[arg(long, value_name = "T", value_parser = positive)]
    pub seq_len: Option<usize>,
    /// Tokens from a window to the next [default: --seq-len, so that none overlap]
    ///
    /// Every token but the first is scored once. With a smaller stride each has at least T - stride tokens of context,
    /// as in transformers' guide to perplexity. Without --stride, tokens behind the last whole window of a prepared
    /// folder or a shard are left out, as in the validation of a run; those of a text are scored in a shorter window.
    #[arg(long, value_name = "TOKENS", value_parser = positive)]
    pub stride: Option<usize>,
    /// Stop after this many batches [default: all of the data]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_batches: Option<usize>,
    /// Print {"loss": nats per token, "perplexity", "bits_per_byte", "tokens", "bytes"} and more as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SplitName {
    Train,
    Val,
}

impl From<SplitName> for Split {
    fn from(name: SplitName) -> Self {
        match name {
            SplitName::Train => Self::Train,
            SplitName::Val => Self::Val,
        }
    }
}
