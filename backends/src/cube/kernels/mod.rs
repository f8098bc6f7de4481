//! The decoder's operations through our kernels (crate trainer-shaders), launched over burn-cubecl's tensors.

mod attention;
mod decode;
mod embedding;
mod gelu;
mod linear;
mod loss;
mod matmul;
mod norm;
mod optimizer;
mod residual;
mod residual_norm;
mod rotary;
mod tensor;

pub use matmul::has_tensor_cores;

use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use burn_tensor::{DType, Int, Tensor};

use super::tuning;
use crate::cache::{KeyValues, Places};
use crate::dropout::Dropout;
use crate::error::Result;
use crate::ops::*;
use crate::transfer::{DeviceSpan, Fence};
use crate::tuning::Tunable;

impl<R, F, I, BT> DecoderBackend for CubeBackend<R, F, I, BT>
where
    R: CubeRuntime,
    R::Server: cubecl::server::ComputeServer,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    fn memory(device: &Self::Device) -> Option<DeviceMemory> {
        let usage = R::client(device).memory_usage().ok()?;
        Some(DeviceMemory { in_use: usage.bytes_in_use, reserved: usage.bytes_reserved })
    }

    fn fence(device: &Self::Device) -> Fence {
        // The future of an event that is recorded before this call returns.
        let done = R::client(device).sync();
        Fence::coming(async move { done.await.map_err(|error| error.to_string()) })
    }

    fn span(flat: &Tensor<Self, 1>) -> Option<DeviceSpan> {
        tensor::span(flat)
    }

    fn rounds_products(device: &Self::Device) -> bool {
        matmul::has_tensor_cores(&R::client(device))
    }

    fn sharing_blocks(device: &Self::Device) -> Option<usize> {
        matmul::sharing_blocks(&R::client(device))
    }

    fn tunables(device: &Self::Device, products: &[[usize; 2]]) -> Vec<Tunable> {
        tuning::tunables(&R::client(device), products)
    }

    fn tune(device: &Self::Device, name: &str, value: Option<&str>) -> Result<()> {
        tuning::tune(&R::client(device), name, value)
    }

    fn refused_choice() -> bool {
        tuning::take_refused()
    }

    fn matrix(flat: &Tensor<Self, 1>, slot: MatrixSlot) -> Tensor<Self, 2> {
        tensor::matrix(flat, slot)
    }

    fn vector(flat: &Tensor<Self, 1>, slot: VectorSlot) -> Tensor<Self, 1> {
        tensor::vector(flat, slot)
    }

    fn clear(flat: &mut Tensor<Self, 1>) {
        optimizer::clear(flat);
    }

    fn token_embedding(table: Tensor<Self, 2>, tokens: Tensor<Self, 1, Int>) -> Tensor<Self, 2> {
        embedding::forward(table, tokens)
    }

    fn token_embedding_backward(
        dx: Tensor<Self, 2>,
        tokens: Tensor<Self, 1, Int>,
        grads: &mut Tensor<Self, 1>,
        table: MatrixSlot,
    ) {
        embedding::backward(dx, tokens, grads, table);
    }

    fn layer_norm_forward(
        x: Tensor<Self, 2>,
        gamma: Tensor<Self, 1>,
        beta: Tensor<Self, 1>,
        eps: f32,
        dtype: DType,
    ) -> Normed<Self> {
        norm::forward(x, gamma, beta, eps, dtype)
    }

    fn layer_norm_backward(
        dy: Tensor<Self, 2>,
        x: Tensor<Self, 2>,
        mean: Tensor<Self, 1>,
        rstd: Tensor<Self, 1>,
        gamma: Tensor<Self, 1>,
        grads: NormGrads<'_, Self>,
        around: Option<Tensor<Self, 2>>,
    ) -> Tensor<Self, 2> {
        norm::backward(dy, x, mean, rstd, gamma, grads, around)
    }

    fn rotary(fused: Tensor<Self, 2>, table: &RotaryTable<Self>, dims: BlockDims, turn: Turn) -> Tensor<Self, 2> {
        rotary::rotary(fused, table, dims, turn)
    }

    fn linear_rotary_forward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        bias: Tensor<Self, 1>,
        table: &RotaryTable<Self>,
        dims: BlockDims,
    ) -> Tensor<Self, 2> {
        linear::rotary_forward(x, weight, bias, table, dims)
    }

    fn attention_rotary_backward(
        d_o: Tensor<Self, 2>,
        fused: Tensor<Self, 2>,
        attended: Attended<Self>,
        table: &RotaryTable<Self>,
        dims: BlockDims,
        dropout: Option<Dropout>,
        into: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Option<Tensor<Self, 2>>) {
        attention::rotary_backward(d_o, fused, attended, table, dims, dropout, into)
    }

    fn store_keys_values(fused: &Tensor<Self, 2>, dims: BlockDims, places: &Places<Self>, cache: &mut KeyValues<Self>) {
        decode::store_keys_values(fused, dims, places, cache);
    }

    fn attention_decode(
        fused: Tensor<Self, 2>,
        dims: BlockDims,
        places: &Places<Self>,
        cache: &mut KeyValues<Self>,
    ) -> Tensor<Self, 2> {
        decode::attention_decode(fused, dims, places, cache)
    }

    fn block_decode(
        tokens: NewTokens<Self>,
        weights: BlockWeights<Self>,
        next: NormWeights<Self>,
        table: &RotaryTable<Self>,
        dims: BlockDims,
        places: &Places<Self>,
        cache: &mut KeyValues<Self>,
    ) -> NewTokens<Self> {
        if decode::takes_block(&tokens.normed, &weights) {
            return decode::block(tokens, weights, next, table, dims, places, cache);
        }
        block_decode_by_operations(tokens, weights, next, table, dims, places, cache)
    }

    fn gelu_tanh(fused: Tensor<Self, 2>, dims: BlockDims) -> Tensor<Self, 2> {
        gelu::forward(fused, dims)
    }

    fn gelu_tanh_backward(
        dh: Tensor<Self, 2>,
        fused: Tensor<Self, 2>,
        dims: BlockDims,
        into: Tensor<Self, 2>,
        grad: BiasGrad<'_, Self>,
    ) -> Tensor<Self, 2> {
        gelu::backward(dh, fused, dims, into, grad)
    }

    fn residual(
        x: Tensor<Self, 2>,
        attention: Tensor<Self, 2>,
        mlp: Tensor<Self, 2>,
        dims: BlockDims,
        dropout: Option<Dropout>,
    ) -> Tensor<Self, 2> {
        residual::forward(x, attention, mlp, dims, dropout)
    }

    fn residual_backward(
        dx: Tensor<Self, 2>,
        dims: BlockDims,
        dropout: Option<Dropout>,
        dtype: DType,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        residual::backward(dx, dims, dropout, dtype)
    }

    fn residual_norm(
        x: Tensor<Self, 2>,
        attention: Tensor<Self, 2>,
        mlp: Tensor<Self, 2>,
        dims: BlockDims,
        dropout: Option<Dropout>,
        norm: NormWeights<Self>,
    ) -> (Tensor<Self, 2>, Normed<Self>) {
        residual_norm::forward(x, [attention, mlp], dims, dropout, norm)
    }

    fn residual_norm_backward(
        dy: Tensor<Self, 2>,
        norm: NormInputs<Self>,
        grads: NormGrads<'_, Self>,
        around: Option<Tensor<Self, 2>>,
        dims: BlockDims,
        dropout: Option<Dropout>,
    ) -> (Tensor<Self, 2>, BranchGrads<Self>) {
        residual_norm::backward(dy, norm, grads, around, dims, dropout)
    }

    fn bias_grad(sums: Tensor<Self, 2>, grad: BiasGrad<'_, Self>) {
        linear::bias_grad(sums, grad);
    }

    fn embedding_dropout(x: Tensor<Self, 2>, seq: usize, dropout: Option<Dropout>) -> Tensor<Self, 2> {
        residual::embedding_dropout(x, seq, dropout)
    }

    fn sum_of_squares(flat: &Tensor<Self, 1>) -> Tensor<Self, 1> {
        optimizer::sum_of_squares(flat)
    }

    fn grad_factor(loss: &Tensor<Self, 1>, squares: &Tensor<Self, 1>, loss_scale: f32, clip: f32) -> Tensor<Self, 1> {
        optimizer::grad_factor(loss, squares, loss_scale, clip)
    }

    fn adamw(
        buffers: AdamWBuffers<Self>,
        grads: &Tensor<Self, 1>,
        factor: &Tensor<Self, 1>,
        decay_len: usize,
        step: AdamWStep,
    ) -> AdamWBuffers<Self> {
        optimizer::adamw(buffers, grads, factor, decay_len, step)
    }

    fn linear_forward(x: Tensor<Self, 2>, weight: Tensor<Self, 2>, bias: Tensor<Self, 1>) -> Tensor<Self, 2> {
        linear::forward(x, weight, bias)
    }

    fn linear_weight_grad(dy: Tensor<Self, 2>, x: Tensor<Self, 2>, grads: WeightGrads<'_, Self>) {
        linear::weight_grad(dy, x, grads);
    }

    fn linear_input_grad(dy: Tensor<Self, 2>, weight: Tensor<Self, 2>) -> Tensor<Self, 2> {
        linear::input_grad(dy, weight)
    }

    fn attention_forward(fused: Tensor<Self, 2>, dims: BlockDims, dropout: Option<Dropout>) -> Attended<Self> {
        attention::forward(fused, dims, dropout)
    }

    fn attention_backward(
        d_o: Tensor<Self, 2>,
        fused: Tensor<Self, 2>,
        attended: Attended<Self>,
        dims: BlockDims,
        dropout: Option<Dropout>,
        into: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        attention::backward(d_o, fused, attended, dims, dropout, into)
    }

    fn linear_cross_entropy(
        h: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        bias: Tensor<Self, 1>,
        targets: Tensor<Self, 1, Int>,
    ) -> Tensor<Self, 1> {
        loss::forward(h, weight, bias, targets)
    }

    fn linear_cross_entropy_backward(
        h: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        bias: Tensor<Self, 1>,
        targets: Tensor<Self, 1, Int>,
        scale: f32,
        grads: WeightGrads<'_, Self>,
    ) -> (Tensor<Self, 1>, Tensor<Self, 2>) {
        loss::backward(h, weight, bias, targets, scale, grads)
    }
}
