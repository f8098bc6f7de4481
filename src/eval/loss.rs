//! A model's loss on a data set.

use burn_tensor::activation::log_softmax;
use burn_tensor::{DType, Int, Tensor, TensorData};
use trainer_backends::DecoderBackend;
use trainer_backends::ops::LOGITS_BYTES;

use super::windows::{Window, Windows};
use crate::data::dataset::Dataset;
use crate::data::sampler::Sampler;
use crate::error::Result;
use crate::model::weights::download_one;
use crate::model::{Buffers, Decoder};

/// Batches whose losses are summed on the device before they come to the host.
const SYNC_EVERY: u64 = 16;

/// Mean loss (nats a token) and the tokens it was taken over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    pub nats: f64,
    pub tokens: u64,
}

/// Mean loss over `windows` of `dataset`, as many as `batch` allows at a time; `max_batches` 0 means all of them.
/// `done` is called with the windows done and the windows in all.
///
/// # Errors
/// Windows past the end of the data.
pub fn mean_loss<B: DecoderBackend>(
    decoder: &Decoder<B>,
    weights: &Buffers<B>,
    dataset: &Dataset,
    windows: Windows,
    batch: usize,
    max_batches: usize,
    mut done: impl FnMut(u64, u64),
) -> Result<Loss> {
    let limit = if max_batches == 0 { u64::MAX } else { (max_batches * batch) as u64 };
    let all = windows.count().min(limit);
    let mut ahead = windows.iter().take(all as usize).peekable();
    let mut total = 0.0;
    let (mut finished, mut tokens) = (0, 0);
    while let Some(first) = ahead.next() {
        // Windows of one shape are a batch; overlapping ones need all their logits at once.
        let shape = |window: &Window| (window.len, window.scored) == (first.len, first.scored);
        let fits = match first.scored == first.len {
            true => batch,
            false => (LOGITS_BYTES / (4 * first.len * decoder.arch.vocab)).clamp(1, batch),
        };
        let mut starts = vec![first.start];
        while starts.len() < fits
            && let Some(window) = ahead.next_if(shape)
        {
            starts.push(window.start);
        }
        let (inputs, targets) = read(dataset, &starts, first.len)?;
        let loss = match first.scored == first.len {
            true => decoder.loss(weights, &inputs, &targets, starts.len()),
            false => loss_of_last(decoder, weights, &inputs, &targets, (starts.len(), first.scored)),
        };
        total += f64::from(download_one(&loss)[0]);
        finished += starts.len() as u64;
        tokens += (starts.len() * first.scored) as u64;
        done(finished, all);
    }
    Ok(Loss { nats: total / tokens as f64, tokens })
}

/// Inputs and targets of windows of `len` tokens, row by row.
fn read(dataset: &Dataset, starts: &[u64], len: usize) -> Result<(Vec<i32>, Vec<i32>)> {
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    let mut tokens = vec![0u16; len + 1];
    for start in starts {
        dataset.read(*start, &mut tokens)?;
        inputs.extend(tokens[..len].iter().map(|token| i32::from(*token)));
        targets.extend(tokens[1..].iter().map(|token| i32::from(*token)));
    }
    Ok((inputs, targets))
}

/// Loss summed over the last `scored` targets of each of `rows` sequences, fp32 `[1]`, nats.
fn loss_of_last<B: DecoderBackend>(
    decoder: &Decoder<B>,
    weights: &Buffers<B>,
    inputs: &[i32],
    targets: &[i32],
    (rows, scored): (usize, usize),
) -> Tensor<B, 1> {
    let (len, vocab) = (inputs.len() / rows, decoder.arch.vocab);
    let logits = decoder.logits(weights, inputs, rows).reshape([rows, len, vocab]);
    let logits = logits.slice([0..rows, len - scored..len, 0..vocab]).reshape([rows * scored, vocab]);
    let targets: Vec<i32> = targets.chunks(len).flat_map(|row| row[len - scored..].to_vec()).collect();
    let targets = TensorData::new(targets, [rows * scored, 1]);
    let targets = Tensor::<B, 2, Int>::from_data(targets, (&decoder.device, DType::I32));
    log_softmax(logits, 1).gather(1, targets).sum().neg()
}

/// Every `of`-th batch, from `index` on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    pub index: usize,
    pub of: usize,
}

/// Loss over a share of the whole sequences of `dataset`, `batch` at a time in their order: the sum of the losses of
/// its tokens, and how many they are. `max_batches` 0 means all of them.
///
/// # Errors
/// A data set shorter than one sequence.
pub fn loss_of_share<B: DecoderBackend>(
    decoder: &Decoder<B>,
    weights: &Buffers<B>,
    dataset: &Dataset,
    (batch, seq): (usize, usize),
    max_batches: usize,
    share: Share,
    mut done: impl FnMut(u64, u64),
) -> Result<(f64, u64)> {
    let sampler = Sampler::in_order(dataset.tokens(), seq)?;
    let limit = if max_batches == 0 { u64::MAX } else { (max_batches * batch) as u64 };
    let sequences = sampler.sequences().min(limit);
    let mut total = 0.0;
    let mut pending = Tensor::<B, 1>::zeros([1], (&decoder.device, DType::F32));
    let mut position = (share.index * batch) as u64;
    let (mut rounds, mut tokens) = (0, 0);
    while position < sequences {
        let rows = (sequences - position).min(batch as u64) as usize;
        let (mut inputs, mut targets) = (vec![0; rows * seq], vec![0; rows * seq]);
        sampler.fill(dataset, position, &mut inputs, &mut targets)?;
        pending = pending + decoder.loss(weights, &inputs, &targets, rows);
        tokens += (rows * seq) as u64;
        position += rows as u64 + ((share.of - 1) * batch) as u64;
        rounds += 1;
        if rounds % SYNC_EVERY == 0 || position >= sequences {
            total += f64::from(download_one(&pending)[0]);
            pending = pending.zeros_like();
            done(position.min(sequences), sequences);
        }
    }
    Ok((total, tokens))
}
