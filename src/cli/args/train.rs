//! `trainer train`

use std::path::PathBuf;

use clap::Args;

use super::ConfigArgs;
use super::value::seconds;

#[derive(Clone, Debug, Args)]
pub struct TrainArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Folder that `trainer prepare` wrote [default: the configuration's data.path]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Run directory: configuration, metrics and checkpoints
    #[arg(long, value_name = "RUN")]
    pub out: PathBuf,
    /// Start from the weights of a model: a Hugging Face directory, a checkpoint or a run [default: random weights]
    #[arg(long, value_name = "MODEL", conflicts_with = "resume")]
    pub init_from: Option<PathBuf>,
    /// Go on from the run directory's latest checkpoint, with its configuration
    #[arg(long)]
    pub resume: bool,
    /// With several devices, what they divide among them: 0 nothing, 1 optimizer state, 2 gradients too [default: train.zero, 1]
    #[arg(long, value_name = "0|1|2", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub zero: Option<u8>,
    /// With several devices, seconds after which one that does not arrive ends the run
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0, value_parser = seconds)]
    pub timeout: f64,
    /// With several devices, folder for a log of each
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// Print the result as one JSON object at the end
    #[arg(long)]
    pub json: bool,
}
