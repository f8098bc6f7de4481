//! `trainer prepare`

use std::path::PathBuf;

use clap::Args;

use super::value::{fraction, whole};

#[derive(Clone, Debug, Args)]
pub struct PrepareArgs {
    /// Folders, .py, .txt and .md files, .jsonl and .ndjson (also .gz, .zst), .parquet
    ///
    /// Files with other endings in a folder are left aside and counted; what version control keeps there (.git, .hg, .svn) is
    /// passed over. A file that is named here itself is read whatever its ending: .json as .jsonl, any other as text. A pipe
    /// is read where it is the only INPUT. A text file is one document; one above 8 MB is tokenised in pieces of 2 MB.
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Folder to write the shards and the manifest to
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// codegen (built in, 50295 tokens), bytes, or a Hugging Face tokenizer.json or a folder that holds one
    ///
    /// Documents are parted by the tokenizer's <|endoftext|>; where it has none, by the eos_token of the tokenizer_config.json
    /// beside it, or </s>, <eos>, <|end_of_text|>, <|im_end|> or [SEP]. Where a text file above 8 MB is cut, a tokenizer from
    /// a file may make a token or two that it would not make of the whole.
    #[arg(long, value_name = "codegen|bytes|FILE", default_value = "codegen")]
    pub tokenizer: String,
    /// Share of the documents that becomes the validation part, from 0 to less than 1
    #[arg(long, value_name = "F", default_value_t = 0.01, value_parser = fraction)]
    pub val_fraction: f64,
    /// Tokens per shard, at most
    #[arg(long, value_name = "N", default_value_t = 100_000_000, value_parser = clap::value_parser!(u64).range(1..=MAX_SHARD_TOKENS))]
    pub shard_tokens: u64,
    /// Field of .jsonl lines and column of .parquet files that holds the text [default: the first of text, content, code]
    #[arg(long, value_name = "NAME")]
    pub text_field: Option<String>,
    /// Seed of the split into training and validation documents
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole)]
    pub seed: u64,
    /// Replace what an earlier run left in the output folder
    #[arg(long)]
    pub force: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The token count in a shard's header is an int32.
const MAX_SHARD_TOKENS: u64 = i32::MAX as u64;
