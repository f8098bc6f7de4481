//! What comes before a run's first step and can go wrong there: the model, the device, the run directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trainer_backends::DecoderBackend;

use super::Resume;
use crate::checkpoint::model_files::load_model;
use crate::checkpoint::{self, Found, RunLock, resolve_model_dir};
use crate::config::Config;
use crate::error::{Error, Result};
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
    let given = init_from.map(|path| given_weights(&decoder, path)).transpose()?;
    Ok((decoder, replica, given))
}

/// Makes the run directory this program's, and finds the checkpoint to go on from.
pub(super) fn claim(out: &Path, resume: Resume) -> Result<(RunLock, Option<PathBuf>)> {
    fs::create_dir_all(out).map_err(Error::io("create", out))?;
    let lock = RunLock::acquire(out)?;
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
fn given_weights<B: DecoderBackend>(decoder: &Decoder<B>, path: &Path) -> Result<HostBuffers> {
    let location = resolve_model_dir(path)?;
    let (model, weights) = load_model(&location.model)?;
    // How long its sequences may be is no part of the weights.
    let found = crate::model::Architecture { context: decoder.arch.context, ..model.architecture };
    if found != decoder.arch {
        return Err(Error::file(
            path,
            format!("is another model than the configuration's: {found:?} there, {:?} here", decoder.arch),
        ));
    }
    Ok(weights)
}
