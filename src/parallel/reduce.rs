//! Gradients to their owners, scalars to all, updated weights back to all.

use burn_tensor::{DType, Tensor, TensorData};
use trainer_backends::DecoderBackend;
use trainer_backends::ops::{AdamWBuffers, AdamWStep};

use super::replica::Replica;
use super::signs::Signs;
use crate::model::weights::download_one;
use crate::model::{Buffers, Decoder, GradientSink};
use crate::profile::{self, ops};
use crate::train::state::TrainState;

/// The gradients that this rank updates from, summed over the ranks: whole groups at stage 0, its parts at stage 1. At
/// stage 2 they were summed micro-batch by micro-batch. What they came from is cleared.
pub fn gradients<B: DecoderBackend>(decoder: &Decoder<B>, grads: &mut Buffers<B>, replica: &Replica) -> Buffers<B> {
    if replica.zero == 2 {
        let empty = zeros(decoder, |group| replica.own(group).len());
        return std::mem::replace(grads, empty);
    }
    let reduce = |(index, flat): (usize, &mut Tensor<B, 1>)| {
        let _span = profile::exchange("gradient exchange", || 4 * flat.dims()[0]);
        let mut values = download_one(flat);
        B::clear(flat);
        let parts = replica.parts(index);
        if replica.zero == 0 {
            replica.group.all_reduce(&mut values, parts);
        } else {
            values = replica.group.reduce_scatter(&values, parts);
        }
        upload(decoder, values)
    };
    grads.iter_mut().enumerate().map(reduce).collect()
}

/// A step's loss, summed over its tokens, and the sum of squares of its gradient, over all ranks; on the way, what the ranks
/// let each other know. `squares` is of `gradients`'s result.
pub fn scalars<B: DecoderBackend>(
    loss: Tensor<B, 1>,
    squares: Tensor<B, 1>,
    signs: Signs,
    replica: &Replica,
) -> ([f32; 2], Signs) {
    let span = profile::host("read loss and norm");
    let own = download_one(&Tensor::cat(vec![loss, squares], 0));
    drop(span);
    let _span = profile::exchange("scalar exchange", || 8 * (2 + signs.counts().len()));
    // At stage 0 every rank has the same gradients, and so the same sum: it counts once.
    let squares = if replica.zero == 0 && !replica.is_first() { 0.0 } else { f64::from(own[1]) };
    let mut sums = [f64::from(own[0]), squares].into_iter().chain(signs.counts()).collect::<Vec<_>>();
    replica.group.sums(&mut sums);
    ([sums[0] as f32, sums[1] as f32], Signs::from_counts(&sums[2..]))
}

/// AdamW on this rank's parts, then every part to every rank.
pub fn update_own_parts<B: DecoderBackend>(
    decoder: &Decoder<B>,
    state: &mut TrainState<B>,
    grads: &Buffers<B>,
    factor: &Tensor<B, 1>,
    step: AdamWStep,
    replica: &Replica,
) {
    let (m, v) = (std::mem::take(&mut state.m), std::mem::take(&mut state.v));
    let mut masters = state.master.as_mut().map(std::mem::take).map(Vec::into_iter);
    for (index, ((m, v), grads)) in m.into_iter().zip(v).zip(grads).enumerate() {
        let own = replica.own(index);
        let decay_len = decoder.table.groups[index].decay_len.clamp(own.start, own.end) - own.start;
        let weights = state.weights[index].clone().slice([own]);
        let master = masters.as_mut().and_then(Iterator::next);
        let updated = ops::adamw(AdamWBuffers { weights, master, m, v }, grads, factor, decay_len, step);
        state.weights[index] = whole(decoder, updated.weights, index, replica);
        state.m.push(updated.m);
        state.v.push(updated.v);
        if let (Some(masters), Some(master)) = (&mut state.master, updated.master) {
            masters.push(master);
        }
    }
}

/// A group's weights from every rank's part.
fn whole<B: DecoderBackend>(decoder: &Decoder<B>, own: Tensor<B, 1>, index: usize, replica: &Replica) -> Tensor<B, 1> {
    let _span = profile::exchange("weight exchange", || own.dims()[0] * own.dtype().size());
    let data = own.into_data();
    let (dtype, elements_a_word) = (data.dtype, 4 / data.dtype.size());
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(data.as_bytes());
    let parts: Vec<_> =
        replica.parts(index).iter().map(|part| part.start / elements_a_word..part.end / elements_a_word).collect();
    let all = replica.group.all_gather(&words, &parts);
    let bytes = bytemuck::cast_slice(&all).to_vec();
    let data = TensorData::from_bytes_vec(bytes, [decoder.table.groups[index].len], dtype);
    Tensor::from_data(data, (&decoder.device, dtype))
}

fn upload<B: DecoderBackend>(decoder: &Decoder<B>, values: Vec<f32>) -> Tensor<B, 1> {
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), (&decoder.device, DType::F32))
}

fn zeros<B: DecoderBackend>(decoder: &Decoder<B>, len: impl Fn(usize) -> usize) -> Buffers<B> {
    (0..decoder.table.groups.len()).map(|group| Tensor::zeros([len(group)], (&decoder.device, DType::F32))).collect()
}

/// Stage 2: each group's gradients go to their owners as soon as a micro-batch's backward pass is done with the group, and
/// its whole buffer is given back.
pub struct Scattered<'a, B: DecoderBackend> {
    decoder: &'a Decoder<B>,
    replica: &'a Replica,
    /// This rank's parts, to which is added.
    parts: &'a mut Buffers<B>,
    filling: Option<(usize, Tensor<B, 1>)>,
}

impl<'a, B: DecoderBackend> Scattered<'a, B> {
    pub fn new(decoder: &'a Decoder<B>, replica: &'a Replica, parts: &'a mut Buffers<B>) -> Self {
        Self { decoder, replica, parts, filling: None }
    }
}

impl<B: DecoderBackend> GradientSink<B> for Scattered<'_, B> {
    fn group(&mut self, index: usize) -> &mut Tensor<B, 1> {
        let filling = self.filling.take().filter(|(filling, _)| *filling == index);
        let fresh =
            || (index, Tensor::zeros([self.decoder.table.groups[index].len], (&self.decoder.device, DType::F32)));
        &mut self.filling.insert(filling.unwrap_or_else(fresh)).1
    }

    fn done(&mut self, index: usize) {
        let Some((_, whole)) = self.filling.take().filter(|(filling, _)| *filling == index) else { return };
        let _span = profile::exchange("gradient exchange", || 4 * whole.dims()[0]);
        let own = self.replica.group.reduce_scatter(&download_one(&whole), self.replica.parts(index));
        let own = upload(self.decoder, own);
        self.parts[index].inplace(|part| part + own);
    }
}
