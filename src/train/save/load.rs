//! A checkpoint's state, on any number of ranks.

use std::path::Path;

use burn_tensor::DType;
use trainer_backends::DecoderBackend;

use super::common;
use super::loop_state::LoopState;
use crate::checkpoint::OptimizerFiles;
use crate::checkpoint::model_files::load_model;
use crate::config::{Config, Precision};
use crate::error::{Error, Result};
use crate::model::{Buffers, Decoder, HostBuffers};
use crate::parallel::Replica;
use crate::train::state::{TrainState, dtype};

/// Reads a checkpoint that was written on any number of ranks (already verified against its MANIFEST).
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
