//! A run's state to and from a checkpoint directory.

use std::fs;
use std::path::Path;

use burn_tensor::DType;
use serde::{Deserialize, Serialize};
use trainer_backends::DecoderBackend;

use super::loss_scale::LossScale;
use super::state::{TrainState, dtype};
use crate::checkpoint::hugging_face::ConfigExtras;
use crate::checkpoint::model_files::{self, device_entry, load_model};
use crate::checkpoint::{CheckpointWriter, Dtype, TensorFile};
use crate::config::{Config, Precision};
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::model::{Decoder, HostBuffers};

const STATE: &str = "state.json";
const OPTIMIZER: &str = "optimizer-00000-of-00001.safetensors";

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

/// Writes a whole checkpoint of step `state.step`, or leaves none.
///
/// Precision: `model/` holds the weights in the compute dtype; fp32 master weights and both moments are in the optimizer
/// file, tensor by tensor under their Hugging Face names, so that another layout or number of devices can read them.
pub fn save<B: DecoderBackend>(
    run_dir: &Path,
    decoder: &Decoder<B>,
    state: &TrainState<B>,
    config: &Config,
    loop_state: &LoopState,
    tokenizer: Option<&Tokenizer>,
) -> Result<()> {
    let writer = CheckpointWriter::begin(run_dir, state.step)?;
    let model = writer.model_dir()?;
    let mut extras = ConfigExtras::new(model_files::dtype(config.train.precision));
    extras.eos_token_id = tokenizer.map(Tokenizer::end_of_text);
    extras.residual_dropout = config.model.residual_dropout;
    extras.attention_dropout = config.model.attention_dropout;
    extras.embedding_dropout = config.model.embedding_dropout;
    model_files::save_model(&model, &decoder.arch, &extras, &decoder.table, &state.weights)?;
    if let Some(tokenizer) = tokenizer {
        tokenizer.save(&model)?;
    }
    let parts = [("master.", state.master.as_ref()), ("m.", Some(&state.m)), ("v.", Some(&state.v))];
    let entries =
        parts.into_iter().filter_map(|(prefix, buffers)| Some((prefix, buffers?))).flat_map(|(prefix, buffers)| {
            decoder.table.entries.iter().map(move |entry| device_entry::<B>(prefix, entry, buffers, Dtype::F32))
        });
    writer.write_tensors(OPTIMIZER, entries.collect())?;
    let json = serde_json::to_vec_pretty(loop_state).map_err(|error| Error::failed(format!("{STATE}: {error}")))?;
    writer.write_file(STATE, &json)?;
    writer.commit()?;
    Ok(())
}

/// Reads a checkpoint that `save` wrote (already verified against its MANIFEST).
pub fn load<B: DecoderBackend>(
    checkpoint: &Path,
    decoder: &Decoder<B>,
    config: &Config,
) -> Result<(TrainState<B>, LoopState)> {
    let path = checkpoint.join(STATE);
    let json = fs::read(&path).map_err(Error::io("read", &path))?;
    let loop_state: LoopState = serde_json::from_slice(&json)
        .map_err(|error| Error::file(&path, format!("is not the state of a run: {error}; take another checkpoint")))?;
    let (model, weights) = load_model(&checkpoint.join("model"))?;
    if model.architecture != decoder.arch {
        return Err(Error::file(
            checkpoint,
            format!("holds another model ({:?}) than the run's config.toml ({:?})", model.architecture, decoder.arch),
        ));
    }
    let optimizer = TensorFile::open(&checkpoint.join(OPTIMIZER))?;
    let read = |prefix: &str| -> Result<HostBuffers> {
        let mut host = HostBuffers::zeros(&decoder.table);
        for entry in &decoder.table.entries {
            optimizer.read_f32(&format!("{prefix}{}", entry.name), host.slice_mut(entry))?;
        }
        Ok(host)
    };
    let device = &decoder.device;
    let fp32 = config.train.precision == Precision::Fp32;
    let master = if fp32 { weights } else { read("master.")? };
    let mut state = TrainState::new(config, &decoder.table, master, device);
    debug_assert!(state.weights.iter().all(|group| group.dtype() == dtype(config.train.precision)));
    state.m = read("m.")?.upload::<B>(device, DType::F32);
    state.v = read("v.")?.upload::<B>(device, DType::F32);
    state.step = loop_state.step;
    state.updates = loop_state.updates;
    state.loss_scale = loop_state.loss_scale;
    Ok((state, loop_state))
}
