//! What the backward pass computes again.

use serde::{Deserialize, Serialize};

/// What a block's backward pass computes again from what its forward pass kept. The results are the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Nothing: everything is kept.
    #[default]
    None,
    /// What costs one pass over memory: layer norm and GELU. A third less is kept in fp16.
    Activation,
    /// The whole block, from its input: about a fifth more products.
    Block,
}

impl Recompute {
    /// The names that configuration files and the command line use.
    pub const NAMES: [&'static str; 3] = ["none", "activation", "block"];

    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn the_command_line_and_files_use_the_same_names() {
        assert_eq!(Recompute::value_variants().len(), Recompute::NAMES.len());
        for (recompute, name) in Recompute::value_variants().iter().zip(Recompute::NAMES) {
            assert_eq!(recompute.to_possible_value().map(|value| value.get_name().to_owned()).as_deref(), Some(name));
            assert_eq!(recompute.name(), name);
            assert_eq!(serde_json::to_string(recompute).unwrap(), format!("\"{name}\""));
        }
    }
}
