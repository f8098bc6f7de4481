//! What makes a checkpoint the best one.

use serde::{Deserialize, Serialize};

/// What makes a checkpoint the best one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Select {
    /// The lowest validation loss.
    #[default]
    Loss,
    /// The most problems solved by the likeliest completion (pass@1); of equals, the lowest validation loss.
    Humaneval,
}

impl Select {
    /// The names that configuration files and the command line use.
    pub const NAMES: [&'static str; 2] = ["loss", "humaneval"];

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
        assert_eq!(Select::value_variants().len(), Select::NAMES.len());
        for (select, name) in Select::value_variants().iter().zip(Select::NAMES) {
            assert_eq!(select.to_possible_value().map(|value| value.get_name().to_owned()).as_deref(), Some(name));
            assert_eq!((select.name(), serde_json::to_string(select).unwrap()), (name, format!("\"{name}\"")));
        }
    }
}
