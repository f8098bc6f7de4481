//! safetensors files and Hugging Face directories.

use std::fs;
use std::path::Path;

use super::Target;
use crate::checkpoint::hugging_face::{CONFIG_FILE, INDEX_FILE, SINGLE_FILE, read_config};
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::optimizer_files::file_name;
use crate::checkpoint::{OptimizerFiles, TensorFile};
use crate::error::{Error, Result};
use crate::{fixtures, verify};

fn file(write: impl Fn(&Path), name: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    fs::read(dir.path().join(name)).unwrap()
}

fn whole_model(dir: &Path) {
    fixtures::model(dir, u64::MAX);
}

fn in_shards(dir: &Path) {
    fixtures::model(dir, 8000);
}

/// Opens a model as every command does, and as `trainer verify` does.
fn open_model(path: &Path) -> Result<()> {
    let dir = path.parent().unwrap();
    verify::verify(dir, &()).unwrap();
    let files = ModelFiles::open(dir)?;
    files.load()?;
    Ok(())
}

/// What the weights of a directory lack is said of the directory.
fn of_directory(path: &Path, outcome: Result<()>) -> Result<()> {
    let dir = path.parent().unwrap();
    outcome.map_err(|error| match error {
        Error::File { path: of, what } if of == dir => Error::file(path, what),
        other => other,
    })
}

#[test]
fn tensor_files() {
    let small = |dir: &Path| {
        let tensors = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let entries = ["m.a", "v.a", "b[2:5]"].iter().zip([vec![2, 3], vec![6, 1], vec![3]]).map(|(name, shape)| {
            let values = &tensors[..shape.iter().product()];
            crate::checkpoint::TensorEntry::f32(*name, shape, values)
        });
        let path = dir.join("x");
        crate::checkpoint::tensor_file::write_tensor_file(&path, entries.collect(), &[("format", "pt")]).unwrap();
    };
    let name = file_name(0, 1);
    let files = vec![file(small, "x"), file(|dir| fixtures::optimizer(&dir.join("x")), "x")];
    Target::new(file!(), &name, files).run(
        |_| {},
        |path| {
            let file = TensorFile::open(path)?;
            for name in file.names() {
                let elements: usize = file.shape(&name)?.iter().product();
                assert_eq!(file.bytes(&name)?.len() * 8, elements * file.dtype(&name)?.bitsize());
                // Another element type is refused, in words.
                let _ = file.read_f32(&name, &mut vec![0.0; elements]).map_err(|error| error.to_string());
            }
            let optimizer = OptimizerFiles::open(path.parent().unwrap())?;
            for tensor in ["a", "b", "m.a", "v.a"] {
                let (mut out, found) = ([0.0; 6], optimizer.check(tensor, 6));
                assert!(found.is_err() || optimizer.read(tensor, 0..6, &mut out).is_ok());
            }
            Ok(())
        },
    );
}

#[test]
fn weights_of_a_model() {
    let target = Target::new(file!(), SINGLE_FILE, vec![file(whole_model, SINGLE_FILE)]);
    target.run(whole_model, |path| of_directory(path, open_model(path)));
}

#[test]
fn indexes_of_weights() {
    let target = Target::new(file!(), INDEX_FILE, vec![file(in_shards, INDEX_FILE)]);
    target.run(in_shards, |path| of_directory(path, open_model(path)));
}

#[test]
fn configurations_of_models() {
    let microsofts =
        br#"{"model_type": "mixformer-sequential", "n_embd": 8, "n_head": 2, "n_inner": null, "n_layer": 1,
        "n_positions": 16, "rotary_dim": 2, "vocab_size": 257, "pad_vocab_size_multiple": 1, "resid_pdrop": 0.0,
        "architecture": {"block_cls": "parallel", "mixer": {}, "mlp": {"mlp_cls": "mlp"}}, "torch_dtype": "float16"}"#;
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/phi-tiny/model/config.json");
    let files = vec![file(whole_model, CONFIG_FILE), microsofts.to_vec(), fs::read(golden).unwrap()];
    let target = Target::new(file!(), CONFIG_FILE, files);
    target.run(whole_model, |path| {
        let config = read_config(path.parent().unwrap())?;
        assert!(config.architecture.parameters() > 0);
        // Most are of another model than the weights beside them; opening them must be as safe.
        let _ = open_model(path).map_err(|error| error.to_string());
        Ok(())
    });
}
