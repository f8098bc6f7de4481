//! Reading and writing weights, against each other and against the golden model.

use std::borrow::Cow;

use super::super::{read_architecture, write_weights};
use super::*;
use crate::checkpoint::TensorEntry;
use crate::checkpoint::element::WEIGHT_DTYPES;
use crate::model::architecture::Architecture;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/phi-tiny/model")
}

/// PhiForCausalLM's names, spelled out here so that the reader is held against something else than itself.
fn phi_tensors(architecture: &Architecture) -> Vec<(String, Vec<usize>)> {
    let (c, f, v) = (architecture.hidden, architecture.mlp, architecture.vocab);
    let mut tensors = vec![("model.embed_tokens.weight".to_string(), vec![v, c])];
    let mut linear = |name: String, out: usize, inner: usize| {
        tensors.extend([(format!("{name}.weight"), vec![out, inner]), (format!("{name}.bias"), vec![out])]);
    };
    for layer in 0..architecture.layers {
        for name in ["q_proj", "k_proj", "v_proj", "dense"] {
            linear(format!("model.layers.{layer}.self_attn.{name}"), c, c);
        }
        linear(format!("model.layers.{layer}.mlp.fc1"), f, c);
        linear(format!("model.layers.{layer}.mlp.fc2"), c, f);
    }
    linear("lm_head".to_string(), v, c);
    let norms = (0..architecture.layers).map(|layer| format!("layers.{layer}.input_layernorm"));
    for norm in norms.chain(["final_layernorm".to_string()]) {
        tensors.extend(["weight", "bias"].map(|part| (format!("model.{norm}.{part}"), vec![c])));
    }
    tensors
}

fn read_all(reader: &WeightsReader) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    reader
        .names()
        .map(|name| {
            let shape = reader.shape(name).unwrap().to_vec();
            let mut values = vec![0.0; shape.iter().product()];
            reader.read_f32(name, &mut values).unwrap();
            (name.to_string(), shape, values)
        })
        .collect()
}

fn file_names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_golden_model_reads_back_whole() {
    let architecture = read_architecture(&golden()).unwrap();
    let reader = WeightsReader::open(&golden()).unwrap();
    reader.check(&phi_tensors(&architecture)).unwrap();
    let weights = read_all(&reader);
    assert_eq!(weights.iter().map(|weight| weight.2.len() as u64).sum::<u64>(), architecture.parameters());
    assert!(weights.iter().all(|(_, _, values)| values.iter().all(|v| v.is_finite())));
    let raw = reader.bytes("lm_head.weight").unwrap();
    let lm_head = &weights.iter().find(|weight| weight.0 == "lm_head.weight").unwrap().2;
    assert_eq!(raw[..4], lm_head[0].to_le_bytes());
}

#[test]
fn writing_and_reading_agree_in_every_dtype_whole_and_sharded() {
    let weights = read_all(&WeightsReader::open(&golden()).unwrap());
    let dir = tempfile::tempdir().unwrap();
    // One directory throughout: each export must replace the one before it, whatever its number of shards.
    for dtype in WEIGHT_DTYPES {
        let tolerance = match dtype {
            Dtype::F32 => 0.0,
            Dtype::F16 => 2.0_f32.powi(-11),
            _ => 2.0_f32.powi(-8),
        };
        for (max_shard_bytes, shards) in [(u64::MAX, 1), (600_000, 0), (1, weights.len()), (u64::MAX, 1)] {
            let entries =
                weights.iter().map(|(name, shape, values)| TensorEntry::from_f32(name, shape.clone(), values, dtype));
            write_weights(dir.path(), entries, max_shard_bytes).unwrap();
            let names = file_names(dir.path());
            match shards {
                1 => assert_eq!(names, [SINGLE_FILE]),
                0 => assert!(names.len() > 2 && names[0].starts_with("model-00001-of-"), "{names:?}"),
                _ => assert_eq!(names.len(), shards + 1),
            }
            let reader = WeightsReader::open(dir.path()).unwrap();
            for ((name, shape, values), read) in weights.iter().zip(read_all(&reader)) {
                assert_eq!((name, shape), (&read.0, &read.1));
                assert_eq!(reader.dtype(name).unwrap(), dtype);
                // Half a unit in the last place; subnormal halves (below 6e-5) have an absolute one.
                let close = |(a, b): (&f32, &f32)| (a - b).abs() <= (a.abs() * tolerance).max(tolerance * 6.2e-5);
                assert!(values.iter().zip(&read.2).all(close), "{name} in {dtype}");
            }
        }
    }
}

#[test]
fn a_tensor_is_on_its_way_to_disk_before_the_next_is_fetched() {
    const BYTES: usize = 2 << 20;
    let dir = tempfile::tempdir().unwrap();
    let temporary = dir.path().join(".model.safetensors.tmp");
    let entries = (0..5).map(|index| {
        let temporary = temporary.clone();
        TensorEntry::lazy(format!("t{index}"), Dtype::U8, vec![BYTES], move || {
            let on_disk = fs::metadata(&temporary).unwrap().len() as usize;
            assert!(on_disk >= index * BYTES, "{on_disk} bytes before tensor {index}");
            assert!(on_disk < (index + 1) * BYTES, "{on_disk} bytes before tensor {index}");
            Ok(Cow::Owned(vec![index as u8; BYTES]))
        })
    });
    write_weights(dir.path(), entries, u64::MAX).unwrap();
    let reader = WeightsReader::open(dir.path()).unwrap();
    assert!((0..5).all(|index| reader.bytes(&format!("t{index}")).unwrap() == vec![index as u8; BYTES]));
}

#[test]
fn a_failed_export_leaves_the_earlier_weights() {
    let dir = tempfile::tempdir().unwrap();
    let good = || TensorEntry::f32("a", vec![1], &[1.0]);
    write_weights(dir.path(), [good()], u64::MAX).unwrap();
    let bad = || TensorEntry::lazy("b", Dtype::F32, vec![1], || Err(Error::failed("the device is gone")));
    assert!(write_weights(dir.path(), [good(), bad()], 1).unwrap_err().to_string().contains("device is gone"));
    assert!(write_weights(dir.path(), [good(), good()], 1).unwrap_err().to_string().contains("two tensors"));
    assert_eq!(file_names(dir.path()), [SINGLE_FILE]);
    assert_eq!(WeightsReader::open(dir.path()).unwrap().bytes("a").unwrap(), 1.0_f32.to_le_bytes());
}

#[test]
fn everything_wrong_with_the_tensors_is_in_one_error() {
    let dir = tempfile::tempdir().unwrap();
    let entries = [
        TensorEntry::f32("a", vec![2], &[1.0, 2.0]),
        TensorEntry::f32("b", vec![1, 2], &[1.0, 2.0]),
        TensorEntry::bytes("c", Dtype::I8, vec![1], vec![0]),
        TensorEntry::f32("x", vec![1], &[1.0]),
        TensorEntry::f32("y", vec![1], &[1.0]),
        TensorEntry::f32("model.layers.0.self_attn.rotary_emb.inv_freq", vec![1], &[1.0]),
    ];
    write_weights(dir.path(), entries, u64::MAX).unwrap();
    let reader = WeightsReader::open(dir.path()).unwrap();
    let expected = ["a", "b", "c", "d", "e"].map(|name| (name.to_string(), vec![if name == "c" { 1 } else { 2 }]));
    let error = reader.check(&expected).unwrap_err();
    let message = error.to_string();
    for part in ["missing: d, e;", "not part of the model: x, y;", "b has shape [1, 2], expected [2]", "c is I8"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains("inv_freq") && !message.contains("a has"), "{message}");
    assert_eq!(error.exit_code(), 2);
    assert!(reader.shape("d").is_err() && reader.read_f32("a", &mut [0.0; 3]).is_err());
}

#[test]
fn damaged_shards_and_indices_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = |dir: &tempfile::TempDir| WeightsReader::open(dir.path()).expect_err("must be refused").to_string();
    assert!(open(&dir).contains("has no weights"));
    fs::write(dir.path().join("pytorch_model.bin"), b"").unwrap();
    assert!(open(&dir).contains("save_pretrained"));

    let entries = ["a", "b", "c"].map(|name| TensorEntry::f32(name, vec![1], &[1.0]));
    write_weights(dir.path(), entries, 4).unwrap();
    let index = dir.path().join(INDEX_FILE);
    let text = fs::read_to_string(&index).unwrap();
    assert!(text.contains("\"total_size\": 12"), "{text}");
    for (from, to, part) in [
        ("model-00002-of-00003.safetensors", "../secret.safetensors", "beside the index"),
        ("model-00002-of-00003.safetensors", "absent.safetensors", "are missing: absent.safetensors"),
        ("\"b\"", "\"q\"", "do not hold the tensors that it says: q"),
        ("weight_map", "weights", "no index of shards"),
    ] {
        fs::write(&index, text.replace(from, to)).unwrap();
        let message = open(&dir);
        assert!(message.contains(part), "{message}");
    }
    fs::write(&index, &text).unwrap();
    let (first, second) = ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors");
    let whole = fs::read(dir.path().join(second)).unwrap();
    fs::write(dir.path().join(second), &whole[..whole.len() - 1]).unwrap();
    assert!(open(&dir).contains(second));
    fs::copy(dir.path().join(first), dir.path().join(second)).unwrap();
    assert!(open(&dir).contains("holds too"));
    fs::remove_file(dir.path().join(second)).unwrap();
    assert!(open(&dir).contains(second));
}
