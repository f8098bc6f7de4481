//! A checkpoint's state, on any number of ranks.

use std::ops::Range;
use std::path::Path;

use burn_tensor::DType;
use trainer_backends::DecoderBackend;

use super::common;
use super::loop_state::LoopState;
use crate::checkpoint::model_files::{self, load_model};
use crate::checkpoint::{Dtype, OptimizerFiles};
use crate::config::{Config, Precision};
use crate::error::{Error, Result};
use crate::model::architecture::Difference;
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
        let differences = model.architecture.differences(&decoder.arch);
        let [there, here] = Difference::told(&differences);
        let sets = Difference::sets(&differences);
        return Err(Error::file(
            checkpoint,
            format!(
                "has {there}, but the configuration has {here}: a run keeps its model, so leave the change out or give \
                 {sets}; for another model choose another --out"
            ),
        ));
    }
    let optimizer = OptimizerFiles::open(checkpoint)?;
    let read = |prefix: &str, part: &dyn Fn(usize) -> Range<usize>| -> Result<HostBuffers> {
        let groups = (0..decoder.table.groups.len()).map(|group| vec![0.0; part(group).len()]);
        let mut host = HostBuffers { groups: groups.collect() };
        for entry in &decoder.table.entries {
            let part = part(entry.group);
            let wanted = common(&part, &entry.range());
            if wanted.is_empty() {
                continue;
            }
            let out = &mut host.groups[entry.group][wanted.start - part.start..][..wanted.len()];
            let elements = wanted.start - entry.offset..wanted.end - entry.offset;
            optimizer.read(&format!("{prefix}{}", entry.name), elements, out)?;
        }
        Ok(host)
    };
    let (own, whole) = (|group| replica.kept(group), |group: usize| 0..decoder.table.groups[group].len);
    let precision = config.train.precision;
    // A run may go on in another precision. Its fp32 weights are then the masters that it had, or become them.
    let same_precision = model.dtype.is_none_or(|stored| stored == model_files::dtype(precision));
    let from_masters = !same_precision && model.dtype != Some(Dtype::F32);
    let weights = if from_masters { read("master.", &whole)? } else { weights };
    let device = &decoder.device;
    let mut state = TrainState::of_rank(config, &decoder.table, weights, device, replica);
    if same_precision && precision != Precision::Fp32 {
        let master: Buffers<B> = read("master.", &own)?.upload(device, DType::F32);
        if replica.zero == 0 {
            state.weights = master.iter().map(|group| group.clone().cast(dtype(precision))).collect();
        }
        state.master = Some(master);
    }
    debug_assert!(state.weights.iter().all(|group| group.dtype() == dtype(config.train.precision)));
    state.m = read("m.", &own)?.upload::<B>(device, DType::F32);
    state.v = read("v.", &own)?.upload::<B>(device, DType::F32);
    state.step = loop_state.step;
    state.updates = loop_state.updates;
    // Only fp16 has one, and begins with the configuration's where the checkpoint has none.
    state.loss_scale = state.loss_scale.map(|first| loop_state.loss_scale.unwrap_or(first));
    Ok((state, loop_state))
}
