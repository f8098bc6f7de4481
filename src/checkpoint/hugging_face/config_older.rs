//! Microsoft's own config.json of phi-1 (model types `mixformer-sequential` and `phi-msft`), in transformers' words.
//!
//! Keys and defaults: configuration_mixformer_sequential.py of microsoft/phi-1 and configuration_phi.py of phi-msft.

use serde_json::{Map, Value, json};

use super::config::Found;
use super::config_write::rotary_factor;
use crate::error::Short;

pub const MODEL_TYPES: [&str; 2] = ["mixformer-sequential", "phi-msft"];
/// (Microsoft's key, transformers' key, Microsoft's default where it differs from PhiConfig's).
const KEYS: [(&str, &str, Option<u64>); 8] = [
    ("n_embd", "hidden_size", Some(1024)),
    ("n_layer", "num_hidden_layers", Some(20)),
    ("n_head", "num_attention_heads", Some(16)),
    ("n_head_kv", "num_key_value_heads", None),
    ("n_positions", "max_position_embeddings", None),
    ("activation_function", "hidden_act", None),
    ("layer_norm_epsilon", "layer_norm_eps", None),
    ("attn_pdrop", "attention_dropout", None),
];
/// Keys of `architecture.mixer` and `architecture.mlp` that choose an implementation, not another model.
const IMPLEMENTATION: [&str; 8] =
    ["mixer_cls", "flash_attn", "flash_rotary", "cutlass_attn", "fused_dense", "checkpointing", "causal", "bias"];

/// The same model in the keys of transformers' PhiConfig; `None` where `model_type` is not one of Microsoft's own.
///
/// # Errors
/// In words: an `architecture` that is not the parallel block, or sizes that are no numbers.
pub fn translated(own: &Map<String, Value>) -> Found<Option<Map<String, Value>>> {
    if !MODEL_TYPES.iter().any(|name| own.get("model_type").is_some_and(|found| found == name)) {
        return Ok(None);
    }
    check_architecture(own.get("architecture").unwrap_or(&Value::Null))?;
    // Keys of one meaning in both (vocab_size, resid_pdrop, tie_word_embeddings, torch_dtype) stay as they are.
    let mut config = own.clone();
    config.insert("model_type".to_string(), json!("phi"));
    for (microsofts, ours, default) in KEYS {
        let given = own.get(microsofts).or(own.get(ours)).filter(|value| !value.is_null()).cloned();
        config.extend(given.or(default.map(Value::from)).map(|value| (ours.to_string(), value)));
    }
    let size = |key: &str, value: Option<&Value>, default: u64| match value.filter(|value| !value.is_null()) {
        None => Ok(default),
        Some(value) => {
            let size = value.as_u64().filter(|size| (1..=1 << 31).contains(size));
            size.ok_or_else(|| format!("{key} is {}: expected a positive whole number", Short(value)))
        }
    };
    let hidden = size("n_embd", config.get("hidden_size"), 0)?;
    let heads = size("n_head", config.get("num_attention_heads"), 0)?;
    let inner = size("n_inner", own.get("n_inner").or(own.get("intermediate_size")), 4 * hidden)?;
    config.insert("intermediate_size".to_string(), json!(inner));
    // Their classes round the vocabulary up, and the weights have the rounded size.
    let vocab = size("vocab_size", own.get("vocab_size"), 50_304)?;
    let multiple = size("pad_vocab_size_multiple", own.get("pad_vocab_size_multiple"), 64)?;
    config.insert("vocab_size".to_string(), json!(vocab.next_multiple_of(multiple)));
    let head_dim = hidden / heads;
    let rotary_dim = size("rotary_dim", own.get("rotary_dim"), 32)?.min(head_dim);
    config.insert("partial_rotary_factor".to_string(), json!(rotary_factor(rotary_dim as usize, head_dim as usize)));
    Ok(Some(config))
}

/// mixformer-sequential describes its blocks. phi-1's are
/// `{"block_cls": "parallel", "mixer": {}, "mlp": {"mlp_cls": "mlp"}}`.
fn check_architecture(architecture: &Value) -> Found<()> {
    let odd = |key: &str, value: &Value| {
        let (key, value) = (Short(key), Short(value));
        Err(format!("{key} is {value}: only phi-1's parallel block with its plain attention and MLP is supported"))
    };
    let blocks = match architecture {
        Value::Null => return Ok(()),
        Value::Object(block) => block,
        other => return odd("architecture", other),
    };
    for (key, value) in blocks.iter().filter(|(_, value)| !value.is_null()) {
        let parts = value.as_object();
        match (key.as_str(), parts) {
            ("block_cls", None) if value == "parallel" => {}
            ("mixer", Some(mixer)) => {
                let plain = |(key, value): (&String, &Value)| value.is_null() || IMPLEMENTATION.contains(&key.as_str());
                if let Some((key, value)) = mixer.iter().find(|pair| !plain(*pair)) {
                    return odd(&format!("architecture.mixer.{key}"), value);
                }
                if let Some(value) = ["causal", "bias"].iter().find_map(|key| mixer.get(*key)).filter(|v| **v == false)
                {
                    return odd("architecture.mixer.causal or .bias", value);
                }
            }
            ("mlp", Some(mlp)) => {
                let plain = |(key, value): (&String, &Value)| value.is_null() || (key == "mlp_cls" && value == "mlp");
                if let Some((key, value)) = mlp.iter().find(|pair| !plain(*pair)) {
                    return odd(&format!("architecture.mlp.{key}"), value);
                }
            }
            _ => return odd(&format!("architecture.{key}"), value),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::CONFIG_FILE;
    use super::super::read_config;
    use crate::error::Result;
    use crate::model::architecture::Architecture;
    use serde_json::{Value, json};

    fn read(json: &Value) -> Result<Architecture> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONFIG_FILE), json.to_string()).unwrap();
        read_config(dir.path()).map(|config| config.architecture)
    }

    /// What microsoft/phi-1 said of its sizes in September 2023.
    fn phi_1() -> Value {
        json!({
            "_name_or_path": "phi-1-half", "activation_function": "gelu_new",
            "architecture": {"block_cls": "parallel", "mixer": {}, "mlp": {"mlp_cls": "mlp"}},
            "architectures": ["MixFormerSequentialForCausalLM"],
            "embd_layer": "default", "embd_pdrop": 0.0, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
            "model_type": "mixformer-sequential", "n_embd": 2048, "n_head": 32, "n_inner": null, "n_layer": 24,
            "n_positions": 2048, "resid_pdrop": 0.0, "rotary_dim": 32, "tie_word_embeddings": false,
            "torch_dtype": "float16", "vocab_size": 51200
        })
    }

    fn with(changes: Value) -> Value {
        let mut config = phi_1();
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        config
    }

    #[test]
    fn microsofts_phi_1_is_phi_1() {
        assert_eq!(read(&phi_1()).unwrap(), Architecture::phi(24, 2048, 32, 51_200, 2048));
        let msft = with(json!({"model_type": "phi-msft", "architecture": null, "n_head_kv": null, "attn_pdrop": 0.0}));
        assert_eq!(read(&msft).unwrap(), Architecture::phi(24, 2048, 32, 51_200, 2048));
    }

    #[test]
    fn sizes_are_taken_padded_and_defaulted_as_their_classes_do_it() {
        let odd = with(json!({"n_embd": 60, "n_head": 5, "n_inner": 100, "n_layer": 3, "vocab_size": 1000,
            "rotary_dim": 6, "n_positions": 99, "layer_norm_epsilon": 1e-6}));
        let expected =
            Architecture { mlp: 100, rotary_dim: 6, norm_eps: 1e-6, ..Architecture::phi(3, 60, 5, 1024, 99) };
        assert_eq!(read(&odd).unwrap(), expected);
        assert_eq!(read(&with(json!({"pad_vocab_size_multiple": 1, "vocab_size": 50295}))).unwrap().vocab, 50_295);
        assert_eq!(read(&with(json!({"n_embd": 64, "n_head": 4}))).unwrap().rotary_dim, 16);
        let bare = read(&json!({"model_type": "mixformer-sequential"})).unwrap();
        assert_eq!(bare, Architecture { rotary_dim: 32, ..Architecture::phi(20, 1024, 16, 50_304, 2048) });
    }

    #[test]
    fn another_model_in_their_words_is_refused() {
        for (change, part) in [
            (json!({"architecture": {"block_cls": "sequential"}}), "architecture.block_cls is \"sequential\""),
            (json!({"architecture": {"mixer": {"rotary_emb_scale_base": 512}}}), "mixer.rotary_emb_scale_base is 512"),
            (json!({"architecture": {"mixer": {"bias": false}}}), "bias is false"),
            (json!({"architecture": {"mlp": {"mlp_cls": "fused_mlp"}}}), "mlp.mlp_cls is \"fused_mlp\""),
            (json!({"architecture": [1]}), "architecture is [1]"),
            (json!({"n_head_kv": 8}), "num_key_value_heads is 8"),
            (json!({"n_embd": "wide"}), "n_embd is \"wide\""),
            (json!({"n_head": 0}), "n_head is 0"),
            (json!({"activation_function": "relu"}), "hidden_act is \"relu\""),
            (json!({"tie_word_embeddings": true}), "tie_word_embeddings is true"),
        ] {
            let error = read(&with(change.clone())).expect_err(part);
            assert!(error.to_string().contains(part), "{change}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
