//! Every key of a configuration and the values it may have: what errors are told from.

use std::fmt;

use super::precision::Precision;
use super::recompute::Recompute;
use super::select::Select;
use super::spikes::SpikePolicy;

/// What a key's value must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A whole number in `min..=max`.
    Whole { min: u64, max: u64 },
    /// A finite number of at least `min` (above it where `open`) and at most `max`.
    Real { min: f64, open: bool, max: f64 },
    /// A number of at least 0 and less than 1.
    Fraction,
    /// Any text that is not empty.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// One `table.name` of a configuration.
#[derive(Debug)]
pub(super) struct Key {
    pub table: &'static str,
    pub name: &'static str,
    pub kind: Kind,
}

const fn key(table: &'static str, name: &'static str, kind: Kind) -> Key {
    Key { table, name, kind }
}

const fn whole(min: u64, max: u64) -> Kind {
    Kind::Whole { min, max }
}

const fn above(min: f64, max: f64) -> Kind {
    Kind::Real { min, open: true, max }
}

const fn from(min: f64, max: f64) -> Kind {
    Kind::Real { min, open: false, max }
}

/// TOML integers are signed, so that a larger seed could not be written back.
const SEED: Kind = whole(0, i64::MAX as u64);
/// Steps are written with eight digits in checkpoint names.
pub const MAX_STEPS: u64 = 99_999_999;
/// The upper bounds of sizes keep every product of them (parameters, FLOPs, bytes) within u64.
const MAX_SIZE: u64 = 1 << 24;
const MAX_REAL: f64 = f32::MAX as f64;
/// Minutes or hours: no run lasts longer.
const MAX_TIME: f64 = 1e6;

/// All keys, in the order in which they are written.
pub(super) const KEYS: &[Key] = &[
    key("model", "layers", whole(1, 10_000)),
    key("model", "hidden", whole(1, 1 << 20)),
    key("model", "heads", whole(1, 1 << 20)),
    key("model", "mlp", whole(1, 1 << 22)),
    key("model", "vocab", whole(1, MAX_SIZE)),
    key("model", "seq_len", whole(1, MAX_SIZE)),
    key("model", "rotary_dim", whole(0, 1 << 20)),
    key("model", "rope_theta", above(0.0, MAX_REAL)),
    key("model", "norm_eps", above(0.0, 1.0)),
    key("model", "dropout", Kind::Fraction),
    key("model", "embedding_dropout", Kind::Fraction),
    key("model", "attention_dropout", Kind::Fraction),
    key("model", "residual_dropout", Kind::Fraction),
    key("data", "path", Kind::Text),
    key("data", "seed", SEED),
    key("optimizer", "lr", above(0.0, MAX_REAL)),
    key("optimizer", "warmup_steps", whole(0, MAX_STEPS)),
    key("optimizer", "weight_decay", from(0.0, MAX_REAL)),
    key("optimizer", "beta1", Kind::Fraction),
    key("optimizer", "beta2", Kind::Fraction),
    // Below fp32's normal numbers it would be zero in the update, whose divisor it guards.
    key("optimizer", "eps", from(1e-30, 1.0)),
    key("optimizer", "clip", from(0.0, MAX_REAL)),
    key("train", "steps", whole(1, MAX_STEPS)),
    key("train", "batch", whole(1, MAX_SIZE)),
    key("train", "micro_batch", whole(1, MAX_SIZE)),
    key("train", "precision", Kind::Choice(&Precision::NAMES)),
    key("train", "seed", SEED),
    key("train", "recompute", Kind::Choice(&Recompute::NAMES)),
    key("train", "zero", whole(0, 2)),
    key("train", "loss_scale", from(1.0, MAX_REAL)),
    key("validation", "every", whole(0, MAX_STEPS)),
    key("validation", "batches", whole(0, MAX_SIZE)),
    key("validation", "samples", whole(0, 64)),
    key("validation", "select", Kind::Choice(&Select::NAMES)),
    key("validation", "problems", Kind::Text),
    key("checkpoint", "every", whole(0, MAX_STEPS)),
    key("checkpoint", "keep_last", whole(1, MAX_STEPS)),
    key("checkpoint", "keep_every", whole(0, MAX_STEPS)),
    key("checkpoint", "every_minutes", from(0.0, MAX_TIME)),
    key("checkpoint", "keep_hours", from(0.0, MAX_TIME)),
    key("spikes", "policy", Kind::Choice(&SpikePolicy::NAMES)),
    key("spikes", "threshold", above(0.0, MAX_REAL)),
    key("spikes", "window", whole(2, 1 << 16)),
    key("spikes", "limit", whole(0, 1 << 16)),
];

impl Kind {
    /// Whether `value` is of this kind and in its range. Whole numbers are taken where a real one is wanted.
    pub fn accepts(self, value: &toml::Value) -> bool {
        match self {
            Self::Whole { min, max } => {
                value.as_integer().and_then(|n| u64::try_from(n).ok()).is_some_and(|n| (min..=max).contains(&n))
            }
            Self::Real { min, open, max } => {
                real(value).is_some_and(|x| x.is_finite() && (x > min || !open && x == min) && x <= max)
            }
            Self::Fraction => real(value).is_some_and(|x| (0.0..1.0).contains(&x)),
            Self::Text => value.as_str().is_some_and(|text| !text.is_empty()),
            Self::Choice(words) => value.as_str().is_some_and(|text| words.contains(&text)),
        }
    }

    /// Whether a value from the command line is text and so needs no quotes.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Choice(_))
    }
}

fn real(value: &toml::Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|n| n as f64))
}

/// What is allowed, to follow "it must be".
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole { min, max } if *max == i64::MAX as u64 => write!(f, "a whole number of at least {min}"),
            Self::Whole { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Real { min, open: true, max } if *max == MAX_REAL => write!(f, "a number above {min}"),
            Self::Real { min, open: false, max } if *max == MAX_REAL => write!(f, "a number of at least {min}"),
            Self::Real { min, open: true, max } => write!(f, "a number above {min} and at most {max}"),
            Self::Real { min: 0.0, open: false, max } => write!(f, "a number from 0 to {max}"),
            Self::Real { min, open: false, max } => write!(f, "a number from {min:e} to {max}"),
            Self::Fraction => write!(f, "a number of at least 0 and less than 1"),
            Self::Text => write!(f, "text that is not empty"),
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
        }
    }
}
