use burn_backend::Backend;
use burn_tensor::Tensor;

use super::{assign_columns, wide};
use crate::ops::{BlockDims, RotaryTable, Turn};

/// For each pair (a, b) = (i, i + R/2) of a head's first R dimensions: (a cos - b sin, b cos + a sin); turning back
/// negates sin.
pub fn rotary<B: Backend>(fused: Tensor<B, 2>, table: &RotaryTable<B>, dims: BlockDims, turn: Turn) -> Tensor<B, 2> {
    let BlockDims { batch, seq, heads, head_dim, rotary_dim, .. } = dims;
    if rotary_dim == 0 {
        return fused;
    }
    let (tokens, hidden, half) = (dims.tokens(), dims.hidden(), rotary_dim / 2);
    let broadcast = |t: &Tensor<B, 2>| t.clone().slice([0..seq, 0..half]).reshape([1, seq, 1, half]);
    let (cos, sin) = (broadcast(&table.cos), broadcast(&table.sin));
    let sin = if turn == Turn::Forward { sin } else { sin.neg() };
    let mut fused = fused;
    for part in 0..2 {
        let start = part * hidden;
        let x = wide(fused.clone().slice([0..tokens, start..start + hidden])).reshape([batch, seq, heads, head_dim]);
        let a = x.clone().narrow(3, 0, half);
        let b = x.clone().narrow(3, half, half);
        let first = a.clone() * cos.clone() - b.clone() * sin.clone();
        let second = b * cos.clone() + a * sin.clone();
        let mut parts = vec![first, second];
        if head_dim > rotary_dim {
            parts.push(x.narrow(3, rotary_dim, head_dim - rotary_dim));
        }
        fused = assign_columns(fused, start, Tensor::cat(parts, 3).reshape([tokens, hidden]));
    }
    fused
}
