//! `trainer verify`

use std::path::PathBuf;

use clap::Args;

#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Run, checkpoint, prepared folder, token shard or Hugging Face directory
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Print everything that was checked as one JSON object
    #[arg(long)]
    pub json: bool,
}
