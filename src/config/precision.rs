//! The number formats that weights and activations can be trained and stored in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The dtype of weights and activations in a training step. Accumulation, layer norm, softmax, loss, residual stream,
/// master weights and moments are fp32 in all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats (IEEE binary32).
    Fp32,
    /// 16-bit floats (IEEE binary16); training has a dynamic loss scale.
    Fp16,
    /// bfloat16: binary32's range with 8 bits of precision.
    Bf16,
}

impl Precision {
    /// The names that configuration files and the command line use.
    pub const NAMES: [&'static str; 3] = ["fp32", "fp16", "bf16"];

    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes an element.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Fp32 => 4,
            Self::Fp16 | Self::Bf16 => 2,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn the_command_line_and_files_use_the_same_names() {
        for (precision, name) in Precision::value_variants().iter().zip(Precision::NAMES) {
            assert_eq!(precision.name(), name);
            assert_eq!(precision.to_possible_value().map(|value| value.get_name().to_owned()).as_deref(), Some(name));
            assert_eq!(serde_json::to_string(precision).unwrap(), format!("\"{name}\""));
        }
        assert_eq!(Precision::value_variants().len(), Precision::NAMES.len());
    }
}
