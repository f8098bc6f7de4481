//! The command line: what may be typed. What it means is decided in the file of each command.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use trainer_backends::discovery::Request;
use trainer_backends::selftest::Group;

use crate::config::{Precision, Recompute};
use crate::data::dataset::Split;
use crate::parallel::scaling::{self, GPUS, Gpu};

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
    /// Measure a model's loss, perplexity and bits a byte on prepared data or text
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
    /// Prepared folder, token shard, or text as `prepare` reads it, which the model's own tokenizer then encodes
    #[arg(long, value_name = "DIR|FILE", required_unless_present = "text", conflicts_with = "text")]
    pub data: Option<PathBuf>,
    /// File of plain text, whatever its name; - is standard input
    #[arg(long, value_name = "FILE|-")]
    pub text: Option<PathBuf>,
    /// Part of a prepared folder
    #[arg(long, value_enum, default_value = "val")]
    pub split: SplitName,
    /// Sequences a forward pass
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    pub batch: usize,
    /// Tokens a window [default: the model's context, or all of the data where that is shorter]
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
    /// Print {"loss": nats a token, "perplexity", "bits_per_byte", "tokens", "bytes"} and more as one JSON object
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
    /// Text to complete (may be repeated) [default: read from standard input]
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_file", allow_hyphen_values = true)]
    pub prompt: Vec<String>,
    /// File with the text to complete (may be repeated); - is standard input
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Vec<PathBuf>,
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
    /// Completions of each prompt
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub samples: usize,
    /// Text that ends a completion, and is not part of it (may be repeated)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
    /// Completions that are made at a time
    #[arg(long, value_name = "N", default_value_t = crate::eval::generate::Generation::BATCH, value_parser = positive)]
    pub batch: usize,
    /// Number format of weights and cache: fp16 and bf16 halve what each token reads, where the device has them
    #[arg(long, value_enum, default_value = "fp32")]
    pub precision: Precision,
    /// Compute the whole sequence again for each token instead of keeping keys and values
    #[arg(long)]
    pub no_cache: bool,
    /// Print the completions as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct ExercisesArgs {
    /// Directory to write: train.jsonl for `prepare`, held-out.jsonl in HumanEval's format
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Exercises to train on
    #[arg(long, value_name = "N", default_value_t = 75_000)]
    pub count: u64,
    /// Exercises that are held out
    #[arg(long, value_name = "N", default_value_t = 192)]
    pub held_out: usize,
    /// Seed of both
    #[arg(long, value_name = "N", default_value_t = 0)]
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
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Sampling")]
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
    /// GPU to tell step time, days and GPU-hours for
    #[arg(long, value_name = "NAME", value_parser = gpu)]
    pub gpu: Option<Gpu>,
    /// Machines that the devices are divided over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..), requires = "gpu")]
    pub nodes: u64,
    /// What one machine sends to the others, in Gbit/s
    #[arg(long, value_name = "GBIT", default_value_t = 200.0, value_parser = above_zero, requires = "gpu")]
    pub network: f64,
    /// FLOPs a second over the GPU's peak in a step, communication aside
    #[arg(long, value_name = "SHARE", default_value_t = scaling::MFU, value_parser = share, requires = "gpu")]
    pub mfu: f64,
    /// Optimizer steps to tell the time of (may be repeated) [default: the configuration's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), requires = "gpu")]
    pub steps: Vec<u64>,
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

/// 5GB is 5 * 10^9 bytes and 5GiB is 5 * 2^30, as in transformers' `max_shard_size`.
fn byte_size(text: &str) -> Result<u64, String> {
    let size = text.trim().parse().map(|size: ByteSize| size.as_u64()).ok().filter(|bytes| *bytes > 0);
    size.ok_or_else(|| "expected a size above 0, such as 5GB, 500MB or 2GiB".into())
}

fn fraction(text: &str) -> Result<f64, String> {
    number(text, "a number of at least 0 and less than 1", |x| (0.0..1.0).contains(&x))
}

fn seconds(text: &str) -> Result<f64, String> {
    number(text, "a number above 0 and at most 1000000", |x| x > 0.0 && x <= 1e6)
}

fn gpu(text: &str) -> Result<Gpu, String> {
    let known = || GPUS.map(|gpu| gpu.name).join(", ");
    GPUS.into_iter().find(|gpu| gpu.name == text).ok_or_else(|| format!("expected one of {}", known()))
}

fn above_zero(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0);
    value.ok_or_else(|| "expected a number above 0".into())
}

fn share(text: &str) -> Result<f64, String> {
    above_zero(text).ok().filter(|value| *value <= 1.0).ok_or_else(|| "expected a number above 0, at most 1".into())
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
