//! The plain-tensor reference of every operation: the oracle that each kernel is held against.
//!
//! Inputs in fp16 or bf16 are widened, computed with in fp32 and rounded once at the end: what an ideal kernel with fp32
//! accumulation gives. Speed is not a concern here.

mod attention;
mod decode;
mod embedding;
mod linear;
mod loss;
mod norm;
mod optimizer;
mod residual;
mod rotary;

pub use attention::{attention, attention_backward};
pub use decode::{attention_decode, store_keys_values};
pub use embedding::{embedding, embedding_backward};
pub use linear::{bias_grad, gelu, gelu_backward, linear, linear_backward, linear_input_grad, linear_weight_grad};
pub use loss::{LOSS_CHUNK, linear_cross_entropy, linear_cross_entropy_backward, loss_chunks};
pub use norm::{layer_norm, layer_norm_backward};
pub use optimizer::{adamw, bias_corrections, grad_factor, sum_of_squares};
pub use residual::{embedding_dropout, residual, residual_backward};
pub use rotary::rotary;

use burn_backend::Backend;
use burn_tensor::{DType, Tensor, TensorData};

use crate::dropout::{Dropout, Site};
use crate::ops::BlockDims;

/// Widens to fp32.
fn wide<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    x.cast(DType::F32)
}

/// Adds `value` to the elements of `flat` from `offset` on.
fn accumulate<B: Backend>(flat: &mut Tensor<B, 1>, offset: usize, value: Tensor<B, 1>) {
    let range = offset..offset + value.dims()[0];
    flat.inplace(|flat| {
        let sum = flat.clone().slice([range.clone()]) + value;
        flat.slice_assign([range], sum)
    });
}

/// Writes `value` into columns `start..` of `into`.
fn assign_columns<B: Backend>(into: Tensor<B, 2>, start: usize, value: Tensor<B, 2>) -> Tensor<B, 2> {
    let [rows, cols] = value.dims();
    let dtype = into.dtype();
    into.slice_assign([0..rows, start..start + cols], value.cast(dtype))
}

/// The dropout factors of a `[N, C]` activation, computed on the host.
fn row_mask<B: Backend>(
    dropout: Dropout,
    site: Site,
    rows: usize,
    cols: usize,
    seq: usize,
    device: &B::Device,
) -> Tensor<B, 2> {
    let mut factors = vec![0.0; rows * cols];
    for (row, out) in factors.chunks_mut(cols).enumerate() {
        dropout.fill(site, row / seq, 0, row % seq, 0, out);
    }
    Tensor::from_data(TensorData::new(factors, [rows, cols]), (device, DType::F32))
}

/// The dropout factors of attention probabilities, `[B, H, T, T]`, computed on the host.
fn attention_mask<B: Backend>(dropout: Dropout, dims: BlockDims, device: &B::Device) -> Tensor<B, 4> {
    let BlockDims { batch, seq, heads, .. } = dims;
    let mut factors = vec![0.0; batch * heads * seq * seq];
    for (row, out) in factors.chunks_mut(seq).enumerate() {
        let (position, head, sequence) = (row % seq, row / seq % heads, row / seq / heads);
        dropout.fill(Site::Attention, sequence, head, position, 0, out);
    }
    Tensor::from_data(TensorData::new(factors, [batch, heads, seq, seq]), (device, DType::F32))
}
