//! `trainer train`

use std::path::PathBuf;

use clap::Args;

use super::ConfigArgs;
use super::value::{hours, seconds, steps};
use crate::config::Select;
use crate::train::run::Resume;

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
    #[arg(long, value_name = "MODEL")]
    pub init_from: Option<PathBuf>,
    /// Whether to go on from the run directory's latest checkpoint [default: auto, where it holds one]
    ///
    /// auto: where the directory holds a checkpoint of this very configuration, so that the same command, started again, goes
    /// on. always (what --resume alone means): with the run's own configuration, and what --set changes of it. never: only a
    /// directory that holds no run will do.
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_value = "auto",
          default_missing_value = "always", hide_default_value = true)]
    pub resume: Resume,
    /// Save and end with exit code 75 after this many hours; the same command goes on from there
    #[arg(long, value_name = "H", value_parser = hours)]
    pub max_hours: Option<f64>,
    /// Check configuration, data, checkpoint, memory and disk, compile the kernels, try two steps, and write nothing
    #[arg(long, conflicts_with_all = ["log_dir", "max_hours", "profile"])]
    pub dry_run: bool,
    /// What makes a checkpoint the best one: the validation loss, or the share of --problems solved [default: validation.select]
    #[arg(long, value_enum, value_name = "loss|humaneval")]
    pub select: Option<Select>,
    /// Problems for --select humaneval: HumanEval.jsonl(.gz), or what `trainer exercises` writes
    #[arg(long, value_name = "FILE")]
    pub problems: Option<PathBuf>,
    /// Profile this many steps, after 3 warm-up steps: a trace in RUN/profile.json, for ui.perfetto.dev, and a table by part
    #[arg(long, value_name = "STEPS", value_parser = steps)]
    pub profile: Option<u64>,
    /// With several devices, what they divide among them: 0 nothing, 1 optimizer state, 2 gradients too [default: train.zero, 1]
    #[arg(long, value_name = "0|1|2", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub zero: Option<u8>,
    /// With several devices, seconds after which one that does not arrive ends the run
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0, value_parser = seconds)]
    pub timeout: f64,
    /// With several devices, what moves numbers between them: NCCL, or the hosts' memory [auto: nccl on CUDA, else host]
    #[arg(long, value_enum, value_name = "auto|nccl|host", default_value = "auto")]
    pub collectives: Collectives,
    /// With several devices, wait for each exchange where it begins: to see what their overlap with the backward pass gains
    #[arg(long)]
    pub no_overlap: bool,
    /// With several devices, folder for a log of each
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// Print the result as one JSON object at the end
    #[arg(long)]
    pub json: bool,
}

/// What moves numbers between devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Collectives {
    /// NCCL on CUDA, where there are several devices.
    #[default]
    Auto,
    /// NCCL, also on a single device.
    Nccl,
    Host,
}
