//! `trainer export`

use std::path::PathBuf;

use clap::Args;

use super::value::byte_size;
use crate::config::Precision;

#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// Run (its latest checkpoint), checkpoint or model directory
    #[arg(value_name = "SOURCE")]
    pub source: PathBuf,
    /// Hugging Face directory to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Number format of the weights [default: the source's]
    #[arg(long, value_enum)]
    pub dtype: Option<Precision>,
    /// Largest file of weights, as 5GB, 500MB or 2GiB; more weights are written as shards with an index
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = byte_size)]
    pub shard_size: u64,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}
