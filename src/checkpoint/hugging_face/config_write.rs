//! Writing config.json and generation_config.json so that older and newer transformers load the model by themselves.

use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::CONFIG_FILE;
use crate::checkpoint::{element, storage};
use crate::error::{Error, Result};
use crate::model::architecture::Architecture;

/// What config.json says beside the model's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigExtras {
    /// Element type of the weights beside it.
    pub dtype: Dtype,
    pub bos_token_id: Option<u32>,
    /// Ends a generated text.
    pub eos_token_id: Option<u32>,
    pub residual_dropout: f64,
    pub embedding_dropout: f64,
    pub attention_dropout: f64,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
}

impl ConfigExtras {
    /// No dropout, no special tokens, phi's initial 0.02.
    pub fn new(dtype: Dtype) -> Self {
        Self {
            dtype,
            bos_token_id: None,
            eos_token_id: None,
            residual_dropout: 0.0,
            embedding_dropout: 0.0,
            attention_dropout: 0.0,
            initializer_range: 0.02,
        }
    }
}

/// Writes `dir/config.json` and `dir/generation_config.json`, each replaced in one go.
///
/// # Errors
/// If the dtype is not F32, F16 or BF16, the architecture is impossible, or the disk refuses.
pub fn write_config(dir: &Path, architecture: &Architecture, extras: &ConfigExtras) -> Result<()> {
    architecture.validate()?;
    let dtype = element::torch_name(extras.dtype).ok_or_else(|| {
        Error::input(format!("a model's weights are F32, F16 or BF16, found {}: convert them first", extras.dtype))
    })?;
    let Architecture { layers, hidden, heads, mlp, vocab, rope_theta, norm_eps, context, .. } = *architecture;
    let factor = rotary_factor(architecture.rotary_dim, architecture.head_dim());
    let config = json!({
        "architectures": ["PhiForCausalLM"],
        "attention_dropout": extras.attention_dropout,
        "bos_token_id": extras.bos_token_id,
        "dtype": dtype,
        "embd_pdrop": extras.embedding_dropout,
        "eos_token_id": extras.eos_token_id,
        "hidden_act": "gelu_new",
        "hidden_size": hidden,
        "initializer_range": extras.initializer_range,
        "intermediate_size": mlp,
        "layer_norm_eps": norm_eps,
        "max_position_embeddings": context,
        "model_type": "phi",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": heads,
        "pad_token_id": null,
        "partial_rotary_factor": factor,
        "qk_layernorm": false,
        "resid_pdrop": extras.residual_dropout,
        "rope_parameters": {"partial_rotary_factor": factor, "rope_theta": rope_theta, "rope_type": "default"},
        "rope_scaling": null,
        "rope_theta": rope_theta,
        "tie_word_embeddings": false,
        "torch_dtype": dtype,
        "use_cache": true,
        "vocab_size": vocab,
    });
    let mut generation = Map::new();
    generation.insert("_from_model_config".to_string(), json!(true));
    for (key, id) in [("bos_token_id", extras.bos_token_id), ("eos_token_id", extras.eos_token_id)] {
        generation.extend(id.map(|id| (key.to_string(), json!(id))));
    }
    storage::create_dir(dir)?;
    storage::replace_file(&dir.join(CONFIG_FILE), format!("{config:#}\n").as_bytes())?;
    let generation = Value::Object(generation);
    storage::replace_file(&dir.join("generation_config.json"), format!("{generation:#}\n").as_bytes())
}

/// The factor that gives back exactly `rotary_dim` when transformers truncates head_dim x factor.
pub(super) fn rotary_factor(rotary_dim: usize, head_dim: usize) -> f64 {
    let factor = rotary_dim as f64 / head_dim as f64;
    if (head_dim as f64 * factor) as usize == rotary_dim { factor } else { factor.next_up() }
}

#[cfg(test)]
mod tests {
    use super::super::read_config;
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        for dtype in element::WEIGHT_DTYPES {
            let architecture = Architecture {
                rope_theta: 12_345.5,
                norm_eps: 1e-6,
                mlp: 333,
                ..Architecture::phi(3, 192, 2, 1000, 77)
            };
            let extras = ConfigExtras {
                bos_token_id: Some(3),
                eos_token_id: Some(50_256),
                residual_dropout: 0.1,
                embedding_dropout: 0.2,
                attention_dropout: 0.3,
                ..ConfigExtras::new(dtype)
            };
            write_config(dir.path(), &architecture, &extras).unwrap();
            let read = read_config(dir.path()).unwrap();
            assert_eq!(read.architecture, architecture);
            assert_eq!((read.dtype, read.bos_token_id, read.eos_token_id), (Some(dtype), Some(3), Some(50_256)));
            assert_eq!((read.residual_dropout, read.embedding_dropout, read.attention_dropout), (0.1, 0.2, 0.3));
        }
        let generation = std::fs::read_to_string(dir.path().join("generation_config.json")).unwrap();
        assert!(generation.contains("\"eos_token_id\": 50256"), "{generation}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn every_rotary_dimension_survives_the_truncation() {
        for head_dim in 1..=512 {
            for rotary_dim in (0..=head_dim).step_by(2) {
                let factor = rotary_factor(rotary_dim, head_dim);
                assert_eq!((head_dim as f64 * factor) as usize, rotary_dim, "{head_dim}");
                assert!(factor <= 1.0);
            }
        }
    }

    #[test]
    fn impossible_requests_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let architecture = Architecture::phi(2, 128, 2, 512, 64);
        assert!(write_config(dir.path(), &architecture, &ConfigExtras::new(Dtype::I8)).is_err());
        let impossible = Architecture { rotary_dim: 65, ..architecture };
        assert!(write_config(dir.path(), &impossible, &ConfigExtras::new(Dtype::F32)).is_err());
    }
}
