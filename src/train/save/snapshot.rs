//! The state of one moment, in host memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use burn_tensor::{DType, Tensor};
use trainer_backends::DecoderBackend;

use crate::model::Buffers;
use crate::train::state::TrainState;

/// Weights, master weights and moments after a step, copied off the device, so that the next step may change those there
/// while these are written. Takes as much host memory as the device keeps of them: 14 bytes a parameter in fp16.
pub struct Snapshot {
    pub step: u64,
    /// Whole groups in the compute dtype.
    pub weights: Vec<HostCopy>,
    /// By the prefix of their names in the optimizer's files: what this rank keeps of each group, fp32.
    pub optimizer: Vec<(&'static str, Vec<HostCopy>)>,
}

impl Snapshot {
    /// Copies into `memory`; waits for the device.
    pub fn take<B: DecoderBackend>(state: &TrainState<B>, memory: &HostMemory) -> Self {
        let copy = |buffers: &Buffers<B>| buffers.iter().map(|group| memory.copy(group)).collect();
        let mut optimizer: Vec<(&'static str, Vec<HostCopy>)> = Vec::new();
        optimizer.extend(state.master.as_ref().map(|master| ("master.", copy(master))));
        optimizer.extend([("m.", copy(&state.m)), ("v.", copy(&state.v))]);
        Self { step: state.step, weights: copy(&state.weights), optimizer }
    }

    /// CRC-32 of the weights: every rank's are the same bits.
    pub fn weights_checksum(&self) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        self.weights.iter().for_each(|group| crc.update(group.bytes()));
        crc.finalize()
    }
}

/// As a snapshot's, of weights on a device.
pub fn weights_checksum<B: DecoderBackend>(weights: &Buffers<B>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    weights.iter().for_each(|group| crc.update(group.clone().into_data().as_bytes()));
    crc.finalize()
}

/// The host memory of a run's snapshots, kept from one to the next. Fresh memory costs a page fault every 4 KiB, which takes
/// several times as long as the copy; on a virtual machine that touches a page for the first time, ten times.
#[derive(Clone, Default)]
pub struct HostMemory(Arc<Mutex<Spare>>);

#[derive(Default)]
struct Spare {
    buffers: Vec<Vec<u8>>,
    /// Fetches the first ones.
    fetching: Option<JoinHandle<Vec<Vec<u8>>>>,
}

impl HostMemory {
    /// For the snapshots of `state`: its memory is fetched beside the training, before the first of them wants it.
    pub fn of<B: DecoderBackend>(state: &TrainState<B>) -> Self {
        let moments = [state.master.as_ref(), Some(&state.m), Some(&state.v), Some(&state.weights)];
        let groups = moments.into_iter().flatten().flat_map(|buffers| buffers.iter());
        let sizes: Vec<usize> = groups.map(|group| group.dims()[0] * group.dtype().size()).collect();
        // Not zeros: the system promises those, and fetches them when they are written to.
        let fetch = move || sizes.into_iter().map(|size| vec![0xff; size]).collect();
        // Without the thread the first snapshot takes longer.
        let fetching = std::thread::Builder::new().name("snapshot memory".into()).spawn(fetch).ok();
        Self(Arc::new(Mutex::new(Spare { buffers: Vec::new(), fetching })))
    }

    /// A copy of a buffer; waits for the device.
    pub fn copy<B: DecoderBackend>(&self, flat: &Tensor<B, 1>) -> HostCopy {
        B::with_bytes(flat, |bytes| self.keep(bytes, flat.dtype()))
    }

    /// A copy of `source`.
    pub fn keep(&self, source: &[u8], dtype: DType) -> HostCopy {
        let mut bytes = self.spare(source.len()).unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(source);
        HostCopy { bytes, dtype, memory: self.clone() }
    }

    fn spare(&self, len: usize) -> Option<Vec<u8>> {
        let mut spare = self.lock();
        if let Some(fetching) = spare.fetching.take() {
            spare.buffers.extend(fetching.join().unwrap_or_default());
        }
        let place = spare.buffers.iter().position(|buffer| buffer.len() == len)?;
        Some(spare.buffers.swap_remove(place))
    }

    fn lock(&self) -> MutexGuard<'_, Spare> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A flat buffer in host memory, which goes back to where it came from.
pub struct HostCopy {
    bytes: Vec<u8>,
    dtype: DType,
    memory: HostMemory,
}

impl HostCopy {
    /// As the host has them: safetensors' order, little-endian, is that of every host with a GPU.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }
}

impl Drop for HostCopy {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.memory.lock().buffers.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trainer_backends::Cpu;

    #[test]
    fn memory_is_used_again_and_holds_what_was_copied() {
        use crate::config::Config;
        use crate::model::{HostBuffers, ParameterTable};

        let config = Config::resolve(Some("demo"), None, &["train.precision=fp16".into()]).unwrap();
        let table = ParameterTable::new(&config.architecture());
        let weights = HostBuffers::init(&config.architecture(), &table, 0);
        let state = TrainState::<Cpu>::new(&config, &table, weights, &Default::default());
        let memory = HostMemory::of(&state);
        let take = || Snapshot::take(&state, &memory);
        let places = |snapshot: &Snapshot| {
            let copies = snapshot.optimizer.iter().flat_map(|(_, groups)| groups).chain(&snapshot.weights);
            let mut places: Vec<_> = copies.map(|copy| (copy.bytes.as_ptr(), copy.bytes.len())).collect();
            places.sort_unstable();
            places
        };
        let first = take();
        assert_eq!(first.optimizer.len(), 3);
        assert!(memory.lock().buffers.is_empty(), "more was fetched than a snapshot takes");
        for (copies, buffers) in [(&first.weights, &state.weights), (&first.optimizer[1].1, &state.m)] {
            for (copy, group) in copies.iter().zip(buffers.iter()) {
                let data = group.clone().into_data();
                assert_eq!((copy.bytes(), copy.dtype()), (data.as_bytes(), data.dtype));
            }
        }
        let before = places(&first);
        drop(first);
        assert_eq!(places(&take()), before);
    }
}
