use super::*;

fn read(json: &Value) -> Result<ModelConfig> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(CONFIG_FILE), json.to_string()).unwrap();
    read_config(dir.path())
}

fn with(changes: Value) -> Value {
    let mut config = serde_json::json!({
        "model_type": "phi", "hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2,
        "intermediate_size": 512, "vocab_size": 512,
    });
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    config
}

#[test]
fn the_golden_models_config_reads_back() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/phi-tiny/model");
    assert_eq!(read_architecture(&dir).unwrap(), Architecture::phi(2, 128, 2, 512, 2048));
    let config = read_config(&dir).unwrap();
    assert_eq!((config.bos_token_id, config.eos_token_id, config.dtype), (None, None, None));
}

#[test]
fn phi_1s_own_form_and_the_defaults_give_phi_1() {
    let phi_1 = Architecture::phi(24, 2048, 32, 51_200, 2048);
    // The keys of microsoft/phi-1's config.json that decide the model.
    let own = serde_json::json!({
        "_name_or_path": "microsoft/phi-1", "architectures": ["PhiForCausalLM"], "attention_dropout": 0.0,
        "bos_token_id": null, "embd_pdrop": 0.0, "eos_token_id": null, "hidden_act": "gelu_new", "hidden_size": 2048,
        "initializer_range": 0.02, "intermediate_size": 8192, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048,
        "model_type": "phi", "num_attention_heads": 32, "num_hidden_layers": 24, "num_key_value_heads": null,
        "partial_rotary_factor": 0.5, "qk_layernorm": false, "resid_pdrop": 0.0, "rope_scaling": null,
        "rope_theta": 10000.0, "tie_word_embeddings": false, "torch_dtype": "float32", "use_cache": true,
        "vocab_size": 51200
    });
    let read_own = read(&own).unwrap();
    assert_eq!(read_own.architecture, phi_1);
    assert_eq!(read_own.dtype, Some(Dtype::F32));
    let bare = read(&serde_json::json!({"model_type": "phi"})).unwrap();
    assert_eq!(bare.architecture, phi_1);
    assert_eq!((bare.bos_token_id, bare.eos_token_id), (None, None));
}

#[test]
fn both_places_of_the_rotary_keys_are_read() {
    let top = with(serde_json::json!({"partial_rotary_factor": 0.25, "rope_theta": 500}));
    let nested = with(serde_json::json!({
        "rope_parameters": {"partial_rotary_factor": 0.25, "rope_theta": 500.0, "rope_type": "default"}
    }));
    let mixed = with(serde_json::json!({"partial_rotary_factor": 0.25, "rope_parameters": {"rope_theta": 500.0}}));
    for config in [&top, &nested, &mixed] {
        let architecture = read(config).unwrap().architecture;
        assert_eq!((architecture.rotary_dim, architecture.rope_theta), (16, 500.0), "{config}");
    }
    let listed = read(&with(serde_json::json!({"eos_token_id": [50256, 7], "dtype": "torch.float16"}))).unwrap();
    assert_eq!((listed.eos_token_id, listed.dtype), (Some(50_256), Some(Dtype::F16)));
}

#[test]
fn every_other_model_is_refused_with_its_reason() {
    let cases = [
        (serde_json::json!({"model_type": "phi3"}), "model_type is \"phi3\""),
        (serde_json::json!({"model_type": null}), "model_type is missing"),
        (serde_json::json!({"qk_layernorm": true}), "qk_layernorm is true"),
        (serde_json::json!({"tie_word_embeddings": true}), "tie_word_embeddings is true"),
        (serde_json::json!({"num_key_value_heads": 1}), "num_key_value_heads is 1"),
        (serde_json::json!({"head_dim": 32}), "head_dim is 32"),
        (serde_json::json!({"hidden_act": "relu"}), "hidden_act is \"relu\""),
        (serde_json::json!({"hidden_act": "gelu"}), "hidden_act is \"gelu\""),
        (serde_json::json!({"rope_scaling": {"type": "linear", "factor": 2.0}}), "rope type is \"linear\""),
        (serde_json::json!({"rope_parameters": {"rope_type": "yarn"}}), "rope type is \"yarn\""),
        (serde_json::json!({"rope_parameters": {"factor": 4.0}}), "rope parameter factor is 4.0"),
        (serde_json::json!({"rope_parameters": {}, "rope_scaling": {"type": "dynamic"}}), "rope type is \"dynamic\""),
        (
            serde_json::json!({"rope_theta": 1.0, "rope_parameters": {"rope_theta": 2.0}}),
            "rope_theta is 1.0 at top level",
        ),
        (serde_json::json!({"rope_parameters": 3}), "expected an object"),
        (serde_json::json!({"partial_rotary_factor": 1.5}), "partial_rotary_factor is 1.5"),
        (serde_json::json!({"partial_rotary_factor": 0.4}), "rotary dimension 25 must be even"),
        (serde_json::json!({"hidden_size": 127}), "not a multiple"),
        (serde_json::json!({"hidden_size": "128"}), "hidden_size is \"128\""),
        (serde_json::json!({"num_hidden_layers": 0}), "num_hidden_layers is 0"),
        // Few weights, but a name for each layer and a row for each position.
        (
            serde_json::json!({"num_hidden_layers": 2_147_483_647}),
            "num_hidden_layers is 2147483647: expected at most 10000",
        ),
        (
            serde_json::json!({"max_position_embeddings": 1 << 30}),
            "max_position_embeddings is 1073741824: expected at most",
        ),
        (serde_json::json!({"vocab_size": -1}), "vocab_size is -1"),
        (serde_json::json!({"vocab_size": 2_147_483_648_u64, "hidden_size": 2_147_483_648_u64}), "multiply to more"),
        (serde_json::json!({"vocab_size": 1e300}), "vocab_size"),
        (serde_json::json!({"layer_norm_eps": 0.0}), "must be positive"),
        (serde_json::json!({"resid_pdrop": 1.0}), "resid_pdrop is 1"),
        (serde_json::json!({"torch_dtype": "int8"}), "dtype is \"int8\""),
        (serde_json::json!({"quantization_config": {}}), "quantization_config is present"),
        (serde_json::json!({"eos_token_id": "x"}), "eos_token_id is \"x\""),
    ];
    read(&with(serde_json::json!({}))).unwrap();
    for (change, part) in cases {
        let error = read(&with(change.clone())).expect_err(part);
        assert!(error.to_string().contains(part), "{change}: {error}");
        assert!(error.to_string().contains(CONFIG_FILE), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read_config(dir.path()).unwrap_err().exit_code(), 2);
    for text in ["", "{", "[]", "null"] {
        fs::write(dir.path().join(CONFIG_FILE), text).unwrap();
        assert!(read_config(dir.path()).is_err(), "{text}");
    }
}
