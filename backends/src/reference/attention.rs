use burn_backend::Backend;
use burn_tensor::{Bool, Tensor};

use super::{assign_columns, attention_mask, wide};
use crate::dropout::Dropout;
use crate::ops::{Attended, BlockDims};

/// Far below any score, yet finite: WGSL has no infinities to rely on.
const MASKED: f32 = -1.0e30;

/// q, k or v (`part` 0, 1, 2) of the fused projection, as fp32 `[B, H, T, D]`.
pub(super) fn head_view<B: Backend>(fused: &Tensor<B, 2>, part: usize, dims: BlockDims) -> Tensor<B, 4> {
    let BlockDims { batch, seq, heads, head_dim, .. } = dims;
    let start = part * dims.hidden();
    let part = fused.clone().slice([0..dims.tokens(), start..start + dims.hidden()]);
    wide(part).reshape([batch, seq, heads, head_dim]).swap_dims(1, 2)
}

/// `[N, C]` as fp32 `[B, H, T, D]`.
fn split_heads<B: Backend>(x: Tensor<B, 2>, dims: BlockDims) -> Tensor<B, 4> {
    wide(x).reshape([dims.batch, dims.seq, dims.heads, dims.head_dim]).swap_dims(1, 2)
}

/// `[B, H, T, D]` as `[N, C]`.
fn merge_heads<B: Backend>(x: Tensor<B, 4>, dims: BlockDims) -> Tensor<B, 2> {
    x.swap_dims(1, 2).reshape([dims.tokens(), dims.hidden()])
}

/// Scaled scores with the future masked, `[B, H, T, T]`.
fn scores<B: Backend>(q: Tensor<B, 4>, k: Tensor<B, 4>, dims: BlockDims) -> Tensor<B, 4> {
    let device = q.device();
    let future = Tensor::<B, 2, Bool>::tril_mask([dims.seq, dims.seq], 0, &device).unsqueeze::<4>();
    let scores = q.matmul(k.transpose()) * dims.scale();
    let shape = scores.dims();
    scores.mask_fill(future.expand(shape), MASKED)
}

/// O = drop(softmax(Q K^T / sqrt(D))) V, and the log-sum-exp of each row of scores.
pub fn attention<B: Backend>(fused: Tensor<B, 2>, dims: BlockDims, dropout: Option<Dropout>) -> Attended<B> {
    let dtype = fused.dtype();
    let device = fused.device();
    let [q, k, v] = [0, 1, 2].map(|part| head_view(&fused, part, dims));
    let scores = scores(q, k, dims);
    let max = scores.clone().max_dim(3);
    let lse = (scores.clone() - max.clone()).exp().sum_dim(3).log() + max;
    let mut p = (scores - lse.clone()).exp();
    if let Some(dropout) = dropout {
        p = p * attention_mask(dropout, dims, &device);
    }
    let o = merge_heads(p.matmul(v), dims).cast(dtype);
    Attended { o, lse: lse.reshape([dims.batch * dims.heads * dims.seq]) }
}

/// FlashAttention-2's backward (Dao 2023, algorithm 2) without the tiling: with M the dropout factors,
/// delta = rowsum(dO . O), dS = P . (M . dO V^T - delta), dQ = dS K / sqrt(D), dK = dS^T Q / sqrt(D), dV = (P . M)^T dO.
pub fn attention_backward<B: Backend>(
    d_o: Tensor<B, 2>,
    fused: Tensor<B, 2>,
    attended: Attended<B>,
    dims: BlockDims,
    dropout: Option<Dropout>,
    into: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let device = fused.device();
    let [q, k, v] = [0, 1, 2].map(|part| head_view(&fused, part, dims));
    let lse = attended.lse.reshape([dims.batch, dims.heads, dims.seq, 1]);
    let p = (scores(q.clone(), k.clone(), dims) - lse).exp();
    let d_o = split_heads(d_o, dims);
    let delta = (d_o.clone() * split_heads(attended.o, dims)).sum_dim(3);
    let mut dp = d_o.clone().matmul(v.transpose());
    let mut dropped = p.clone();
    if let Some(dropout) = dropout {
        let mask = attention_mask(dropout, dims, &device);
        dp = dp * mask.clone();
        dropped = dropped * mask;
    }
    let dv = dropped.transpose().matmul(d_o);
    let ds = p * (dp - delta) * dims.scale();
    let dq = ds.clone().matmul(k);
    let dk = ds.transpose().matmul(q);
    let mut into = into;
    for (part, grad) in [dq, dk, dv].into_iter().enumerate() {
        into = assign_columns(into, part * dims.hidden(), merge_heads(grad, dims));
    }
    into
}
