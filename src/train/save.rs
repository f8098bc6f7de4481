//! A run's state to and from a checkpoint directory.

use std::fs;
use std::ops::Range;
use std::path::Path;

use burn_tensor::DType;
use serde::{Deserialize, Serialize};
use trainer_backends::DecoderBackend;

use super::loss_scale::LossScale;
use super::state::{TrainState, dtype};
use crate::checkpoint::hugging_face::ConfigExtras;
use crate::checkpoint::model_files::{self, device_entry, device_part, load_model};
use crate::checkpoint::optimizer_files::file_name;
use crate::checkpoint::{CheckpointWriter, Dtype, OptimizerFiles, TensorEntry};
use crate::config::{Config, Precision};
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result, Short};
use crate::model::{Buffers, Decoder, HostBuffers};
use crate::parallel::Replica;
use crate::parallel::session::{lead, together};

/// The file of a checkpoint that holds a [`LoopState`].
pub const STATE: &str = "state.json";

/// More steps than a configuration may ask for, and more tokens than they can have, are damage: what goes on counts up from
/// them.
const MOST_STEPS: u64 = 99_999_999;
const MOST_TOKENS: u64 = 1 << 62;

/// The best validation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub step: u64,
    pub val_loss: f64,
}

/// What a run needs to go on besides weights and moments: state.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoopState {
    /// The version of the program that wrote it.
    pub version: String,
    pub step: u64,
    pub updates: u64,
    pub loss_scale: Option<LossScale>,
    /// Tokens trained on, over all resumes.
    pub tokens: u64,
    /// Seconds of training, over all resumes.
    pub seconds: f64,
    pub best: Option<Best>,
    /// `Dataset::fingerprint` of the training split, as hexadecimal: the data position is (step, this).
    pub data: String,
}

impl LoopState {
    /// Reads a checkpoint's state.json.
    ///
    /// # Errors
    /// No such file, or another one of that name.
    pub fn read(checkpoint: &Path) -> Result<Self> {
        let path = checkpoint.join(STATE);
        let json = fs::read(&path).map_err(Error::io("read", &path))?;
        let refused =
            |why: String| Error::file(&path, format!("is not the state of a run: {why}; take another checkpoint"));
        let state: Self = serde_json::from_slice(&json).map_err(|error| refused(Short(error).to_string()))?;
        if state.step > MOST_STEPS || state.tokens > MOST_TOKENS || state.updates > state.step {
            let (step, updates, tokens) = (state.step, state.updates, state.tokens);
            return Err(refused(format!("{updates} updates in {step} steps of {tokens} tokens together")));
        }
        if let Some(scale) = state.loss_scale.filter(|scale| !scale.is_sound()) {
            return Err(refused(format!("no loss scale is {scale:?}")));
        }
        Ok(state)
    }
}

/// Writes a whole checkpoint of step `state.step`, or leaves none. All ranks call it: each writes the optimizer state that
/// it owns, the first one all else; they share the file system.
///
/// Precision: `model/` holds the weights in the compute dtype; fp32 master weights and both moments are in the optimizer
/// files, tensor by tensor under their Hugging Face names, so that another layout or number of devices can read them.
///
/// # Errors
/// The same on every rank, whichever rank's disk it is.
pub fn save<B: DecoderBackend>(
    run_dir: &Path,
    decoder: &Decoder<B>,
    state: &TrainState<B>,
    config: &Config,
    loop_state: &LoopState,
    tokenizer: Option<&Tokenizer>,
    replica: &Replica,
) -> Result<()> {
    let group = &*replica.group;
    let mut writer = CheckpointWriter::join(run_dir, state.step);
    lead(group, || {
        writer = CheckpointWriter::begin(run_dir, state.step)?;
        Ok(())
    })?;
    let written = writer
        .write_tensors(&file_name(group.rank(), group.size()), optimizer_entries(decoder, state, replica))
        .and_then(|()| match replica.is_first() {
            true => write_common(&writer, decoder, state, config, loop_state, tokenizer),
            false => Ok(()),
        });
    together(group, written)?;
    lead(group, || writer.commit().map(|_| ()))
}

/// What the first rank writes.
fn write_common<B: DecoderBackend>(
    writer: &CheckpointWriter,
    decoder: &Decoder<B>,
    state: &TrainState<B>,
    config: &Config,
    loop_state: &LoopState,
    tokenizer: Option<&Tokenizer>,
) -> Result<()> {
    let mut extras = ConfigExtras::new(model_files::dtype(config.train.precision));
    extras.eos_token_id = tokenizer.map(Tokenizer::end_of_text);
    extras.residual_dropout = config.model.residual_dropout;
    extras.attention_dropout = config.model.attention_dropout;
    extras.embedding_dropout = config.model.embedding_dropout;
    writer.write_model(|model| {
        model_files::save_model(model, &decoder.arch, &extras, &decoder.table, &state.weights)?;
        tokenizer.map_or(Ok(()), |tokenizer| tokenizer.save(model))
    })?;
    let json = serde_json::to_vec_pretty(loop_state).map_err(|error| Error::failed(format!("{STATE}: {error}")))?;
    writer.write_file(STATE, &json)
}

/// The optimizer state that this rank writes: whole tensors where it is alone, else what it owns of each.
fn optimizer_entries<'a, B: DecoderBackend>(
    decoder: &'a Decoder<B>,
    state: &'a TrainState<B>,
    replica: &Replica,
) -> Vec<TensorEntry<'a>> {
    let buffers = [("master.", state.master.as_ref()), ("m.", Some(&state.m)), ("v.", Some(&state.v))];
    let mut entries = Vec::new();
    for (prefix, buffers) in buffers.into_iter().filter_map(|(prefix, buffers)| Some((prefix, buffers?))) {
        for entry in &decoder.table.entries {
            if replica.is_alone() {
                entries.push(device_entry::<B>(prefix, entry, buffers, Dtype::F32));
                continue;
            }
            let owned = common(&replica.own(entry.group), &entry.range());
            if !owned.is_empty() {
                let part = owned.start - entry.offset..owned.end - entry.offset;
                let start = owned.start - replica.kept(entry.group).start;
                entries.push(device_part(&format!("{prefix}{}", entry.name), &buffers[entry.group], &part, start));
            }
        }
    }
    entries
}

fn common(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// Reads a checkpoint that `save` wrote on any number of ranks (already verified against its MANIFEST).
pub fn load<B: DecoderBackend>(
    checkpoint: &Path,
    decoder: &Decoder<B>,
    config: &Config,
    replica: &Replica,
) -> Result<(TrainState<B>, LoopState)> {
    let loop_state = LoopState::read(checkpoint)?;
    let (model, weights) = load_model(&checkpoint.join("model"))?;
    if model.architecture != decoder.arch {
        return Err(Error::file(
            checkpoint,
            format!("holds another model ({:?}) than the run's config.toml ({:?})", model.architecture, decoder.arch),
        ));
    }
    let optimizer = OptimizerFiles::open(checkpoint)?;
    let groups = 0..decoder.table.groups.len();
    let read = |prefix: &str| -> Result<HostBuffers> {
        let mut host =
            HostBuffers { groups: groups.clone().map(|group| vec![0.0; replica.kept(group).len()]).collect() };
        for entry in &decoder.table.entries {
            let kept = replica.kept(entry.group);
            let wanted = common(&kept, &entry.range());
            if wanted.is_empty() {
                continue;
            }
            let out = &mut host.groups[entry.group][wanted.start - kept.start..][..wanted.len()];
            let part = wanted.start - entry.offset..wanted.end - entry.offset;
            optimizer.read(&format!("{prefix}{}", entry.name), part, out)?;
        }
        Ok(host)
    };
    let device = &decoder.device;
    let mut state = TrainState::of_rank(config, &decoder.table, weights, device, replica);
    if config.train.precision != Precision::Fp32 {
        let master: Buffers<B> = read("master.")?.upload(device, DType::F32);
        if replica.zero == 0 {
            let narrow = dtype(config.train.precision);
            state.weights = master.iter().map(|group| group.clone().cast(narrow)).collect();
        }
        state.master = Some(master);
    }
    debug_assert!(state.weights.iter().all(|group| group.dtype() == dtype(config.train.precision)));
    state.m = read("m.")?.upload::<B>(device, DType::F32);
    state.v = read("v.")?.upload::<B>(device, DType::F32);
    state.step = loop_state.step;
    state.updates = loop_state.updates;
    state.loss_scale = loop_state.loss_scale;
    Ok((state, loop_state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    /// What goes on counts up from these numbers, and the rules of the loss scale keep it within bounds.
    #[test]
    fn states_that_no_run_comes_to_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let whole: serde_json::Value = serde_json::from_slice(&fixtures::state(4)).unwrap();
        let read = |change: serde_json::Value| {
            let mut state = whole.clone();
            state.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            fs::write(dir.path().join(STATE), state.to_string()).unwrap();
            LoopState::read(dir.path()).map_err(|error| error.to_string())
        };
        let scale = |scale: f64, clean: u64, hysteresis: u32| serde_json::json!({"loss_scale": {"scale": scale, "clean_steps": clean, "hysteresis": hysteresis}});
        for sound in [serde_json::json!({}), scale(65_536.0, 999, 2), scale(1.0, 0, 1)] {
            read(sound).unwrap();
        }
        for (odd, why) in [
            (serde_json::json!({"updates": 5}), "5 updates in 4 steps"),
            (serde_json::json!({"step": u64::MAX}), "in 18446744073709551615 steps"),
            (serde_json::json!({"tokens": u64::MAX}), "of 18446744073709551615 tokens"),
            (scale(0.5, 0, 2), "no loss scale is"),
            (scale(2.0, 1000, 2), "no loss scale is"),
            (scale(2.0, 0, 0), "no loss scale is"),
        ] {
            let refused = read(odd).unwrap_err();
            assert!(refused.contains(why) && refused.contains("state.json"), "{refused}");
        }
    }
}
