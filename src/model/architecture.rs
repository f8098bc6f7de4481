//! The shape of a phi decoder: everything that decides its parameters and its function, nothing about training.

use crate::error::{Error, Result};

/// A phi-1-class decoder ("Textbooks Are All You Need", section 2.3; microsoft/phi-1's config.json).
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    pub layers: usize,
    /// Width of the residual stream (C).
    pub hidden: usize,
    pub heads: usize,
    /// Width of the MLP's inner layer; phi uses 4 x hidden.
    pub mlp: usize,
    pub vocab: usize,
    /// Dimensions of each head that rotary embedding turns; phi-1 turns 32 of 64.
    pub rotary_dim: usize,
    pub rope_theta: f64,
    pub norm_eps: f64,
    /// Longest sequence, in tokens.
    pub context: usize,
}

impl Architecture {
    /// A phi decoder with phi's own proportions: MLP 4 x hidden, half of each head rotated, theta 10000, eps 1e-5.
    pub fn phi(layers: usize, hidden: usize, heads: usize, vocab: usize, context: usize) -> Self {
        let rotary_dim = hidden.checked_div(heads).unwrap_or(0) / 4 * 2;
        Self {
            layers,
            hidden,
            heads,
            mlp: 4 * hidden,
            vocab,
            rotary_dim,
            rope_theta: 10_000.0,
            norm_eps: 1e-5,
            context,
        }
    }

    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Refuses shapes that no decoder can have.
    pub fn validate(&self) -> Result<()> {
        let positive = [
            ("layers", self.layers),
            ("hidden", self.hidden),
            ("heads", self.heads),
            ("mlp", self.mlp),
            ("vocab", self.vocab),
            ("context", self.context),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(Error::input(format!("model.{name} is 0: it must be at least 1")));
        }
        if !self.hidden.is_multiple_of(self.heads) {
            return Err(Error::input(format!(
                "model.hidden {} is not a multiple of model.heads {}: choose hidden = heads x head dimension",
                self.hidden, self.heads
            )));
        }
        let head_dim = self.head_dim();
        if !self.rotary_dim.is_multiple_of(2) || self.rotary_dim > head_dim {
            return Err(Error::input(format!(
                "rotary dimension {} must be even and at most the head dimension {head_dim}",
                self.rotary_dim
            )));
        }
        if !(self.norm_eps > 0.0 && self.rope_theta > 0.0) {
            return Err(Error::input("layer norm eps and rope theta must be positive".to_string()));
        }
        Ok(())
    }

    /// The keys of `[model]` in which this decoder and another differ, with the value of each.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let whole = [
            ("layers", self.layers, other.layers),
            ("hidden", self.hidden, other.hidden),
            ("heads", self.heads, other.heads),
            ("mlp", self.mlp, other.mlp),
            ("vocab", self.vocab, other.vocab),
            ("rotary_dim", self.rotary_dim, other.rotary_dim),
            ("seq_len", self.context, other.context),
        ]
        .map(|(key, this, other)| Difference { key, this: this.to_string(), other: other.to_string() });
        let real = [("rope_theta", self.rope_theta, other.rope_theta), ("norm_eps", self.norm_eps, other.norm_eps)]
            .map(|(key, this, other)| Difference { key, this: format!("{this:?}"), other: format!("{other:?}") });
        whole.into_iter().chain(real).filter(|difference| difference.this != difference.other).collect()
    }

    /// Number of weights and biases.
    pub fn parameters(&self) -> u64 {
        let (c, f, v, l) = (self.hidden as u64, self.mlp as u64, self.vocab as u64, self.layers as u64);
        let block = 4 * (c * c + c) + (c * f + f) + (f * c + c) + 2 * c;
        v * c + l * block + 2 * c + v * c + v
    }

    /// Parameters that take part in a matrix product per token: all 2-d tensors but the embedding table.
    pub fn matmul_parameters(&self) -> u64 {
        let (c, f, v, l) = (self.hidden as u64, self.mlp as u64, self.vocab as u64, self.layers as u64);
        l * (4 * c * c + 2 * c * f) + v * c
    }

    /// Training FLOPs a token at sequence length `seq`: 6 x matmul parameters + 12 x layers x hidden x seq
    /// (the full-attention convention of PaLM, appendix B, which counts the masked half too).
    pub fn flops_per_token(&self, seq: usize) -> f64 {
        6.0 * self.matmul_parameters() as f64 + 12.0 * (self.layers * self.hidden * seq) as f64
    }
}

/// A key of `[model]` and its two values, as a configuration has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Without the table's name: `layers`.
    pub key: &'static str,
    pub this: String,
    pub other: String,
}

impl Difference {
    /// "layers 4, hidden 128", and the same of the other decoder.
    pub fn told(differences: &[Self]) -> [String; 2] {
        let listed = |value: fn(&Self) -> &str| {
            let values: Vec<_> = differences.iter().map(|found| format!("{} {}", found.key, value(found))).collect();
            values.join(", ")
        };
        [listed(|found| found.this.as_str()), listed(|found| found.other.as_str())]
    }

    /// The options that give a configuration this decoder's values: "--set model.layers=4 --set model.hidden=128".
    pub fn sets(differences: &[Self]) -> String {
        let sets: Vec<_> =
            differences.iter().map(|found| format!("--set model.{}={}", found.key, found.this)).collect();
        sets.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phi_1_has_the_papers_size() {
        let phi_1 = Architecture::phi(24, 2048, 32, 51_200, 2048);
        assert_eq!(phi_1.parameters(), 1_418_270_720);
        assert_eq!(phi_1.rotary_dim, 32);
        assert!((phi_1.flops_per_token(2048) / 1e9 - 9.085).abs() < 1e-3);
        assert_eq!(Architecture::phi(20, 1024, 16, 51_200, 2048).parameters(), 356_794_368);
    }

    #[test]
    fn differences_are_told_as_a_configuration_has_them() {
        let (this, other) = (Architecture::phi(4, 128, 2, 512, 64), Architecture::phi(2, 128, 2, 512, 32));
        let differences = this.differences(&other);
        assert_eq!(Difference::told(&differences), ["layers 4, seq_len 64", "layers 2, seq_len 32"]);
        assert_eq!(Difference::sets(&differences), "--set model.layers=4 --set model.seq_len=64");
        assert!(this.differences(&this).is_empty());
        let eps = Architecture { norm_eps: 1e-6, ..this.clone() };
        assert_eq!(Difference::told(&this.differences(&eps)), ["norm_eps 1e-5", "norm_eps 1e-6"]);
    }

    #[test]
    fn impossible_shapes_are_refused() {
        assert!(Architecture::phi(2, 100, 3, 512, 64).validate().is_err());
        assert!(Architecture::phi(0, 128, 2, 512, 64).validate().is_err());
        assert!(Architecture { rotary_dim: 65, ..Architecture::phi(2, 128, 2, 512, 64) }.validate().is_err());
        assert!(Architecture::phi(2, 128, 2, 512, 64).validate().is_ok());
    }
}
