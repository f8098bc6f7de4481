//! `trainer demo`

use std::path::PathBuf;

use clap::Args;

use super::value::{steps, whole};

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// Run directory to write
    #[arg(long, value_name = "RUN", default_value = DemoArgs::OUT)]
    pub out: PathBuf,
    /// Optimizer steps [default: the demo preset's]
    #[arg(long, value_name = "N", value_parser = steps)]
    pub steps: Option<u64>,
    /// Seed of the exercises, the weights and the order of the data
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole)]
    pub seed: u64,
    /// Override one key of the demo preset, as in --set train.precision=fp16 (may be repeated)
    #[arg(long = "set", value_name = "TABLE.KEY=VALUE")]
    pub sets: Vec<String>,
}

impl DemoArgs {
    const OUT: &str = "runs/demo";
}

impl Default for DemoArgs {
    fn default() -> Self {
        Self { out: Self::OUT.into(), steps: None, seed: 0, sets: Vec::new() }
    }
}
