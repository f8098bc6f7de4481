//! A model's loss on a data set.

use burn_tensor::{DType, Tensor};
use trainer_backends::DecoderBackend;

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

/// Mean loss over the sequences of `dataset` in order, `batch` at a time; `max_batches` 0 means all of them.
/// `done` is called with the sequences done and the sequences in all.
///
/// # Errors
/// A data set shorter than one sequence.
pub fn mean_loss<B: DecoderBackend>(
    decoder: &Decoder<B>,
    weights: &Buffers<B>,
    dataset: &Dataset,
    (batch, seq): (usize, usize),
    max_batches: usize,
    done: impl FnMut(u64, u64),
) -> Result<Loss> {
    let share = Share { index: 0, of: 1 };
    let (total, tokens) = loss_of_share(decoder, weights, dataset, (batch, seq), max_batches, share, done)?;
    Ok(Loss { nats: total / tokens as f64, tokens })
}

/// Every `of`-th batch, from `index` on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    pub index: usize,
    pub of: usize,
}

/// As `mean_loss`, over a share of the batches: the sum of the losses of its tokens, and how many they are.
///
/// # Errors
/// As `mean_loss`.
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
