//! Gradients to their owners, scalars to all, updated weights back to all.
//!
//! A parameter group is a bucket: its gradients leave as soon as the last micro-batch's backward pass is done with it, and
//! its weights as soon as they are updated, by the courier, while the device goes on with the next group.

use std::collections::VecDeque;
use std::ops::Range;

use burn_tensor::{DType, Tensor, TensorData};
use trainer_backends::DecoderBackend;
use trainer_backends::ops::{AdamWBuffers, AdamWStep};
use trainer_backends::transfer::DeviceSpan;

use super::collective::{Collective, OnDevice};
use super::courier::Pending;
use super::replica::Replica;
use super::signs::Signs;
use crate::error::{Error, Result};
use crate::model::weights::download_one;
use crate::model::{Buffers, Decoder, GradientSink};
use crate::profile::{self, ops};
use crate::train::state::TrainState;

/// Groups at stage 2 whose gradients are on their way at a time: each keeps a whole buffer.
const LEAVING: usize = 2;

/// A buffer that an exchange fills: in the device's memory, or with what arrives on the host.
pub struct Arriving<B: DecoderBackend> {
    group: usize,
    buffer: Option<Tensor<B, 1>>,
    arrived: Pending<Option<TensorData>>,
}

/// Waits for exchanges: each group's number and buffer.
///
/// # Errors
/// That of an exchange, or of the device.
fn arrived<B: DecoderBackend>(
    decoder: &Decoder<B>,
    replica: &Replica,
    arriving: impl IntoIterator<Item = Arriving<B>>,
    settle: impl FnOnce() -> Result<()>,
) -> Result<Vec<(usize, Tensor<B, 1>)>> {
    let (places, pending): (Vec<_>, Vec<_>) =
        arriving.into_iter().map(|Arriving { group, buffer, arrived }| ((group, buffer), arrived)).unzip();
    let data = replica.courier.wait(pending, settle)?;
    let filled = |((group, buffer), data): ((usize, Option<Tensor<B, 1>>), Option<TensorData>)| {
        let uploaded = data.map(|data| {
            let dtype = data.dtype;
            Tensor::from_data(data, (&decoder.device, dtype))
        });
        let buffer = uploaded.or(buffer).ok_or_else(|| Error::failed("an exchange between ranks brought nothing"));
        buffer.map(|buffer| (group, buffer))
    };
    places.into_iter().zip(data).map(filled).collect()
}

/// Waits for all that the device has to do.
fn settle<B: DecoderBackend>(decoder: &Decoder<B>) -> Result<()> {
    B::sync(&decoder.device).map_err(|error| Error::failed(format!("the device fails: {error}")))
}

/// Exchanges `flat`, this rank's gradients of a group: the sum's whole at stage 0, this rank's part of it else. Nothing is
/// added to `flat` before that has arrived.
fn send_gradients<B: DecoderBackend>(
    decoder: &Decoder<B>,
    replica: &Replica,
    group: usize,
    flat: &Tensor<B, 1>,
) -> Arriving<B> {
    let whole = replica.zero == 0;
    let parts = replica.parts(group).clone();
    if replica.group.on_device().is_some() {
        let sum = if whole { flat.clone() } else { empty(decoder, replica.own(group).len(), DType::F32) };
        let exchange = move |nccl: &dyn OnDevice, values: &DeviceSpan, sum: &DeviceSpan| match whole {
            true => nccl.all_reduce(values),
            false => nccl.reduce_scatter(values, sum, &parts),
        };
        return on_device(decoder, replica, group, flat.clone(), sum, exchange);
    }
    let reading = B::read(flat.clone());
    let exchange = move |ranks: &dyn Collective| {
        let values = reading.wait().map_err(Error::failed)?.into_vec::<f32>();
        let mut values = values.map_err(|error| Error::failed(format!("gradients are not fp32: {error:?}")))?;
        if whole {
            ranks.all_reduce(&mut values, &parts);
        } else {
            values = ranks.reduce_scatter(&values, &parts);
        }
        let len = values.len();
        Ok(Some(TensorData::new(values, [len])))
    };
    Arriving { group, buffer: None, arrived: replica.courier.send(exchange) }
}

/// Exchanges this rank's part of a group's weights for all of them.
fn send_weights<B: DecoderBackend>(
    decoder: &Decoder<B>,
    replica: &Replica,
    group: usize,
    own: Tensor<B, 1>,
) -> Arriving<B> {
    let (len, dtype) = (decoder.table.groups[group].len, own.dtype());
    let elements_a_word = 4 / dtype.size();
    let words = |part: &Range<usize>| part.start / elements_a_word..part.end / elements_a_word;
    let parts: Vec<_> = replica.parts(group).iter().map(words).collect();
    if replica.group.on_device().is_some() {
        let all = empty(decoder, len, dtype);
        let exchange = move |nccl: &dyn OnDevice, own: &DeviceSpan, all: &DeviceSpan| nccl.all_gather(own, all, &parts);
        return on_device(decoder, replica, group, own, all, exchange);
    }
    let reading = B::read(own);
    let exchange = move |ranks: &dyn Collective| {
        let own = reading.wait().map_err(Error::failed)?;
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(own.as_bytes());
        let all = ranks.all_gather(&words, &parts);
        Ok(Some(TensorData::from_bytes_vec(bytemuck::cast_slice(&all).to_vec(), [len], dtype)))
    };
    Arriving { group, buffer: None, arrived: replica.courier.send(exchange) }
}

/// Hands in an exchange of `from` into `to`, both in the device's memory.
fn on_device<B: DecoderBackend>(
    decoder: &Decoder<B>,
    replica: &Replica,
    group: usize,
    from: Tensor<B, 1>,
    to: Tensor<B, 1>,
    exchange: impl FnOnce(&dyn OnDevice, &DeviceSpan, &DeviceSpan) -> Result<()> + Send + 'static,
) -> Arriving<B> {
    let spans = (B::span(&from), B::span(&to));
    // Behind what fills `from`, and behind whatever used the memory that `to` was given, which may still be in the queue.
    let done = B::fence(&decoder.device);
    let buffer = Some(to.clone());
    let exchange = move |ranks: &dyn Collective| {
        done.wait().map_err(Error::failed)?;
        let (Some(nccl), (Some(source), Some(target))) = (ranks.on_device(), &spans) else {
            return Err(Error::failed("a buffer of this device has no address that the exchange could use"));
        };
        exchange(nccl, source, target)?;
        // Until here nobody else was to use them.
        drop((from, to));
        Ok(None)
    };
    Arriving { group, buffer, arrived: replica.courier.send(exchange) }
}

/// Hands in an exchange of `what`, in a span; a step that is profiled waits for it there, since nothing is to overlap.
fn shown<B: DecoderBackend>(
    name: &'static str,
    what: &Tensor<B, 1>,
    send: impl FnOnce(&Tensor<B, 1>) -> Arriving<B>,
) -> Arriving<B> {
    let span = profile::exchange(name, || what.dims()[0] * what.dtype().size());
    let mut sent = send(what);
    if span.is_recorded() {
        sent.arrived = sent.arrived.now();
    }
    sent
}

fn empty<B: DecoderBackend>(decoder: &Decoder<B>, len: usize, dtype: DType) -> Tensor<B, 1> {
    Tensor::empty([len], (&decoder.device, dtype))
}

/// A step's loss, summed over its tokens, and the sum of squares of its gradient, over all ranks; on the way, what the ranks
/// let each other know. `squares` is of the gradients that this rank updates from.
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
///
/// # Errors
/// That of an exchange: the weights are then those of no step.
pub fn update_own_parts<B: DecoderBackend>(
    decoder: &Decoder<B>,
    state: &mut TrainState<B>,
    grads: &Buffers<B>,
    factor: &Tensor<B, 1>,
    step: AdamWStep,
    replica: &Replica,
) -> Result<()> {
    let (m, v) = (std::mem::take(&mut state.m), std::mem::take(&mut state.v));
    let mut masters = state.master.as_mut().map(std::mem::take).map(Vec::into_iter);
    let mut arriving = Vec::with_capacity(grads.len());
    for (index, ((m, v), grads)) in m.into_iter().zip(v).zip(grads).enumerate() {
        let own = replica.own(index);
        let decay_len = decoder.table.groups[index].decay_len.clamp(own.start, own.end) - own.start;
        let weights = state.weights[index].clone().slice([own]);
        let master = masters.as_mut().and_then(Iterator::next);
        let updated = ops::adamw(AdamWBuffers { weights, master, m, v }, grads, factor, decay_len, step);
        let sent = shown("weight exchange", &updated.weights, |own| send_weights(decoder, replica, index, own.clone()));
        if let Some(whole) = &sent.buffer {
            // The old ones' memory may serve the next group.
            state.weights[index] = whole.clone();
        }
        arriving.push(sent);
        state.m.push(updated.m);
        state.v.push(updated.v);
        if let (Some(masters), Some(master)) = (&mut state.master, updated.master) {
            masters.push(master);
        }
    }
    for (index, weights) in arrived(decoder, replica, arriving, || settle(decoder))? {
        state.weights[index] = weights;
    }
    Ok(())
}

/// A rank's gradients in the last micro-batch of a step or, at stage 2, in each: every group's leave for their owners as
/// soon as the backward pass is done with the group.
pub struct Leaving<'a, B: DecoderBackend> {
    decoder: &'a Decoder<B>,
    replica: &'a Replica,
    /// Whole groups or, at stage 2, this rank's parts, to which is added.
    grads: &'a mut Buffers<B>,
    /// Stage 2: the group whose backward pass is under way, given back once its gradients have left.
    filling: Option<(usize, Tensor<B, 1>)>,
    sent: VecDeque<Arriving<B>>,
    failed: Result<()>,
}

impl<'a, B: DecoderBackend> Leaving<'a, B> {
    pub fn new(decoder: &'a Decoder<B>, replica: &'a Replica, grads: &'a mut Buffers<B>) -> Self {
        Self { decoder, replica, grads, filling: None, sent: VecDeque::new(), failed: Ok(()) }
    }

    /// The gradients that this rank updates from, summed over the ranks: whole groups at stage 0, its parts else.
    ///
    /// # Errors
    /// That of an exchange, or of the device.
    pub fn arrived(mut self) -> Result<Buffers<B>> {
        std::mem::replace(&mut self.failed, Ok(()))?;
        let sent = std::mem::take(&mut self.sent);
        let sums = arrived(self.decoder, self.replica, sent, || settle(self.decoder))?;
        if self.replica.zero == 2 {
            self.add(sums);
            return Ok(self.grads.clone());
        }
        let mut own = self.grads.clone();
        sums.into_iter().for_each(|(group, sum)| own[group] = sum);
        Ok(own)
    }

    fn add(&mut self, sums: Vec<(usize, Tensor<B, 1>)>) {
        sums.into_iter().for_each(|(group, sum)| self.grads[group].inplace(|part| part + sum));
    }

    /// Stage 2: sends a group whose buffer is not needed any more, and waits for the one before the last.
    fn leave(&mut self, group: usize, whole: &Tensor<B, 1>) -> Result<()> {
        let (decoder, replica) = (self.decoder, self.replica);
        self.sent.push_back(shown("gradient exchange", whole, |flat| send_gradients(decoder, replica, group, flat)));
        let waiting = self.sent.len().saturating_sub(LEAVING);
        let sums = arrived(decoder, replica, self.sent.drain(..waiting), || Ok(()))?;
        self.add(sums);
        Ok(())
    }
}

impl<B: DecoderBackend> GradientSink<B> for Leaving<'_, B> {
    fn group(&mut self, index: usize) -> &mut Tensor<B, 1> {
        if self.replica.zero < 2 {
            return &mut self.grads[index];
        }
        let filling = self.filling.take().filter(|(filling, _)| *filling == index);
        let len = self.decoder.table.groups[index].len;
        let fresh = || (index, Tensor::zeros([len], (&self.decoder.device, DType::F32)));
        &mut self.filling.insert(filling.unwrap_or_else(fresh)).1
    }

    fn done(&mut self, index: usize) {
        let (decoder, replica) = (self.decoder, self.replica);
        if replica.zero < 2 {
            let flat = &self.grads[index];
            self.sent.push_back(shown("gradient exchange", flat, |flat| send_gradients(decoder, replica, index, flat)));
            return;
        }
        let Some((_, whole)) = self.filling.take().filter(|(filling, _)| *filling == index) else { return };
        if self.failed.is_ok() {
            self.failed = self.leave(index, &whole);
        }
    }
}
