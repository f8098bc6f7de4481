//! A Hugging Face directory. It has no checksums: its structure is held against its own config.json, and its weights are
//! looked through for values that no sound model has.

use std::path::Path;

use super::{Checks, Progress, checkpoint, size};
use crate::checkpoint::element::count_non_finite;
use crate::checkpoint::hugging_face::{CONFIG_FILE, other_model, read_config};
use crate::checkpoint::manifest;
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::storage::parent;
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::report::table::{bytes, thousands};

const FETCH: &str = "fetch or export the model again";

/// Another model's directory is whole, perhaps, but nothing that can be judged here.
pub(super) fn refuse_other(dir: &Path) -> Result<()> {
    match other_model(dir) {
        Some(found) if checkpoint_of(dir).is_none() => {
            let what = format!("is a model of type {found}: only phi's can be verified");
            Err(Error::file(dir, what))
        }
        _ => Ok(()),
    }
}

/// The checkpoint that a directory is the model of, whose checksums are its own.
fn checkpoint_of(dir: &Path) -> Option<&Path> {
    Some(parent(dir)).filter(|checkpoint| dir.ends_with("model") && checkpoint.join(manifest::FILE_NAME).is_file())
}

pub(super) fn check(dir: &Path, checks: &mut Checks) {
    checks.progress.expect(size(dir));
    if let Some(checkpoint) = checkpoint_of(dir) {
        checks.progress.expect(size(dir));
        checks.add(dir, checkpoint::whole(checkpoint, "model/", checks.progress));
    }
    checks.add(&dir.join(CONFIG_FILE), read_config(dir).map(|_| "describes a model that can be loaded".to_string()));
    checks.add(dir, weights(dir, checks.progress).map(|found| format!("{found}; its files have no checksums")));
    check_tokenizer(dir, checks);
}

/// The tokenizer.json, where there is one.
pub(super) fn check_tokenizer(dir: &Path, checks: &mut Checks) {
    let path = dir.join("tokenizer.json");
    if path.is_file() {
        checks.add(&path, tokenizer(dir, &path));
    }
}

/// Names, shapes and element types, and that every value is finite.
pub(super) fn weights(dir: &Path, progress: &dyn Progress) -> Result<String> {
    let files = ModelFiles::open(dir)?;
    let reader = files.reader();
    let (mut total, mut odd) = (0, Vec::new());
    for name in reader.names() {
        let stored = reader.bytes(name)?;
        // Buffers that some exports carry may be of any type.
        let found = count_non_finite(reader.dtype(name)?, stored).unwrap_or(0);
        if found > 0 {
            odd.push(format!("{found} in {name}"));
        }
        progress.read(stored.len() as u64);
        total += stored.len() as u64;
    }
    if !odd.is_empty() {
        let what = format!("its weights hold values that are NaN or infinite ({}): {FETCH}", odd.join(", "));
        return Err(Error::file(dir, what));
    }
    let parameters = thousands(files.config.architecture.parameters());
    Ok(format!("{parameters} parameters in {}, names and shapes as in config.json, all finite", bytes(total)))
}

fn tokenizer(dir: &Path, path: &Path) -> Result<String> {
    let name = path.to_str().ok_or_else(|| Error::file(path, "this path is not UTF-8: move it"))?;
    let tokenizer = Tokenizer::load(name)?;
    let ids = tokenizer.vocab_size();
    if let Ok(config) = read_config(dir)
        && ids > config.architecture.vocab
    {
        let what = format!("has {ids} ids, but the model's vocabulary only {}: {FETCH}", config.architecture.vocab);
        return Err(Error::file(path, what));
    }
    Ok(format!("a tokenizer of {ids} ids"))
}
