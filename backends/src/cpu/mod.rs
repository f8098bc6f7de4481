//! The CPU backend: burn-flex's tensors, the decoder's operations as loops over their slices and calls of `gemm`.
//!
//! Every sum has an order that does not depend on timing, so a run's bits repeat on the same machine. Inputs in fp16 and
//! bf16 are widened, computed with in fp32 and rounded once, like the reference.

mod attention;
mod decode;
mod few_rows;
mod linear;
mod loss;
mod matmul;
mod norm;
mod optimizer;
mod pointwise;
mod simd;
mod slices;

use burn_flex::Flex;
use burn_tensor::{DType, Int, Tensor};

use crate::cache::{KeyValues, Places};
use crate::dropout::Dropout;
use crate::ops::*;

/// The CPU backend.
pub type Cpu = Flex;

type T1 = Tensor<Flex, 1>;
type T2 = Tensor<Flex, 2>;

impl DecoderBackend for Flex {
    fn with_bytes<R>(flat: &T1, look: impl FnOnce(&[u8]) -> R) -> R {
        slices::with_bytes(flat, look)
    }

    fn clear(flat: &mut T1) {
        slices::modify(flat, |flat| flat.fill(0.0));
    }

    fn token_embedding(table: T2, tokens: Tensor<Flex, 1, Int>) -> T2 {
        pointwise::embedding(table, tokens)
    }

    fn token_embedding_backward(dx: T2, tokens: Tensor<Flex, 1, Int>, grads: &mut T1, table: MatrixSlot) {
        pointwise::embedding_backward(dx, tokens, grads, table);
    }

    fn layer_norm_forward(x: T2, gamma: T1, beta: T1, eps: f32, dtype: DType) -> Normed<Flex> {
        norm::layer_norm(x, gamma, beta, eps, dtype)
    }

    fn layer_norm_backward(
        dy: T2,
        x: T2,
        mean: T1,
        rstd: T1,
        gamma: T1,
        grads: NormGrads<'_, Flex>,
        around: Option<T2>,
    ) -> T2 {
        norm::layer_norm_backward(dy, x, mean, rstd, gamma, grads, around)
    }

    fn linear_forward(x: T2, weight: T2, bias: T1) -> T2 {
        linear::linear(x, weight, bias)
    }

    fn linear_weight_grad(dy: T2, x: T2, grads: WeightGrads<'_, Flex>) {
        linear::linear_weight_grad(dy, x, grads);
    }

    fn linear_input_grad(dy: T2, weight: T2) -> T2 {
        linear::linear_input_grad(dy, weight)
    }

    fn rotary(fused: T2, table: &RotaryTable<Flex>, dims: BlockDims, turn: Turn) -> T2 {
        pointwise::rotary(fused, table, dims, turn)
    }

    fn attention_forward(fused: T2, dims: BlockDims, dropout: Option<Dropout>) -> Attended<Flex> {
        attention::attention(fused, dims, dropout)
    }

    fn attention_backward(
        d_o: T2,
        fused: T2,
        attended: Attended<Flex>,
        dims: BlockDims,
        dropout: Option<Dropout>,
        into: T2,
    ) -> T2 {
        attention::attention_backward(d_o, fused, attended, dims, dropout, into)
    }

    fn store_keys_values(fused: &T2, dims: BlockDims, places: &Places<Flex>, cache: &mut KeyValues<Flex>) {
        decode::store_keys_values(fused, dims, places, cache);
    }

    fn attention_decode(fused: T2, dims: BlockDims, places: &Places<Flex>, cache: &mut KeyValues<Flex>) -> T2 {
        decode::attention_decode(fused, dims, places, cache)
    }

    fn gelu_tanh(fused: T2, dims: BlockDims) -> T2 {
        pointwise::gelu(fused, dims)
    }

    fn gelu_tanh_backward(dh: T2, fused: T2, dims: BlockDims, into: T2, grad: BiasGrad<'_, Self>) -> T2 {
        pointwise::gelu_backward(dh, fused, dims, into, grad)
    }

    fn residual(x: T2, attention: T2, mlp: T2, dims: BlockDims, dropout: Option<Dropout>) -> T2 {
        pointwise::residual(x, attention, mlp, dims, dropout)
    }

    fn residual_backward(dx: T2, dims: BlockDims, dropout: Option<Dropout>, dtype: DType) -> (T2, T2) {
        pointwise::residual_backward(dx, dims, dropout, dtype)
    }

    fn bias_grad(sums: T2, grad: BiasGrad<'_, Self>) {
        linear::bias_grad(sums, grad);
    }

    fn linear_cross_entropy(h: T2, weight: T2, bias: T1, targets: Tensor<Flex, 1, Int>) -> T1 {
        loss::linear_cross_entropy(h, weight, bias, targets)
    }

    fn linear_cross_entropy_backward(
        h: T2,
        weight: T2,
        bias: T1,
        targets: Tensor<Flex, 1, Int>,
        scale: f32,
        grads: WeightGrads<'_, Flex>,
    ) -> (T1, T2) {
        loss::linear_cross_entropy_backward(h, weight, bias, targets, scale, grads)
    }

    fn sum_of_squares(flat: &T1) -> T1 {
        optimizer::sum_of_squares(flat)
    }

    fn adamw(
        buffers: AdamWBuffers<Flex>,
        grads: &T1,
        factor: &T1,
        decay_len: usize,
        step: AdamWStep,
    ) -> AdamWBuffers<Flex> {
        optimizer::adamw(buffers, grads, factor, decay_len, step)
    }
}
