//! The configuration of a run: presets, then a file, then `--set table.key=value`, resolved into one validated struct.
//!
//! What is written (`parsed`: everything optional) and what is used (`Config`: no options left) are two types.
//! README's table of configuration keys says what each is for; `keys` holds what each may be.

mod keys;
mod layers;
mod parsed;
mod precision;
mod recompute;
mod select;
mod spikes;
mod suggest;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use keys::MAX_STEPS;
pub use layers::preset_names;
pub use precision::Precision;
pub use recompute::Recompute;
pub use select::Select;
pub use spikes::{SpikePolicy, Spikes};
pub use suggest::nearest;

use crate::error::{Error, Result};
use crate::model::architecture::Architecture;
use layers::Layers;
use parsed::{
    Parsed, ParsedCheckpoint, ParsedData, ParsedModel, ParsedOptimizer, ParsedSpikes, ParsedTrain, ParsedValidation,
};

/// Everything that decides a run, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub model: Model,
    pub data: Data,
    pub optimizer: Optimizer,
    pub train: Train,
    pub validation: Validation,
    pub checkpoint: Checkpoint,
    pub spikes: Spikes,
}

/// `[model]`: the architecture and its dropout.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    /// Width of the MLP's inner layer. Default 4 x hidden.
    pub mlp: usize,
    pub vocab: usize,
    /// Tokens a sequence (T).
    pub seq_len: usize,
    /// Dimensions of each head that rotary embedding turns. Default: the largest even number within half of the head.
    pub rotary_dim: usize,
    /// Default 10000.
    pub rope_theta: f64,
    /// Default 1e-5.
    pub norm_eps: f64,
    /// Probability of zeroing an element of the embedding. Default 0: the paper names attention and residual only.
    pub embedding_dropout: f64,
    /// Probability of zeroing an attention weight. Default: `dropout`.
    pub attention_dropout: f64,
    /// Probability of zeroing an element of what attention and MLP add to the residual. Default: `dropout`.
    pub residual_dropout: f64,
}

/// `[data]`
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// The folder that `trainer prepare` wrote. Default "data"; `--data` sets it.
    pub path: PathBuf,
    /// Seed of the order of sequences within an epoch. Default 0.
    pub seed: u64,
}

/// `[optimizer]`: AdamW with linear warm-up and linear decay to 0 at the last step.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    /// Peak learning rate.
    pub lr: f64,
    /// Steps of linear warm-up; it may exceed the number of steps. Default 0.
    pub warmup_steps: u64,
    /// Of tensors with two dimensions only. Default 0.1.
    pub weight_decay: f64,
    /// Default 0.9.
    pub beta1: f64,
    /// Default 0.98.
    pub beta2: f64,
    /// Default 1e-7.
    pub eps: f64,
    /// Largest global norm of the gradient; 0 turns clipping off. Default 1.
    pub clip: f64,
}

/// `[train]`
#[derive(Clone, Debug, PartialEq)]
pub struct Train {
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// Sequences an optimizer step, over all devices: the effective batch. A multiple of `micro_batch`.
    pub batch: usize,
    /// Sequences a forward and backward pass on one device. Default: `batch`.
    pub micro_batch: usize,
    /// Default fp32.
    pub precision: Precision,
    /// Seed of the initial weights and of dropout. Default 0.
    pub seed: u64,
    /// What the backward pass computes again in place of keeping it. Default none.
    pub recompute: Recompute,
    /// Stage of ZeRO, 0 to 2: what the ranks divide among them where there are several. Default 1.
    pub zero: u8,
    /// Initial loss scale of fp16. Default 65536.
    pub loss_scale: f64,
}

/// `[validation]`
#[derive(Clone, Debug, PartialEq)]
pub struct Validation {
    /// Steps between validations; 0 means none. Default 0.
    pub every: u64,
    /// Micro-batches of the validation part that are evaluated; 0 means all of it. Default 0.
    pub batches: usize,
    /// Beginnings out of the validation part that the model continues at each validation, for people to look at. Default 2.
    pub samples: usize,
    /// What makes a checkpoint the best one. Default loss; `--select` sets it.
    pub select: Select,
    /// Problems in HumanEval's format, for `select = "humaneval"`; `--problems` sets it.
    pub problems: Option<PathBuf>,
}

/// `[checkpoint]`. The last step is always saved.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Steps between checkpoints; 0 means only at the end. Default 0.
    pub every: u64,
    /// How many of the newest are kept. Default 2.
    pub keep_last: usize,
    /// Checkpoints whose step is a multiple of this are never removed; 0 means none. Default 0.
    pub keep_every: u64,
    /// Minutes of training between checkpoints, beside `every`; 0 means none. Default 0.
    pub every_minutes: f64,
    /// Of every so many hours of training the first checkpoint is never removed; 0 means none. Default 0.
    pub keep_hours: f64,
}

impl Config {
    /// Lays the preset, the file and then each of `sets` ("table.key=value") over one another and validates the whole.
    ///
    /// A file may name the preset that it builds on (`inherits = "phi-1"`); `preset` then replaces that one.
    ///
    /// # Errors
    /// `Error::Input` for an unknown preset, table or key (the nearest name is suggested), for a value of the wrong type
    /// or out of range (key, value, origin and what is allowed are named), for a required key that is missing and for
    /// keys that contradict each other; `Error::File` for a file that is not there or no text; `Error::Io` if it cannot be
    /// read.
    pub fn resolve(preset: Option<&str>, file: Option<&Path>, sets: &[String]) -> Result<Self> {
        if preset.is_none() && file.is_none() {
            let names: Vec<_> = preset_names().collect();
            let message = format!("no configuration: give --preset ({}) or --config FILE", names.join(", "));
            return Err(Error::input(message));
        }
        let mut layers = Layers::default();
        if let Some(name) = preset {
            layers.add_preset(name)?;
        }
        if let Some(path) = file {
            layers.add_file(path)?;
        }
        for set in sets {
            layers.add_set(set)?;
        }
        Self::from_layers(&layers)
    }

    fn from_layers(layers: &Layers) -> Result<Self> {
        let Parsed { model, data, optimizer, train, validation, checkpoint, spikes } = layers.parsed()?;
        let default = Spikes::default();
        let dropout = model.dropout.unwrap_or(0.0);
        let (hidden, heads) = (required(model.hidden, "model.hidden")?, required(model.heads, "model.heads")?);
        let batch = required(train.batch, "train.batch")?;
        let config = Self {
            model: Model {
                layers: required(model.layers, "model.layers")?,
                hidden,
                heads,
                mlp: model.mlp.unwrap_or(4 * hidden),
                vocab: required(model.vocab, "model.vocab")?,
                seq_len: required(model.seq_len, "model.seq_len")?,
                rotary_dim: model.rotary_dim.unwrap_or(hidden / heads / 4 * 2),
                rope_theta: model.rope_theta.unwrap_or(10_000.0),
                norm_eps: model.norm_eps.unwrap_or(1e-5),
                embedding_dropout: model.embedding_dropout.unwrap_or(0.0),
                attention_dropout: model.attention_dropout.unwrap_or(dropout),
                residual_dropout: model.residual_dropout.unwrap_or(dropout),
            },
            data: Data { path: data.path.unwrap_or_else(|| "data".into()).into(), seed: data.seed.unwrap_or(0) },
            optimizer: Optimizer {
                lr: required(optimizer.lr, "optimizer.lr")?,
                warmup_steps: optimizer.warmup_steps.unwrap_or(0),
                weight_decay: optimizer.weight_decay.unwrap_or(0.1),
                beta1: optimizer.beta1.unwrap_or(0.9),
                beta2: optimizer.beta2.unwrap_or(0.98),
                eps: optimizer.eps.unwrap_or(1e-7),
                clip: optimizer.clip.unwrap_or(1.0),
            },
            train: Train {
                steps: required(train.steps, "train.steps")?,
                batch,
                micro_batch: train.micro_batch.unwrap_or(batch),
                precision: train.precision.unwrap_or(Precision::Fp32),
                seed: train.seed.unwrap_or(0),
                recompute: train.recompute.unwrap_or_default(),
                zero: train.zero.unwrap_or(1),
                loss_scale: train.loss_scale.unwrap_or(65_536.0),
            },
            validation: Validation {
                every: validation.every.unwrap_or(0),
                batches: validation.batches.unwrap_or(0),
                samples: validation.samples.unwrap_or(2),
                select: validation.select.unwrap_or_default(),
                problems: validation.problems.map(PathBuf::from),
            },
            checkpoint: Checkpoint {
                every: checkpoint.every.unwrap_or(0),
                keep_last: checkpoint.keep_last.unwrap_or(2),
                keep_every: checkpoint.keep_every.unwrap_or(0),
                every_minutes: checkpoint.every_minutes.unwrap_or(0.0),
                keep_hours: checkpoint.keep_hours.unwrap_or(0.0),
            },
            spikes: Spikes {
                policy: spikes.policy.unwrap_or(default.policy),
                threshold: spikes.threshold.unwrap_or(default.threshold),
                window: spikes.window.unwrap_or(default.window),
                limit: spikes.limit.unwrap_or(default.limit),
            },
        };
        config.validate(layers)?;
        Ok(config)
    }

    /// What no key can decide on its own.
    fn validate(&self, layers: &Layers) -> Result<()> {
        self.architecture().validate().map_err(|error| {
            let named = ["heads", "hidden", "mlp", "rotary_dim"];
            let origins: Vec<_> = named.iter().filter_map(|name| layers.describe("model", name)).collect();
            Error::input(format!("{error} [{}]", origins.join(", ")))
        })?;
        let m = &self.model;
        let rates = [
            ("embedding_dropout", m.embedding_dropout),
            ("attention_dropout", m.attention_dropout),
            ("residual_dropout", m.residual_dropout),
        ];
        // Masks are decided by one random byte an element (backends/src/dropout.rs).
        if let Some((name, rate)) =
            rates.into_iter().find(|(_, rate)| *rate > 0.0 && !(1.0..=255.0).contains(&(rate * 256.0).round()))
        {
            return Err(Error::input(format!(
                "model.{name} is {rate}: dropout is applied in steps of 1/256, so it must be 0 or between 0.002 and 0.998"
            )));
        }
        let v = &self.validation;
        if v.select == Select::Humaneval && (v.problems.is_none() || v.every == 0) {
            return Err(Error::input(
                "validation.select is humaneval: give the problems too (--problems FILE, or validation.problems), and \
                 validate (validation.every above 0)",
            ));
        }
        let Train { batch, micro_batch, .. } = self.train;
        if !batch.is_multiple_of(micro_batch) {
            let origins: Vec<_> =
                ["batch", "micro_batch"].iter().filter_map(|name| layers.describe("train", name)).collect();
            return Err(Error::input(format!(
                "train.batch {batch} is not a multiple of train.micro_batch {micro_batch}: the nearest choices are {} [{}]",
                nearest_batches(batch, micro_batch),
                origins.join(", ")
            )));
        }
        Ok(())
    }

    /// The decoder that this configuration trains.
    pub fn architecture(&self) -> Architecture {
        let m = &self.model;
        Architecture {
            layers: m.layers,
            hidden: m.hidden,
            heads: m.heads,
            mlp: m.mlp,
            vocab: m.vocab,
            rotary_dim: m.rotary_dim,
            rope_theta: m.rope_theta,
            norm_eps: m.norm_eps,
            context: m.seq_len,
        }
    }

    /// Micro-batches an optimizer step, over all devices.
    pub fn accumulation(&self) -> usize {
        self.train.batch / self.train.micro_batch
    }

    /// Tokens an optimizer step.
    pub fn tokens_per_step(&self) -> u64 {
        self.train.batch as u64 * self.model.seq_len as u64
    }

    /// The whole configuration as TOML: read back as a file, it resolves to an equal `Config`.
    ///
    /// # Errors
    /// `Error::Input` if `data.path` is not UTF-8 (only a caller that replaced the path can cause it).
    pub fn to_toml(&self) -> Result<String> {
        let Self { model: m, data: d, optimizer: o, train: t, validation: v, checkpoint: c, spikes: s } = self;
        let uniform = m.attention_dropout == m.residual_dropout;
        let parsed = Parsed {
            model: ParsedModel {
                layers: Some(m.layers),
                hidden: Some(m.hidden),
                heads: Some(m.heads),
                mlp: Some(m.mlp),
                vocab: Some(m.vocab),
                seq_len: Some(m.seq_len),
                rotary_dim: Some(m.rotary_dim),
                rope_theta: Some(m.rope_theta),
                norm_eps: Some(m.norm_eps),
                dropout: uniform.then_some(m.residual_dropout),
                embedding_dropout: Some(m.embedding_dropout),
                attention_dropout: (!uniform).then_some(m.attention_dropout),
                residual_dropout: (!uniform).then_some(m.residual_dropout),
            },
            data: ParsedData { path: Some(written_path(&d.path)?), seed: Some(d.seed) },
            optimizer: ParsedOptimizer {
                lr: Some(o.lr),
                warmup_steps: Some(o.warmup_steps),
                weight_decay: Some(o.weight_decay),
                beta1: Some(o.beta1),
                beta2: Some(o.beta2),
                eps: Some(o.eps),
                clip: Some(o.clip),
            },
            train: ParsedTrain {
                steps: Some(t.steps),
                batch: Some(t.batch),
                micro_batch: Some(t.micro_batch),
                precision: Some(t.precision),
                seed: Some(t.seed),
                recompute: Some(t.recompute),
                zero: Some(t.zero),
                loss_scale: Some(t.loss_scale),
            },
            validation: ParsedValidation {
                every: Some(v.every),
                batches: Some(v.batches),
                samples: Some(v.samples),
                select: Some(v.select),
                problems: v.problems.as_deref().map(written_path).transpose()?,
            },
            checkpoint: ParsedCheckpoint {
                every: Some(c.every),
                keep_last: Some(c.keep_last),
                keep_every: Some(c.keep_every),
                every_minutes: Some(c.every_minutes),
                keep_hours: Some(c.keep_hours),
            },
            spikes: ParsedSpikes {
                policy: Some(s.policy),
                threshold: Some(s.threshold),
                window: Some(s.window),
                limit: Some(s.limit),
            },
        };
        toml::to_string(&parsed).map_err(|error| Error::input(format!("configuration: {error}")))
    }
}

fn written_path(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::input(format!("path {}: it must be UTF-8 to be written to config.toml", path.display())))
}

fn required<T>(value: Option<T>, key: &str) -> Result<T> {
    value.ok_or_else(|| {
        let hint = "set it in the file or with --set, or build on a preset (--preset, or inherits = \"phi-1\")";
        Error::input(format!("{key} is missing: {hint}"))
    })
}

/// The batches that fit the micro-batch, and the micro-batch that fits the batch.
fn nearest_batches(batch: usize, micro_batch: usize) -> String {
    let below = batch / micro_batch * micro_batch;
    let above = below + micro_batch;
    let divisor = (1..=micro_batch.min(batch)).rev().find(|d| batch.is_multiple_of(*d)).unwrap_or(1);
    match below {
        0 => format!("train.batch {above}, or train.micro_batch {divisor}"),
        _ => format!("train.batch {below} or {above}, or train.micro_batch {divisor}"),
    }
}
