//! Models in and out: shards, model cards, and the older layouts of phi's weights, written here by the test's own code.
//! `benches/peers/exchange_hf.py` holds the same against transformers itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use trainer::checkpoint::TensorFile;

use crate::support::{Place, data, metrics, run, trainer, whole_latest};

/// The program's logits of the golden tokens.
fn logits(place: &Place, model: &Path) -> Vec<u8> {
    let out = place.path("logits.safetensors");
    let mut command = trainer("logits --seq-len 64 --model");
    command.arg(model).arg("--tokens").arg(data("phi-tiny/tokens.bin")).arg("--out").arg(&out);
    run(&mut command).success();
    TensorFile::open(&out).unwrap().bytes("logits").unwrap().to_vec()
}

fn file_names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Tensors by name: shape and fp32 values.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn golden() -> Tensors {
    let file = TensorFile::open(&data("phi-tiny/model/model.safetensors")).unwrap();
    let read = |name: String| {
        let shape = file.shape(&name).unwrap().to_vec();
        let mut values = vec![0.0; shape.iter().product()];
        file.read_f32(&name, &mut values).unwrap();
        (name, (shape, values))
    };
    file.names().into_iter().map(read).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

const HEADS: usize = 2;

/// q, k and v of each layer as one tensor: `place` gives the row of (projection, head, row of the head).
fn fuse(tensors: Tensors, fused: &str, place: impl Fn(usize, usize, usize, usize) -> usize) -> Tensors {
    let mut out = Tensors::new();
    for (name, (shape, values)) in tensors {
        let Some(projection) = ["q_proj", "k_proj", "v_proj"].iter().position(|part| name.contains(part)) else {
            out.insert(name, (shape, values));
            continue;
        };
        let (rows, cols) = (shape[0], values.len() / shape[0]);
        let head_dim = rows / HEADS;
        let mut fused_shape = shape.clone();
        fused_shape[0] = 3 * rows;
        let name = name.replace(["q_proj", "k_proj", "v_proj"][projection], fused);
        let entry = out.entry(name).or_insert_with(|| (fused_shape, vec![f32::NAN; 3 * values.len()]));
        for (row, from) in values.chunks(cols).enumerate() {
            let to = place(projection, row / head_dim, row % head_dim, head_dim) * cols;
            entry.1[to..to + cols].copy_from_slice(from);
        }
    }
    assert!(out.values().all(|(_, values)| values.iter().all(|value| value.is_finite())));
    out
}

fn renamed(tensors: Tensors, names: &[(&str, &str)]) -> Tensors {
    let rename = |name: String| names.iter().fold(name, |name, (from, to)| name.replace(from, to));
    tensors.into_iter().map(|(name, tensor)| (rename(name), tensor)).collect()
}

/// The golden model as Microsoft and transformers 4.36 had it: (name, weights, config.json).
fn older() -> Vec<(&'static str, Tensors, Value)> {
    let three_h_d = |projection, head, row, head_dim| (projection * HEADS + head) * head_dim + row;
    let h_three_d = |projection, head, row, head_dim| (head * 3 + projection) * head_dim + row;
    let parts = [("input_layernorm", "ln"), ("self_attn.Wqkv", "mixer.Wqkv"), ("self_attn.dense", "mixer.out_proj")];
    let mut mixformer = parts.to_vec();
    mixformer.extend([
        // From the last layer down, since each name becomes the next one's.
        ("model.layers.1.", "layers.2."),
        ("model.layers.0.", "layers.1."),
        ("model.embed_tokens", "layers.0.wte"),
        ("model.final_layernorm", "layers.3.ln"),
        ("lm_head", "layers.3.linear"),
    ]);
    let mut msft = parts.to_vec();
    msft.extend([
        ("model.layers.", "transformer.h."),
        ("model.embed_tokens", "transformer.embd.wte"),
        ("lm_head", "lm_head.linear"),
        ("model.final_layernorm", "lm_head.ln"),
    ]);
    let microsofts = |model_type: &str| {
        json!({
            "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "model_type": model_type, "n_embd": 128,
            "n_head": HEADS, "n_inner": null, "n_layer": 2, "n_positions": 2048, "rotary_dim": 32, "vocab_size": 512,
            "embd_pdrop": 0.0, "resid_pdrop": 0.0, "tie_word_embeddings": false, "torch_dtype": "float32"
        })
    };
    let own = serde_json::from_slice(&fs::read(data("phi-tiny/model/config.json")).unwrap()).unwrap();
    vec![
        ("mixformer", renamed(fuse(golden(), "Wqkv", three_h_d), &mixformer), microsofts("mixformer-sequential")),
        ("msft", renamed(fuse(golden(), "Wqkv", three_h_d), &msft), microsofts("phi-msft")),
        ("by_head", fuse(golden(), "query_key_value", h_three_d), own),
    ]
}

fn write_model(dir: &Path, tensors: &Tensors, config: &Value) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    write(&dir.join("model.safetensors"), tensors);
    dir.to_path_buf()
}

#[test]
fn older_layouts_give_the_same_bits() {
    let place = Place::new();
    let expected = logits(&place, &data("phi-tiny/model"));
    let own = data("phi-tiny/model/model.safetensors");
    for (name, mut tensors, config) in older() {
        // A buffer that such files carry and that nothing needs.
        if name == "mixformer" {
            tensors.insert("layers.1.mixer.rotary_emb.inv_freq".to_string(), (vec![16], vec![1.0; 16]));
        }
        let model = write_model(&place.path(name), &tensors, &config);
        assert!(logits(&place, &model) == expected, "{name}");
        // An export has today's names, and the same values.
        let exported = place.path(&format!("{name}-exported"));
        run(trainer("export --out").arg(&exported).arg(&model)).success();
        let (found, own) =
            (TensorFile::open(&exported.join("model.safetensors")).unwrap(), TensorFile::open(&own).unwrap());
        assert_eq!(found.names().len(), own.names().len(), "{name}");
        assert!(own.names().iter().all(|tensor| found.bytes(tensor).unwrap() == own.bytes(tensor).unwrap()), "{name}");
    }
}

/// A run starts from them, with the loss of the same model in today's layout.
#[test]
fn runs_start_from_older_layouts() {
    let place = Place::new();
    let sizes = "model.layers=2 model.hidden=128 model.heads=2 model.vocab=512 model.dropout=0 train.steps=1";
    let first_loss = |out: &str, model: &Path| {
        run(place.train(out, sizes).arg("--init-from").arg(model)).success();
        metrics(&place.path(out)).losses()[0]
    };
    let expected = first_loss("from-today", &data("phi-tiny/model"));
    let (name, tensors, config) = older().remove(0);
    let model = write_model(&place.path(name), &tensors, &config);
    assert_eq!(first_loss("from-mixformer", &model), expected);
}

#[test]
fn shards_of_any_size_are_one_model() {
    let place = Place::new();
    let model = data("phi-tiny/model");
    let expected = logits(&place, &model);
    let export = |out: &Path, from: &Path, rest: &str| {
        run(trainer(&format!("export --json {rest} --out")).arg(out).arg(from)).success().json()
    };
    let sharded = place.path("sharded");
    let told = export(&sharded, &model, "--shard-size 300KB");
    let names = file_names(&sharded);
    assert_eq!(told["files"], json!(names));
    let parameters: usize = golden().values().map(|(_, values)| values.len()).sum();
    assert_eq!((told["parameters"].as_u64(), told["dtype"].as_str()), (Some(parameters as u64), Some("F32")));
    let sizes = names.iter().map(|name| fs::metadata(sharded.join(name)).unwrap().len());
    assert_eq!(told["bytes"].as_u64().unwrap(), sizes.sum::<u64>());
    let shards: Vec<&String> = names.iter().filter(|name| name.ends_with(".safetensors")).collect();
    assert!(
        shards.len() > 4 && shards[0].as_str() == format!("model-00001-of-{:05}.safetensors", shards.len()),
        "{names:?}"
    );
    let index: Value =
        serde_json::from_slice(&fs::read(sharded.join("model.safetensors.index.json")).unwrap()).unwrap();
    assert_eq!(index["metadata"]["total_size"], 4 * parameters);
    assert_eq!(index["weight_map"].as_object().unwrap().len(), golden().len());
    for (name, shard) in index["weight_map"].as_object().unwrap() {
        assert!(TensorFile::open(&sharded.join(shard.as_str().unwrap())).unwrap().contains(name), "{name}");
    }
    assert!(logits(&place, &sharded) == expected);

    // Back in one file, bit for bit; and half precisions stay what they are unless another one is asked for.
    let whole = place.path("whole");
    export(&whole, &sharded, "");
    assert!(logits(&place, &whole) == expected);
    for (precision, stored) in [("fp16", "F16"), ("bf16", "BF16")] {
        let (half, again) = (place.path(precision), place.path(&format!("{precision}-again")));
        export(&half, &sharded, &format!("--dtype {precision} --shard-size 0.2MB"));
        assert_eq!(export(&again, &half, "")["dtype"], stored);
        assert!(logits(&place, &half) == logits(&place, &again), "{precision}");
        assert!(logits(&place, &half) != expected, "{precision} rounded nothing");
    }
}

#[test]
fn a_card_tells_what_the_run_knows_of_itself() {
    let place = Place::new();
    run(&mut place.train("run", "validation.every=20 train.steps=40")).success();
    let exported = place.path("my-model");
    run(trainer("export --out").arg(&exported).arg(place.path("run"))).success();
    let expected =
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(file_names(&exported)[1..], expected);
    let card = fs::read_to_string(exported.join("README.md")).unwrap();
    let validation = metrics(&place.path("run")).validations.last().unwrap()["val_loss"].as_f64().unwrap();
    let manifest: Value = serde_json::from_slice(&fs::read(place.path("data/manifest.json")).unwrap()).unwrap();
    for part in [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\n",
        "# my-model\n",
        "| steps | 40 of 40 |",
        &format!("| validation loss | {validation:.4} nats per token after step 40 |"),
        "| precision | fp32 |",
        "| prepared from | text |",
        &format!("{} documents", manifest["train"]["documents"]),
        "| tokenizer | bytes, 257 ids |",
        "AutoTokenizer.from_pretrained",
    ] {
        assert!(card.contains(part), "no \"{part}\" in {card}");
    }
    // Tokens a step: 8 sequences of 32.
    assert!(card.contains("| tokens seen | 10,240, "), "{card}");
    let here = place.path("").display().to_string();
    assert!(!card.contains(here.trim_end_matches('/')) && !card.contains("NaN"), "{card}");
    let tokenizer: Value = serde_json::from_slice(&fs::read(exported.join("tokenizer_config.json")).unwrap()).unwrap();
    assert_eq!(
        (tokenizer["model_max_length"].as_u64(), tokenizer["eos_token"].as_str()),
        (Some(32), Some("<|endoftext|>"))
    );

    // The checkpoint's model directory itself knows the same; the card goes on with the model; a bare model has no
    // history.
    let export = |out: &str, from: &Path| {
        run(trainer("export --out").arg(place.path(out)).arg(from)).success();
        fs::read_to_string(place.path(out).join("README.md")).unwrap()
    };
    let from_model = export("a/my-model", &whole_latest(&place.path("run")).join("model"));
    assert_eq!(from_model, card);
    assert_eq!(export("again", &exported), card);
    let bare = export("bare", &data("phi-tiny/model"));
    assert!(bare.contains("## Model") && !bare.contains("## Training") && !bare.contains("AutoTokenizer"), "{bare}");
    // Of data that has gone, the card says nothing.
    fs::remove_dir_all(place.path("data")).unwrap();
    let without = export("without", &place.path("run"));
    assert!(
        without.contains("## Training") && !without.contains("## Data") && !without.contains("epochs"),
        "{without}"
    );
}

/// All that is wrong is in one line, and nothing is left behind.
#[test]
fn what_is_no_model_is_refused_whole() {
    let place = Place::new();
    let refuse = |model: &Path, rest: &str, words: &[&str]| {
        let out = place.path("deep/exported");
        let mut command = trainer(&format!("export {rest} --out"));
        run(command.arg(&out).arg(model)).error(2, words);
        assert!(!out.exists(), "{words:?}");
    };
    let (_, tensors, config) = older().remove(0);
    let mut changed = tensors.clone();
    changed.remove("layers.2.mixer.Wqkv.bias");
    changed.get_mut("layers.1.mixer.Wqkv.weight").unwrap().0 = vec![128, 384];
    changed.insert("layers.4.ln.weight".to_string(), (vec![1], vec![0.0]));
    let words = [
        "missing: layers.2.mixer.Wqkv.bias;",
        "not part of the model: layers.4.ln.weight;",
        "layers.1.mixer.Wqkv.weight has shape [128, 384], expected [384, 128]",
    ];
    refuse(&write_model(&place.path("changed"), &changed, &config), "", &words);

    let mut large = tensors.clone();
    large.get_mut("layers.1.mlp.fc1.weight").unwrap().1[7] = 1e5;
    let large = write_model(&place.path("large"), &large, &config);
    refuse(&large, "--dtype fp16 --shard-size 100KB", &["layers.1.mlp.fc1.weight", "1e5 is too large for F16", "BF16"]);

    let pickled = place.path("pickled");
    fs::create_dir(&pickled).unwrap();
    fs::write(pickled.join("config.json"), config.to_string()).unwrap();
    fs::write(pickled.join("pytorch_model.bin"), b"").unwrap();
    refuse(&pickled, "", &["pytorch_model.bin", "weights_only=True", "safetensors.torch.save_file"]);

    let mut other = config.clone();
    other["model_type"] = json!("gpt2");
    refuse(
        &write_model(&place.path("gpt2"), &tensors, &other),
        "",
        &["model_type is \"gpt2\"", "mixformer-sequential"],
    );
    let export = run(trainer("export --shard-size 0GB --out").arg(place.path("x")).arg(data("phi-tiny/model")));
    assert!(export.code == Some(2) && export.stderr.contains("a size above 0"), "{}", export.stderr);
}
