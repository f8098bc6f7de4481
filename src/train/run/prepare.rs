//! What comes before a run's first step and can go wrong there: the model, the device, the run directory.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use trainer_backends::DecoderBackend;

use super::Resume;
use crate::checkpoint::model_files::load_model;
use crate::checkpoint::{self, Found, RunLock, layout, resolve_model_dir, storage};
use crate::config::{Config, Precision};
use crate::error::{Error, Result};
use crate::model::architecture::Difference;
use crate::model::{Decoder, HostBuffers};
use crate::parallel::{Collective, Replica, session};
use crate::report::voice::say;
use crate::train::device::DeviceFacts;
use crate::train::input::TrainingData;
use crate::train::state::dtype;

/// A decoder, this rank's share of the run, and the weights to start from where they are given.
pub(super) type Prepared<B> = (Decoder<B>, Replica, Option<HostBuffers>);

/// Everything that can be wrong before anything is written.
///
/// # Errors
/// A device, data, a model to start from or a number of ranks that does not suit the configuration.
pub(super) fn prepare<B: DecoderBackend>(
    config: &Config,
    init_from: Option<&Path>,
    data: &TrainingData,
    device: &B::Device,
    facts: &DeviceFacts,
    (group, overlap): (&Arc<dyn Collective>, bool),
) -> Result<Prepared<B>> {
    let precision = config.train.precision;
    if !B::supports_dtype(device, dtype(precision)) {
        return Err(Error::input(format!(
            "{} does not compute in {precision}: choose another precision (--set train.precision=fp32) or device",
            facts.description
        )));
    }
    data.check_vocab(config.model.vocab)?;
    let seq = config.model.seq_len;
    if config.validation.every > 0 {
        data.check_validation(seq)?;
    }
    let decoder = Decoder::<B>::new(config.architecture(), seq, device, config.train.recompute);
    facts.check_bindings(&decoder.table)?;
    facts.check_memory(config, group.size())?;
    let replica = Replica::new(group.clone(), config, &decoder.table, overlap)?;
    // Read before anything is written: it may be no model, or another one.
    let given = init_from.map(|path| given_weights(&decoder, path, precision)).transpose()?;
    Ok((decoder, replica, given))
}

/// Makes the run directory this program's, and finds the checkpoint to go on from.
pub(super) fn claim(out: &Path, resume: Resume) -> Result<(RunLock, Option<PathBuf>)> {
    fs::create_dir_all(out).map_err(Error::io("create", out))?;
    let lock = RunLock::acquire(out)?;
    let checkpoints = layout::checkpoints_dir(out);
    if resume == Resume::Replace && checkpoints.exists() {
        say(&format!("replacing the earlier run in {}", out.display()));
        fs::remove_dir_all(&checkpoints).map_err(storage::write_error("remove", &checkpoints))?;
    }
    // What a run of several ranks that was killed left behind.
    let _ = fs::remove_dir_all(out.join(session::SIGNS));
    for removed in checkpoint::clean_stale(out)? {
        say(&format!("removed what an interrupted save left behind: {removed}"));
    }
    let Some(Found { dir, note }) = checkpoint::find_latest(out)? else { return Ok((lock, None)) };
    if resume == Resume::Never {
        return Err(Error::file(
            out,
            format!(
                "already holds a run (newest checkpoint {}): leave --resume=never out to go on with it, or choose another --out",
                dir.display()
            ),
        ));
    }
    note.iter().for_each(|note| say(note));
    Ok((lock, Some(dir)))
}

/// The weights of the model at `path`.
///
/// # Errors
/// No model there, or one of another shape.
fn given_weights<B: DecoderBackend>(decoder: &Decoder<B>, path: &Path, precision: Precision) -> Result<HostBuffers> {
    let location = resolve_model_dir(path)?;
    let (model, weights) = load_model(&location.model)?;
    // How long its sequences may be is no part of the weights.
    let found = crate::model::Architecture { context: decoder.arch.context, ..model.architecture };
    if found != decoder.arch {
        let differences = found.differences(&decoder.arch);
        let [there, here] = Difference::told(&differences);
        let sets = Difference::sets(&differences);
        return Err(Error::file(
            path,
            format!("has {there}, but the configuration has {here}: give {sets}, or start from another model"),
        ));
    }
    check_numbers(&weights, precision).map_err(|what| Error::file(path, what))?;
    Ok(weights)
}

/// What is wrong with weights to start from, in words.
fn check_numbers(weights: &HostBuffers, precision: Precision) -> std::result::Result<(), &'static str> {
    let all = |test: fn(f32) -> bool| weights.groups.iter().all(|group| group.par_iter().all(|weight| test(*weight)));
    if !all(f32::is_finite) {
        return Err("holds weights that are not finite numbers: start from another checkpoint or model");
    }
    if precision == Precision::Fp16 && !all(|weight| weight.abs() <= 65504.0) {
        return Err("holds weights beyond fp16's largest number, 65504: train with train.precision=bf16 or fp32");
    }
    Ok(())
}

/// Writes down, in a run that has just been made, which model it begins with: until its first checkpoint nothing else says so.
pub(super) fn write_origin(out: &Path, init_from: Option<&Path>) -> Result<()> {
    let path = out.join(ORIGIN);
    match init_from {
        Some(model) => {
            // A checkpoint by its own name: the latest of its run may be another one later.
            let model = resolve_model_dir(model)?.model;
            let model = fs::canonicalize(&model).map_err(Error::io("read", &model))?;
            let text = serde_json::to_string(&model).map_err(|error| Error::failed(format!("JSON: {error}")))?;
            storage::replace_file(&path, text.as_bytes())
        }
        None if path.exists() => fs::remove_file(&path).map_err(storage::write_error("remove", &path)),
        None => Ok(()),
    }
}

/// The model that a run without a checkpoint began with; `None`: random weights.
///
/// # Errors
/// What names it is damaged.
pub(super) fn origin(out: &Path) -> Result<Option<PathBuf>> {
    let path = out.join(ORIGIN);
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => serde_json::from_slice(&read.map_err(Error::io("read", &path))?)
            .map(Some)
            .map_err(|_| Error::file(&path, "names no model: remove this run and start it again")),
    }
}

/// The file in a run directory that names the model that the run began with.
const ORIGIN: &str = "init-from.json";
