//! One checkpoint: every file by its checksum, and whether the files fit each other.

use std::path::Path;

use super::{Checks, Progress, model, size};
use crate::checkpoint::layout::{self, REPLACED};
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::{Dtype, OptimizerFiles, manifest};
use crate::error::{Error, Result};
use crate::report::table::bytes;
use crate::train::save::{LoopState, STATE};

pub(super) fn check(dir: &Path, checks: &mut Checks) {
    expect(dir, checks);
    let name = dir.file_name().and_then(|name| name.to_str()).map(|name| name.strip_prefix(REPLACED).unwrap_or(name));
    check_expected(dir, name.and_then(layout::parse_step_name), checks);
}

/// Announces what `check_expected` reads: every file for its checksum, the weights once more.
pub(super) fn expect(dir: &Path, checks: &Checks) {
    checks.progress.expect(size(dir) + size(&dir.join("model")));
}

/// `step`: what the directory's name says.
pub(super) fn check_expected(dir: &Path, step: Option<u64>, checks: &mut Checks) {
    checks.add(dir, whole(dir, "", checks.progress));
    checks.add(&dir.join(STATE), state(dir, step));
    let model = dir.join("model");
    checks.add(&model, model::weights(&model, checks.progress));
    model::check_tokenizer(&model, checks);
    let optimizer = dir.join("optimizer-*");
    checks.add(&optimizer, moments(dir, &model));
}

/// The files below `prefix` against MANIFEST.
pub(super) fn whole(dir: &Path, prefix: &str, progress: &dyn Progress) -> Result<String> {
    let found = manifest::verify_watched(dir, prefix, &|bytes| progress.read(bytes));
    let (files, total) = found.map_err(|error| match error {
        Error::File { path, what } => Error::file(path, format!("{what}: copy it again, or take another checkpoint")),
        other => other,
    })?;
    Ok(format!("{files} files of {}, by their checksums in {}", bytes(total), manifest::FILE_NAME))
}

fn state(dir: &Path, step: Option<u64>) -> Result<String> {
    let LoopState { step: found, .. } = LoopState::read(dir)?;
    match step {
        Some(step) if step != found => {
            let what = format!("is of step {found}, in a checkpoint of step {step}: take another checkpoint");
            Err(Error::file(dir.join(STATE), what))
        }
        _ => Ok(format!("of step {found}")),
    }
}

/// Every element of the optimizer's state: both moments and, unless the weights are fp32 themselves, their fp32 masters.
fn moments(dir: &Path, model: &Path) -> Result<String> {
    let model = ModelFiles::open(model)?;
    let files = OptimizerFiles::open(dir)?;
    let masters = model.dtype()? != Dtype::F32;
    let prefixes = ["m.", "v."].into_iter().chain(masters.then_some("master."));
    for prefix in prefixes {
        for entry in &model.table().entries {
            files.check(&format!("{prefix}{}", entry.name), entry.len())?;
        }
    }
    Ok(format!("moments{} of every parameter", if masters { " and fp32 weights" } else { "" }))
}
