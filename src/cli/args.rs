//! The command line: what may be typed. What it means is decided in the file of each command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use trainer_backends::discovery::Request;
use trainer_backends::selftest::Group;

use crate::config::{Precision, Recompute};

#[cfg(test)]
mod tests;

/// Trains phi-1-class code models on CUDA, WGPU or the CPU.
///
/// Without a command, trains a small model on built-in Python exercises and shows what it learned.
#[derive(Debug, Parser)]
#[command(name = "trainer", version, propagate_version = true, max_term_width = 120)]
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
    #[arg(long, global = true, value_name = "N", help_heading = "Device")]
    pub device: Option<usize>,
    /// Devices that train together, or that estimate is asked about [default: 1, or what mpirun or srun started]
    #[arg(long, global = true, value_name = "N", value_parser = positive, help_heading = "Device")]
    pub devices: Option<usize>,
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
    /// Measure a model's loss and perplexity on prepared data
    Evaluate(EvaluateArgs),
    /// Write a model's logits for given tokens, to compare with other frameworks
    Logits(LogitsArgs),
    /// Complete a prompt
    Generate(GenerateArgs),
    /// Write a run, checkpoint or model as a Hugging Face directory
    Export(ExportArgs),
    /// Tell parameters, FLOPs and memory of a configuration, without training
    Estimate(EstimateArgs),
    /// List the devices of this machine, and which one auto takes
    Devices(DevicesArgs),
    /// Write the curves of one or several runs as an HTML page
    Report(ReportArgs),
    /// List the runs below a folder, and how each stands
    Runs(RunsArgs),
    /// Time training steps on random tokens
    Bench(BenchArgs),
    /// Hold every operation of a device against the reference, and ten training steps against the CPU
    Selftest(SelftestArgs),
    /// Print the completions of a shell, for its completion folder or for `source`
    Completions(CompletionsArgs),
    /// Print the man page, or write one for every command
    Man(ManArgs),
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// Run directory to write
    #[arg(long, value_name = "RUN", default_value = DemoArgs::OUT)]
    pub out: PathBuf,
    /// Optimizer steps [default: the demo preset's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Seed of the exercises, the weights and the order of the data
    #[arg(long, value_name = "N", default_value_t = 0)]
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

#[derive(Clone, Debug, Args)]
pub struct PrepareArgs {
    /// Folders, .py, .txt and .md files, .jsonl (also .gz, .zst), .parquet
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Folder to write the shards and the manifest to
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// codegen (built in, 50295 tokens), bytes, or a Hugging Face tokenizer.json
    #[arg(long, value_name = "codegen|bytes|FILE", default_value = "codegen")]
    pub tokenizer: String,
    /// Share of the documents that becomes the validation part, from 0 to less than 1
    #[arg(long, value_name = "F", default_value_t = 0.01, value_parser = fraction)]
    pub val_fraction: f64,
    /// Tokens a shard, at most
    #[arg(long, value_name = "N", default_value_t = 100_000_000, value_parser = clap::value_parser!(u64).range(1..=MAX_SHARD_TOKENS))]
    pub shard_tokens: u64,
    /// Field of .jsonl lines and column of .parquet files that holds the text [default: the first of text, content, code]
    #[arg(long, value_name = "NAME")]
    pub text_field: Option<String>,
    /// Seed of the split into training and validation documents
    #[arg(long, value_name = "N", default_value_t = 0)]
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

/// Which configuration, and what of it to change.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// Built-in configuration: phi-1, phi-1-small, phi-1-finetune, laptop or demo
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Configuration file (TOML); with --preset, it overrides the preset
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override one key, as in --set train.steps=20 --set optimizer.lr=3e-4 (may be repeated)
    #[arg(long = "set", value_name = "TABLE.KEY=VALUE")]
    pub sets: Vec<String>,
}

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

#[derive(Clone, Debug, Args)]
pub struct EvaluateArgs {
    /// Model: a Hugging Face directory, a checkpoint or a run
    #[arg(long, value_name = "MODEL")]
    pub model: PathBuf,
    /// Prepared folder (its validation part) or one token shard
    #[arg(long, value_name = "DIR|FILE.bin")]
    pub data: PathBuf,
    /// Sequences a forward pass
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    pub batch: usize,
    /// Tokens a sequence [default: the model's context]
    #[arg(long, value_name = "T", value_parser = positive)]
    pub seq_len: Option<usize>,
    /// Stop after this many batches [default: all of the data]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_batches: Option<usize>,
    /// Print {"loss": nats a token, "perplexity", "tokens"} as one JSON object
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
    /// Tokens a sequence
    #[arg(long, value_name = "T", value_parser = positive)]
    pub seq_len: usize,
    /// File to write: tensor "logits", f32 [N, T, vocabulary]
    #[arg(long, value_name = "FILE.safetensors")]
    pub out: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct GenerateArgs {
    /// Model: a Hugging Face directory, a checkpoint or a run
    #[arg(long, value_name = "MODEL")]
    pub model: PathBuf,
    /// Text to complete [default: read from standard input]
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_file", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// File with the text to complete; - is standard input
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,
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
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Completions of the prompt
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub samples: usize,
    /// Print the completions as one JSON object
    #[arg(long)]
    pub json: bool,
}

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
}

#[derive(Clone, Debug, Args)]
pub struct EstimateArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Number format of weights and activations [default: the configuration's]
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    /// Sequences a forward and backward pass on one device [default: the configuration's]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub micro_batch: Option<usize>,
    /// Micro-batches a step on each device [default: what makes up the configuration's batch]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub accumulate: Option<usize>,
    /// From the global option.
    #[arg(skip = 1usize)]
    pub devices: usize,
    /// Stage of ZeRO: what the devices divide among them, as in train [default: the configuration's]
    #[arg(long, value_name = "0|1|2", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub zero: Option<u8>,
    /// Print the estimate as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct DevicesArgs {
    /// Print the devices as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// Run directories; several are drawn over one another
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// HTML file to write [default: report.html in the first run]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Draw the losses into this PNG in place of writing the page
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "watch"])]
    pub png: Option<PathBuf>,
    /// Serve the page on 127.0.0.1 in place of writing it; it follows runs that go on, until Ctrl-C
    #[arg(long, conflicts_with = "out")]
    pub watch: bool,
    /// Port of --watch [default: 8642, or a free one where that is taken]
    #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
}

#[derive(Clone, Debug, Args)]
pub struct RunsArgs {
    /// Folder to look in, two levels deep
    #[arg(value_name = "DIR", default_value = "runs")]
    pub dir: PathBuf,
    /// Print the runs as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// Whose completions
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Folder to write trainer.1, trainer-train.1 and so on to
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct SelftestArgs {
    /// Only these operations, without the training steps: norm, activations, embedding, optimizer, linear, loss, attention
    #[arg(long, value_name = "GROUP", value_delimiter = ',', value_parser = group)]
    pub only: Vec<Group>,
    /// Seed of the inputs [default: drawn from the clock, and printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// Sizes of a built-in configuration, in place of the five size options
    #[arg(long, value_name = "NAME", conflicts_with_all = ["hidden", "layers", "heads", "vocab", "seq"])]
    pub preset: Option<String>,
    /// Width of the residual stream
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = positive)]
    pub hidden: usize,
    /// Blocks
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = positive)]
    pub layers: usize,
    /// Attention heads
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = positive)]
    pub heads: usize,
    /// Tokens of the vocabulary
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = positive)]
    pub vocab: usize,
    /// Tokens a sequence
    #[arg(long, value_name = "T", default_value_t = 256, value_parser = positive)]
    pub seq: usize,
    /// Sequences a forward and backward pass
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = positive)]
    pub micro_batch: usize,
    /// Micro-batches an optimizer step
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub accumulate: usize,
    /// Number format of weights and activations
    #[arg(long, value_enum, default_value = "fp32")]
    pub precision: Precision,
    /// Probability of attention and residual dropout, from 0 to less than 1
    #[arg(long, value_name = "P", default_value_t = 0.1, value_parser = fraction)]
    pub dropout: f64,
    /// What the backward pass computes again in place of keeping it
    #[arg(long, value_enum, default_value = "none")]
    pub recompute: Recompute,
    /// Timed optimizer steps
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = positive)]
    pub steps: usize,
    /// Optimizer steps before the timed ones
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub warmup: usize,
    /// Print tokens_per_s, step_ms_median, step_ms_min, step_ms_max, model_tflops, peak_gib, activation_gib, params and more as one JSON object
    #[arg(long)]
    pub json: bool,
}

fn group(text: &str) -> Result<Group, String> {
    let known = || Group::ALL.map(Group::name).join(", ");
    Group::ALL.into_iter().find(|group| group.name() == text).ok_or_else(|| format!("expected one of {}", known()))
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "expected a whole number of at least 1".into())
}

fn fraction(text: &str) -> Result<f64, String> {
    number(text, "a number of at least 0 and less than 1", |x| (0.0..1.0).contains(&x))
}

fn seconds(text: &str) -> Result<f64, String> {
    number(text, "a number above 0 and at most 1000000", |x| x > 0.0 && x <= 1e6)
}

fn temperature(text: &str) -> Result<f64, String> {
    number(text, "a number of at least 0", |x| x >= 0.0)
}

fn top_p(text: &str) -> Result<f64, String> {
    number(text, "a number above 0 and at most 1", |x| x > 0.0 && x <= 1.0)
}

fn number(text: &str, expected: &str, allowed: impl Fn(f64) -> bool) -> Result<f64, String> {
    text.parse().ok().filter(|x: &f64| x.is_finite() && allowed(*x)).ok_or_else(|| format!("expected {expected}"))
}
