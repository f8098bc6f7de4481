//! Reading config.json of a phi model.
//!
//! Two forms are in use: microsoft/phi-1's own, with `partial_rotary_factor` and `rope_theta` at top level, and that of
//! transformers 5, with both inside `rope_parameters`. What is absent has the default of transformers' PhiConfig
//! (models/phi/configuration_phi.py). `config_older` puts what Microsoft wrote before that into the same keys.

use std::fs;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, Value};

use super::{CONFIG_FILE, config_older};
use crate::checkpoint::element;
use crate::error::{Error, Result, Short};
use crate::model::architecture::Architecture;

/// transformers' `model_type`.
const PHI: &str = "phi";
/// More weights than this (281 T) are a mistake in the file; the bound also keeps every later product from overflowing.
const MOST_PARAMETERS: u128 = 1 << 48;
/// As `model.layers` of a configuration. Each layer is a dozen names in a table, made before any weight is looked at.
const MOST_LAYERS: usize = 10_000;
/// As `model.seq_len`. Each position has a row in the table of rotations.
const LONGEST_CONTEXT: usize = 1 << 24;

/// A model's shape and what else its config.json says that matters to us.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    /// `dtype` or, as it was called before, `torch_dtype`; what the files hold is in the files.
    pub dtype: Option<Dtype>,
    /// Only if the file has them: PhiConfig's defaults of 1 and 2 are ordinary characters in phi's vocabulary.
    pub bos_token_id: Option<u32>,
    /// The first, where the file lists several.
    pub eos_token_id: Option<u32>,
    /// `resid_pdrop`, after attention and after the MLP.
    pub residual_dropout: f64,
    /// `embd_pdrop`.
    pub embedding_dropout: f64,
    /// `attention_dropout`, on the attention probabilities.
    pub attention_dropout: f64,
}

/// The shape of the model in a Hugging Face directory. See [`read_config`].
pub fn read_architecture(dir: &Path) -> Result<Architecture> {
    Ok(read_config(dir)?.architecture)
}

/// Reads `dir/config.json`.
///
/// # Errors
/// [`Error::File`] for the first key that is malformed, or that describes a model which this decoder is not (another
/// model_type, tied embeddings, grouped keys and values, layer-normed q and k, scaled rope, another activation).
pub fn read_config(dir: &Path) -> Result<ModelConfig> {
    let path = dir.join(CONFIG_FILE);
    let found = match &read_json(&path)? {
        Value::Object(keys) => {
            config_older::translated(keys).and_then(|translated| Keys(translated.as_ref().unwrap_or(keys)).config())
        }
        _ => Err("is not a JSON object: expected a Hugging Face config".to_string()),
    };
    let config = found.map_err(|what| Error::file(&path, what))?;
    config.architecture.validate().map_err(|error| Error::file(&path, error.to_string()))?;
    Ok(config)
}

/// The `model_type` of a well-formed config.json that is another model's; `None` for phi's, and where it cannot be told.
pub fn other_model(dir: &Path) -> Option<String> {
    let json = read_json(&dir.join(CONFIG_FILE)).ok()?;
    let name = json.get("model_type")?.as_str()?;
    let known = name == PHI || config_older::MODEL_TYPES.contains(&name);
    (!known).then(|| Short(name).to_string())
}

fn read_json(path: &Path) -> Result<Value> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::file(path, format!("is not JSON ({}): expected a Hugging Face config", Short(error))))
}

/// What is wrong, in words; the caller adds the file's name.
pub(super) type Found<T> = std::result::Result<T, String>;

struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    fn config(&self) -> Found<ModelConfig> {
        self.refuse_other_models()?;
        let architecture = self.architecture()?;
        Ok(ModelConfig {
            architecture,
            dtype: self.dtype()?,
            bos_token_id: self.token_id("bos_token_id")?,
            eos_token_id: self.token_id("eos_token_id")?,
            residual_dropout: self.dropout("resid_pdrop")?,
            embedding_dropout: self.dropout("embd_pdrop")?,
            attention_dropout: self.dropout("attention_dropout")?,
        })
    }

    fn refuse_other_models(&self) -> Found<()> {
        match self.get("model_type") {
            Some(Value::String(name)) if name == PHI => {}
            Some(other) => {
                return Err(format!(
                    "model_type is {other}: only \"phi\" (or Microsoft's earlier \"mixformer-sequential\", \
                     \"phi-msft\") can be loaded",
                    other = Short(other)
                ));
            }
            None => return Err("model_type is missing: expected \"phi\"".to_string()),
        }
        for (key, meaning) in [
            ("tie_word_embeddings", "phi's lm_head has weights of its own"),
            ("qk_layernorm", "phi-1 normalises neither queries nor keys"),
        ] {
            if self.bool(key)? {
                return Err(format!("{key} is true: {meaning}, and only that is supported"));
            }
        }
        match self.get("hidden_act") {
            None => {}
            Some(Value::String(name)) if name == "gelu_new" || name == "gelu_pytorch_tanh" => {}
            Some(other) => {
                return Err(format!(
                    "hidden_act is {other}: only the tanh form of GELU (gelu_new, gelu_pytorch_tanh) is supported",
                    other = Short(other)
                ));
            }
        }
        match self.get("quantization_config") {
            None => Ok(()),
            Some(_) => Err("quantization_config is present: only unquantised weights can be loaded".to_string()),
        }
    }

    fn architecture(&self) -> Found<Architecture> {
        let heads = self.size("num_attention_heads", 32)?;
        let hidden = self.size("hidden_size", 2048)?;
        let kv_heads = self.size("num_key_value_heads", heads)?;
        if kv_heads != heads {
            return Err(format!(
                "num_key_value_heads is {kv_heads} and num_attention_heads is {heads}: only equal numbers (no grouped \
                 keys and values) are supported"
            ));
        }
        if hidden % heads != 0 {
            return Err(format!("hidden_size {hidden} is not a multiple of num_attention_heads {heads}"));
        }
        let head_dim = self.size("head_dim", hidden / heads)?;
        if head_dim != hidden / heads {
            return Err(format!("head_dim is {head_dim}: only hidden_size / heads = {} is supported", hidden / heads));
        }
        let (rope_theta, partial_rotary_factor) = self.rope()?;
        let architecture = Architecture {
            layers: self.size("num_hidden_layers", 24)?,
            hidden,
            heads,
            mlp: self.size("intermediate_size", 8192)?,
            vocab: self.size("vocab_size", 51_200)?,
            // Truncated, as modeling_phi.py does it.
            rotary_dim: (head_dim as f64 * partial_rotary_factor) as usize,
            rope_theta,
            norm_eps: self.number(self.get("layer_norm_eps"), "layer_norm_eps", 1e-5)?,
            context: self.size("max_position_embeddings", 2048)?,
        };
        let [layers, c, f, v] =
            [architecture.layers, hidden, architecture.mlp, architecture.vocab].map(|size| size as u128);
        for (key, size, most) in [
            ("num_hidden_layers", architecture.layers, MOST_LAYERS),
            ("max_position_embeddings", architecture.context, LONGEST_CONTEXT),
        ] {
            if size > most {
                return Err(format!("{key} is {size}: expected at most {most}"));
            }
        }
        if layers * c * (4 * c + 2 * f) + 2 * v * c > MOST_PARAMETERS {
            return Err("its sizes multiply to more weights than any machine holds: one of them is wrong".to_string());
        }
        Ok(architecture)
    }

    /// rope_theta and partial_rotary_factor, from either place.
    fn rope(&self) -> Found<(f64, f64)> {
        let empty = Map::new();
        // rope_scaling is what rope_parameters was called; transformers 5 still takes it in its place.
        let nested = match self.get("rope_parameters").or(self.get("rope_scaling")) {
            None => &empty,
            Some(Value::Object(keys)) => keys,
            Some(other) => return Err(format!("rope_parameters is {}: expected an object", Short(other))),
        };
        for keys in [nested, self.get("rope_scaling").and_then(Value::as_object).unwrap_or(&empty)] {
            let kind = keys.get("rope_type").or(keys.get("type")).filter(|kind| !kind.is_null());
            if let Some(kind) = kind.filter(|kind| *kind != "default") {
                let kind = Short(kind);
                return Err(format!("rope type is {kind}: only \"default\" (no scaling of positions) is supported"));
            }
            if let Some((key, value)) = keys.iter().find(|(key, value)| !known_rope_key(key) && !value.is_null()) {
                let (key, value) = (Short(key), Short(value));
                return Err(format!("rope parameter {key} is {value}: no scaling of positions is supported"));
            }
        }
        let both = |key: &str, default: f64| -> Found<f64> {
            let inner = Keys(nested);
            let value = self.number(inner.get(key).or(self.get(key)), key, default)?;
            match self.get(key) {
                Some(outer) if self.number(Some(outer), key, default)? != value => Err(format!(
                    "{key} is {outer} at top level but {value} in rope_parameters: older and newer transformers would \
                     load two models; remove the wrong one"
                )),
                _ => Ok(value),
            }
        };
        let theta = both("rope_theta", 10_000.0)?;
        let factor = both("partial_rotary_factor", 0.5)?;
        if !(0.0..=1.0).contains(&factor) {
            return Err(format!("partial_rotary_factor is {factor}: expected a share of each head, 0 to 1"));
        }
        Ok((theta, factor))
    }

    fn dtype(&self) -> Found<Option<Dtype>> {
        match self.get("dtype").or(self.get("torch_dtype")) {
            None => Ok(None),
            Some(Value::String(name)) => {
                let found = element::from_torch_name(name.trim_start_matches("torch."));
                let name = Short(name);
                found.map(Some).ok_or_else(|| format!("dtype is \"{name}\": expected float32, float16 or bfloat16"))
            }
            Some(other) => Err(format!("dtype is {}: expected float32, float16 or bfloat16", Short(other))),
        }
    }

    /// A key's value; null is as good as absent, as in transformers.
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn size(&self, key: &str, default: usize) -> Found<usize> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let size = value.as_u64().filter(|size| (1..=1 << 31).contains(size)).and_then(|size| size.try_into().ok());
        size.ok_or_else(|| format!("{key} is {}: expected a positive whole number", Short(value)))
    }

    fn number(&self, value: Option<&Value>, key: &str, default: f64) -> Found<f64> {
        let Some(value) = value else { return Ok(default) };
        value.as_f64().ok_or_else(|| format!("{key} is {}: expected a number", Short(value)))
    }

    fn bool(&self, key: &str) -> Found<bool> {
        let Some(value) = self.get(key) else { return Ok(false) };
        value.as_bool().ok_or_else(|| format!("{key} is {}: expected true or false", Short(value)))
    }

    fn dropout(&self, key: &str) -> Found<f64> {
        let rate = self.number(self.get(key), key, 0.0)?;
        if (0.0..1.0).contains(&rate) { Ok(rate) } else { Err(format!("{key} is {rate}: expected 0 to below 1")) }
    }

    fn token_id(&self, key: &str) -> Found<Option<u32>> {
        let first = match self.get(key) {
            None => return Ok(None),
            Some(Value::Array(ids)) => ids.first(),
            one => one,
        };
        let id = first.and_then(Value::as_u64).and_then(|id| id.try_into().ok());
        id.map(Some).ok_or_else(|| format!("{key} is {}: expected a token id", Short(first.unwrap_or(&Value::Null))))
    }
}

fn known_rope_key(key: &str) -> bool {
    ["rope_type", "type", "rope_theta", "partial_rotary_factor"].contains(&key)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
