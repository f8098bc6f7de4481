//! Everything that a training step changes.

use burn_tensor::{DType, Tensor};
use trainer_backends::DecoderBackend;

use super::loss_scale::LossScale;
use crate::config::{Config, Precision};
use crate::model::{Buffers, HostBuffers, ParameterTable};
use crate::parallel::Replica;

/// The dtype of weights and activations.
pub fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::Fp32 => DType::F32,
        Precision::Fp16 => DType::F16,
        Precision::Bf16 => DType::BF16,
    }
}

/// Weights, optimizer state and loss scale after `step` steps. Of `master`, `m`, `v` and `grads` a rank among several may
/// keep its own parts only (`Replica`): the buffers are as many, but shorter.
pub struct TrainState<B: DecoderBackend> {
    /// In the compute dtype; in fp32 these are the master weights.
    pub weights: Buffers<B>,
    /// fp32 master weights, where the compute dtype is not fp32.
    pub master: Option<Buffers<B>>,
    pub m: Buffers<B>,
    pub v: Buffers<B>,
    /// fp32; zero between steps.
    pub grads: Buffers<B>,
    /// fp16 only.
    pub loss_scale: Option<LossScale>,
    /// Steps made, skipped ones included.
    pub step: u64,
    /// Updates made: steps less the skipped ones. Decides AdamW's bias corrections.
    pub updates: u64,
}

impl<B: DecoderBackend> TrainState<B> {
    /// The state before the first step, from initial fp32 weights.
    pub fn new(config: &Config, table: &ParameterTable, weights: HostBuffers, device: &B::Device) -> Self {
        Self::of_rank(config, table, weights, device, &Replica::alone(table))
    }

    /// As `new`, as far as a rank keeps it.
    pub fn of_rank(
        config: &Config,
        table: &ParameterTable,
        weights: HostBuffers,
        device: &B::Device,
        replica: &Replica,
    ) -> Self {
        let zeros = |len: &dyn Fn(usize) -> usize| -> Buffers<B> {
            (0..table.groups.len()).map(|group| Tensor::zeros([len(group)], (device, DType::F32))).collect()
        };
        let kept = |group: usize| replica.kept(group).len();
        let whole = |group: usize| table.groups[group].len;
        let (weights, master) = if replica.zero == 0 {
            upload(config.train.precision, weights, device)
        } else {
            let own = |(group, values): (usize, &Vec<f32>)| values[replica.kept(group)].to_vec();
            let own = HostBuffers { groups: weights.groups.iter().enumerate().map(own).collect() };
            let narrow = config.train.precision != Precision::Fp32;
            (
                weights.upload::<B>(device, dtype(config.train.precision)),
                narrow.then(|| own.upload::<B>(device, DType::F32)),
            )
        };
        Self {
            weights,
            master,
            m: zeros(&kept),
            v: zeros(&kept),
            grads: if replica.zero == 2 { zeros(&kept) } else { zeros(&whole) },
            loss_scale: (config.train.precision == Precision::Fp16).then(|| LossScale::new(config.train.loss_scale)),
            step: 0,
            updates: 0,
        }
    }

    /// Gives back the device's memory; the state is none any more, to be replaced by another.
    pub fn release(&mut self) {
        for buffers in [&mut self.weights, &mut self.m, &mut self.v, &mut self.grads] {
            buffers.clear();
        }
        self.master = None;
    }

    /// The fp32 weights on the host.
    pub fn master_weights(&self) -> HostBuffers {
        HostBuffers::download(self.master.as_ref().unwrap_or(&self.weights))
    }
}

/// Working weights and, where they are not fp32 themselves, the master weights.
pub fn upload<B: DecoderBackend>(
    precision: Precision,
    weights: HostBuffers,
    device: &B::Device,
) -> (Buffers<B>, Option<Buffers<B>>) {
    let master = weights.upload::<B>(device, DType::F32);
    match precision {
        Precision::Fp32 => (master, None),
        narrow => (master.iter().map(|group| group.clone().cast(dtype(narrow))).collect(), Some(master)),
    }
}
