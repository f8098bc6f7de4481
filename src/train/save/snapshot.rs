//! The state of one moment, in host memory.

use burn_tensor::TensorData;
use trainer_backends::DecoderBackend;

use crate::model::Buffers;
use crate::train::state::TrainState;

/// Weights, master weights and moments after a step, copied off the device, so that the next step may change those there
/// while these are written. Takes as much host memory as the device keeps of them: 14 bytes a parameter in fp16.
pub struct Snapshot {
    pub step: u64,
    /// Whole groups in the compute dtype.
    pub weights: Vec<TensorData>,
    /// By the prefix of their names in the optimizer's files: what this rank keeps of each group, fp32.
    pub optimizer: Vec<(&'static str, Vec<TensorData>)>,
}

impl Snapshot {
    /// Copies; waits for the device.
    pub fn take<B: DecoderBackend>(state: &TrainState<B>) -> Self {
        let copy = |buffers: &Buffers<B>| buffers.iter().map(|group| group.clone().into_data()).collect();
        let mut optimizer: Vec<(&'static str, Vec<TensorData>)> = Vec::new();
        optimizer.extend(state.master.as_ref().map(|master| ("master.", copy(master))));
        optimizer.extend([("m.", copy(&state.m)), ("v.", copy(&state.v))]);
        Self { step: state.step, weights: copy(&state.weights), optimizer }
    }

    /// CRC-32 of the weights: every rank's are the same bits.
    pub fn weights_checksum(&self) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        self.weights.iter().for_each(|group| crc.update(group.as_bytes()));
        crc.finalize()
    }
}

/// As a snapshot's, of weights on a device.
pub fn weights_checksum<B: DecoderBackend>(weights: &Buffers<B>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    weights.iter().for_each(|group| crc.update(group.clone().into_data().as_bytes()));
    crc.finalize()
}
