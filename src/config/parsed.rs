//! A configuration as it is written: every key optional, unknown ones refused.

use serde::{Deserialize, Serialize};

use super::precision::Precision;
use super::recompute::Recompute;
use super::select::Select;
use super::spikes::SpikePolicy;

/// What a configuration file holds. The same type writes files: a key that is `None` is left out.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Parsed {
    pub model: ParsedModel,
    pub data: ParsedData,
    pub optimizer: ParsedOptimizer,
    pub train: ParsedTrain,
    pub validation: ParsedValidation,
    pub checkpoint: ParsedCheckpoint,
    pub spikes: ParsedSpikes,
}

/// A table whose fields are all `Option`, skipped when `None`.
macro_rules! table {
    ($name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        #[derive(Debug, Default, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name {
            $(#[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }
    };
}

table!(ParsedModel {
    layers: usize,
    hidden: usize,
    heads: usize,
    mlp: usize,
    vocab: usize,
    seq_len: usize,
    rotary_dim: usize,
    rope_theta: f64,
    norm_eps: f64,
    dropout: f64,
    embedding_dropout: f64,
    attention_dropout: f64,
    residual_dropout: f64,
});

table!(ParsedData { path: String, seed: u64 });

table!(ParsedOptimizer { lr: f64, warmup_steps: u64, weight_decay: f64, beta1: f64, beta2: f64, eps: f64, clip: f64 });

table!(ParsedTrain {
    steps: u64,
    batch: usize,
    micro_batch: usize,
    precision: Precision,
    seed: u64,
    recompute: Recompute,
    zero: u8,
    loss_scale: f64,
});

table!(ParsedValidation { every: u64, batches: usize, samples: usize, select: Select, problems: String });

table!(ParsedCheckpoint { every: u64, keep_last: usize, keep_every: u64, every_minutes: f64, keep_hours: f64 });

table!(ParsedSpikes { policy: SpikePolicy, threshold: f64, window: usize, limit: usize });
