//! The command line: what may be typed. What it means is decided in the file of each command.

pub mod ceilings;
mod demo;
mod device;
mod estimate;
mod evaluate;
mod export;
mod generate;
mod humaneval;
mod prepare;
mod report;
mod sweep;
#[cfg(test)]
mod tests;
mod train;
mod value;
mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use trainer_backends::discovery::Request;

pub use demo::DemoArgs;
pub use device::{BenchArgs, DevicesArgs, SelftestArgs, TrialArgs};
pub use estimate::EstimateArgs;
pub use evaluate::EvaluateArgs;
pub use export::ExportArgs;
pub use generate::{GenerateArgs, LogitsArgs};
pub use humaneval::{ExercisesArgs, HumanevalArgs};
pub use prepare::PrepareArgs;
pub use report::{CompletionsArgs, ManArgs, ReportArgs, RunsArgs};
pub use sweep::SweepArgs;
pub use train::{Collectives, TrainArgs};
use value::{from_zero, positive};
pub use verify::VerifyArgs;

/// Trains phi-1-class code models on CUDA, WGPU or the CPU.
///
/// Without a command, trains a small model on built-in Python exercises and shows what it learned.
#[derive(Debug, Parser)]
#[command(name = "trainer", version, propagate_version = true, max_term_width = 120, mut_subcommands = adjusted)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// What to run on: auto takes CUDA where it is usable, else a hardware WGPU adapter, else the CPU
    #[arg(long, global = true, value_enum, default_value = "auto", help_heading = "Device")]
    pub backend: BackendName,
    /// Which of the backend's devices, as `trainer devices` numbers them [default: the best one]
    #[arg(long, global = true, value_name = "N", value_parser = from_zero, allow_negative_numbers = true, help_heading = "Device")]
    pub device: Option<usize>,
    /// Choices of kernels for this device, as `trainer sweep` prints them (may be repeated)
    #[arg(long, global = true, value_name = "NAME=VALUE", value_delimiter = ',', help_heading = "Device")]
    pub tune: Vec<String>,
    /// Devices that train together, or that estimate is asked about [default: 1, or what mpirun or srun started]
    #[arg(long, global = true, value_name = "N", value_parser = positive, allow_negative_numbers = true, help_heading = "Device")]
    pub devices: Option<usize>,
}

/// What holds for every command, said in one place.
fn adjusted(command: clap::Command) -> clap::Command {
    let unused: &[&str] = match command.get_name() {
        "train" => &[],
        "estimate" => &["backend", "device", "tune"],
        "prepare" | "exercises" | "export" | "devices" | "report" | "runs" | "verify" | "completions" | "man" => {
            &["backend", "device", "tune", "devices"]
        }
        _ => &["devices"],
    };
    // Not shown, but taken as before the command: scripts give all commands the same options.
    let global = Global::augment_args(clap::Command::new("trainer"));
    let hidden = global.get_arguments().filter(|option| unused.contains(&option.get_id().as_str()));
    let hidden: Vec<_> = hidden.map(|option| option.clone().hide(true)).collect();
    // `--temperature -1` is a wrong temperature, not an unknown option.
    let takes_number = |arg: &clap::Arg| !arg.is_positional() && arg.get_action().takes_values();
    command.mut_args(|arg| if takes_number(&arg) { arg.allow_negative_numbers(true) } else { arg }).args(hidden)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendName {
    Auto,
    Cuda,
    Wgpu,
    Cpu,
}

impl From<BackendName> for Request {
    fn from(name: BackendName) -> Self {
        match name {
            BackendName::Auto => Self::Auto,
            BackendName::Cuda => Self::Cuda,
            BackendName::Wgpu => Self::Wgpu,
            BackendName::Cpu => Self::Cpu,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train the demo model on built-in exercises (what no command does)
    Demo(DemoArgs),
    /// Tokenise text and code into shards for training
    Prepare(PrepareArgs),
    /// Train a model, or go on with a run
    Train(TrainArgs),
    /// Measure a model's loss, perplexity and bits per byte on prepared data or text
    Evaluate(EvaluateArgs),
    /// Write a model's logits for given tokens, to compare with other frameworks
    Logits(LogitsArgs),
    /// Complete a prompt
    Generate(GenerateArgs),
    /// Write the built-in exercises: a corpus to train on, and problems that are not in it
    Exercises(ExercisesArgs),
    /// Sample HumanEval's problems, or score samples by running them, confined: pass@k
    Humaneval(HumanevalArgs),
    /// Write a run, checkpoint or model as a Hugging Face directory
    Export(ExportArgs),
    /// Estimate a configuration's parameters, FLOPs and memory
    Estimate(EstimateArgs),
    /// List the devices of this machine, and which one auto takes
    Devices(DevicesArgs),
    /// Write the curves of one or several runs as an HTML page
    Report(ReportArgs),
    /// List the runs below a folder, and how each stands
    Runs(RunsArgs),
    /// Check that a run, checkpoint, data set, token shard or model is whole
    Verify(VerifyArgs),
    /// Time training steps on random tokens
    Bench(BenchArgs),
    /// Time each kernel's tuning options, checking results first
    Sweep(SweepArgs),
    /// Compare every operation of a device with the reference, and ten training steps with the CPU's
    Selftest(SelftestArgs),
    /// Try out a GPU's kernels in CUDA C++ again, each family in a process of its own, as the first start on a GPU does
    Trial(TrialArgs),
    /// Print the completions of a shell, for its completion folder or for `source`
    Completions(CompletionsArgs),
    /// Print the man page, or write one for every command
    Man(ManArgs),
}

/// Which configuration, and what of it to change.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// Built-in configuration: phi-1, phi-1-small, phi-1-finetune, laptop, laptop-finetune or demo
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Configuration file (TOML); with --preset, it overrides the preset
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override one key, as in --set train.steps=20 --set optimizer.lr=3e-4 (may be repeated)
    #[arg(long = "set", value_name = "TABLE.KEY=VALUE")]
    pub sets: Vec<String>,
}
