use burn_backend::Backend;
use burn_tensor::{DType, IndexingUpdateOp, Int, Tensor};

use super::{linear_backward, wide};
use crate::ops::WeightGrads;

/// Tokens whose logits exist at a time: V x 256 fp32 values, 52 MB at phi-1's vocabulary.
pub const LOSS_CHUNK: usize = 256;

/// Words whose exponentials are summed in one run.
const SUM_WORDS: usize = 4096;

/// Logits of one chunk, its row-wise log-sum-exp, and the sum of its cross entropies.
struct Chunk<B: Backend> {
    logits: Tensor<B, 2>,
    lse: Tensor<B, 2>,
    loss: Tensor<B, 1>,
}

fn forward<B: Backend>(
    h: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    targets: Tensor<B, 2, Int>,
) -> Chunk<B> {
    let logits = wide(h).matmul(wide(weight).transpose()) + wide(bias).unsqueeze::<2>();
    let max = logits.clone().max_dim(1);
    // Sums of sums: rounding grows with the root of a run's length.
    let sums = (logits.clone() - max.clone()).exp().split(SUM_WORDS, 1).into_iter().map(|words| words.sum_dim(1));
    let lse = Tensor::cat(sums.collect(), 1).sum_dim(1).log() + max;
    let loss = (lse.clone() - logits.clone().gather(1, targets)).sum();
    Chunk { logits, lse, loss }
}

/// The ranges of tokens whose logits exist at a time.
pub fn loss_chunks(tokens: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..tokens).step_by(LOSS_CHUNK).map(move |start| start..(start + LOSS_CHUNK).min(tokens))
}

pub fn linear_cross_entropy<B: Backend>(
    h: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    targets: Tensor<B, 1, Int>,
) -> Tensor<B, 1> {
    let [tokens, hidden] = h.dims();
    let mut total = Tensor::zeros([1], (&h.device(), DType::F32));
    for rows in loss_chunks(tokens) {
        let h = h.clone().slice([rows.clone(), 0..hidden]);
        let targets = targets.clone().slice([rows]).unsqueeze_dim(1);
        total = total + forward(h, weight.clone(), bias.clone(), targets).loss;
    }
    total
}

/// d logits = scale (softmax(logits) - onehot(target)); the rest is a linear layer's backward.
pub fn linear_cross_entropy_backward<B: Backend>(
    h: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    targets: Tensor<B, 1, Int>,
    scale: f32,
    grads: WeightGrads<'_, B>,
) -> (Tensor<B, 1>, Tensor<B, 2>) {
    let [tokens, hidden] = h.dims();
    let dtype = h.dtype();
    let device = h.device();
    let WeightGrads { flat, weight: weight_slot, bias: bias_slot } = grads;
    let mut total = Tensor::zeros([1], (&device, DType::F32));
    let mut dh = Vec::new();
    for rows in loss_chunks(tokens) {
        let h = h.clone().slice([rows.clone(), 0..hidden]);
        let targets = targets.clone().slice([rows.clone()]).unsqueeze_dim::<2>(1);
        let chunk = forward(h.clone(), weight.clone(), bias.clone(), targets.clone());
        total = total + chunk.loss;
        let minus_one = Tensor::full([rows.len(), 1], -1.0, (&device, DType::F32));
        let dlogits = (chunk.logits - chunk.lse).exp().scatter(1, targets, minus_one, IndexingUpdateOp::Add) * scale;
        let grads = WeightGrads { flat: &mut *flat, weight: weight_slot, bias: bias_slot };
        dh.push(linear_backward(dlogits, h, weight.clone(), grads).cast(dtype));
    }
    (total, Tensor::cat(dh, 0))
}
