//! Model directories as Hugging Face transformers has them: config.json and safetensors, in and out.

mod config;
mod config_older;
mod config_write;
mod model_card;
mod read;
mod staging;
mod weight_layout;
mod write;

pub use config::{ModelConfig, other_model, read_architecture, read_config};
pub use config_write::{ConfigExtras, write_config};
pub use model_card::{Facts, ModelCard, README};
pub use read::WeightsReader;
pub use staging::Staging;
pub use weight_layout::{Source, WeightLayout, names_and_shapes};
pub use write::{DEFAULT_SHARD_BYTES, write_weights};

/// The one file of weights that are not sharded.
pub const SINGLE_FILE: &str = "model.safetensors";
/// Which shard holds which tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
pub const CONFIG_FILE: &str = "config.json";
