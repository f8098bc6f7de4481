//! The operations of a training step, each in a span: those of `DecoderBackend`, under the same names.
//!
//! FLOPs are those of `Architecture::flops_per_token`: products and attention, whose masked half counts, and whose
//! backward counts two products for each of the forward. Bytes are what an operation must read and write once. Letters
//! are those of backends/src/ops/mod.rs; s is the bytes of the compute dtype.

use burn_tensor::{DType, Int, Tensor};
use trainer_backends::DecoderBackend;
use trainer_backends::dropout::Dropout;
use trainer_backends::ops::{
    AdamWBuffers, AdamWStep, Attended, BiasGrad, BlockDims, BranchGrads, MatrixSlot, NormGrads, NormInputs,
    NormWeights, Normed, RotaryTable, WeightGrads,
};

use super::recorder::{Span, Work, op};

fn bytes_of<B: DecoderBackend, const D: usize>(tensor: &Tensor<B, D>) -> u64 {
    (tensor.dims().iter().product::<usize>() * tensor.dtype().size()) as u64
}

/// A product for N tokens with a weight that takes `inputs` numbers to `outputs`.
fn product(name: &str, n: usize, [inputs, outputs]: [usize; 2], bytes: u64) -> Work {
    Work {
        name: format!("{name} {inputs}x{outputs}").into(),
        shape: format!("{n} tokens, {inputs} to {outputs}"),
        flops: 2 * (n * inputs * outputs) as u64,
        bytes,
    }
}

/// An operation on N x C numbers that takes no products to speak of. `sizes` are those two, and the bytes a number.
fn pointwise(name: &'static str, sizes: impl FnOnce() -> ([usize; 2], usize)) -> Span {
    let work = || {
        let ([n, c], bytes_a_number) = sizes();
        Work { name: name.into(), shape: format!("{n} x {c}"), flops: 0, bytes: (n * c * bytes_a_number) as u64 }
    };
    op(work)
}

fn forward_work<B: DecoderBackend>(x: &Tensor<B, 2>, weight: &Tensor<B, 2>) -> Work {
    let ([n, k], o) = (x.dims(), weight.dims()[0]);
    let y_bytes = (n * o * x.dtype().size()) as u64;
    product("linear forward", n, [k, o], bytes_of(x) + bytes_of(weight) + y_bytes)
}

pub fn linear_forward<B: DecoderBackend>(x: Tensor<B, 2>, weight: Tensor<B, 2>, bias: Tensor<B, 1>) -> Tensor<B, 2> {
    let _span = op(|| forward_work(&x, &weight));
    B::linear_forward(x, weight, bias)
}

/// One operation: the rotation may be the product's own.
pub fn linear_rotary_forward<B: DecoderBackend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    table: &RotaryTable<B>,
    dims: BlockDims,
) -> Tensor<B, 2> {
    let _span = op(|| forward_work(&x, &weight));
    B::linear_rotary_forward(x, weight, bias, table, dims)
}

/// The gradient of the input, and in `grads` those of weight and bias: two operations. The bias' is the sum of the rows of
/// `bias_sums` where there are any, else of those of `dy`.
pub fn linear_backward<B: DecoderBackend>(
    dy: Tensor<B, 2>,
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    grads: WeightGrads<'_, B>,
    bias_sums: Option<Tensor<B, 2>>,
) -> Tensor<B, 2> {
    let sizes = || (dy.dims()[0], [weight.dims()[1], weight.dims()[0]]);
    let weight_grad = || {
        let (n, [k, o]) = sizes();
        // fp32, and added to.
        product("weight grad", n, [k, o], bytes_of(&dy) + bytes_of(&x) + 8 * (k * o) as u64)
    };
    let span = op(weight_grad);
    let WeightGrads { flat, weight: slot, bias } = grads;
    let own = if bias_sums.is_some() { bias.split_at(0)[0] } else { bias };
    if let Some(sums) = bias_sums {
        B::bias_grad(sums, BiasGrad { flat, bias });
    }
    B::linear_weight_grad(dy.clone(), x, WeightGrads { flat, weight: slot, bias: own });
    drop(span);
    let input_grad = || {
        let (n, [k, o]) = sizes();
        let dx_bytes = (n * k * dy.dtype().size()) as u64;
        product("input grad", n, [k, o], bytes_of(&dy) + bytes_of(&weight) + dx_bytes)
    };
    let _span = op(input_grad);
    B::linear_input_grad(dy, weight)
}

/// `products` of `[T, T]` with `[T, D]` a head, and `tensors` of `[N, C]` read and written.
fn attention(name: &'static str, dims: BlockDims, products: usize, tensors: usize, s: usize) -> Work {
    let BlockDims { batch, seq, heads, head_dim, .. } = dims;
    let elements = dims.tokens() * dims.hidden();
    Work {
        name: name.into(),
        shape: format!("{batch} x {heads} heads x {seq} x {head_dim}"),
        flops: 2 * (products * elements * seq) as u64,
        bytes: (tensors * elements * s + 4 * dims.tokens() * heads) as u64,
    }
}

pub fn attention_forward<B: DecoderBackend>(
    fused: Tensor<B, 2>,
    dims: BlockDims,
    dropout: Option<Dropout>,
) -> Attended<B> {
    let _span = op(|| attention("attention forward", dims, 2, 4, fused.dtype().size()));
    B::attention_forward(fused, dims, dropout)
}

/// One operation, as `linear_rotary_forward`.
pub fn attention_rotary_backward<B: DecoderBackend>(
    d_o: Tensor<B, 2>,
    fused: Tensor<B, 2>,
    attended: Attended<B>,
    table: &RotaryTable<B>,
    dims: BlockDims,
    dropout: Option<Dropout>,
    into: Tensor<B, 2>,
) -> (Tensor<B, 2>, Option<Tensor<B, 2>>) {
    let _span = op(|| attention("attention backward", dims, 4, 8, fused.dtype().size()));
    B::attention_rotary_backward(d_o, fused, attended, table, dims, dropout, into)
}

pub fn layer_norm_forward<B: DecoderBackend>(
    x: Tensor<B, 2>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    eps: f32,
    dtype: DType,
) -> Normed<B> {
    let _span = pointwise("layer norm forward", || (x.dims(), 4 + dtype.size()));
    B::layer_norm_forward(x, gamma, beta, eps, dtype)
}

pub fn layer_norm_backward<B: DecoderBackend>(
    dy: Tensor<B, 2>,
    x: Tensor<B, 2>,
    mean: Tensor<B, 1>,
    rstd: Tensor<B, 1>,
    gamma: Tensor<B, 1>,
    grads: NormGrads<'_, B>,
    around: Option<Tensor<B, 2>>,
) -> Tensor<B, 2> {
    let around_bytes = if around.is_some() { 4 } else { 0 };
    let _span = pointwise("layer norm backward", || (x.dims(), dy.dtype().size() + 8 + around_bytes));
    B::layer_norm_backward(dy, x, mean, rstd, gamma, grads, around)
}

pub fn residual_norm<B: DecoderBackend>(
    x: Tensor<B, 2>,
    attention: Tensor<B, 2>,
    mlp: Tensor<B, 2>,
    dims: BlockDims,
    dropout: Option<Dropout>,
    norm: NormWeights<B>,
) -> (Tensor<B, 2>, Normed<B>) {
    let _span = pointwise("residual and norm forward", || (x.dims(), 8 + 3 * attention.dtype().size()));
    B::residual_norm(x, attention, mlp, dims, dropout, norm)
}

pub fn residual_norm_backward<B: DecoderBackend>(
    dy: Tensor<B, 2>,
    norm: NormInputs<B>,
    grads: NormGrads<'_, B>,
    around: Option<Tensor<B, 2>>,
    dims: BlockDims,
    dropout: Option<Dropout>,
) -> (Tensor<B, 2>, BranchGrads<B>) {
    let around_bytes = if around.is_some() { 4 } else { 0 };
    // Without dropout the branches have one gradient.
    let branches = if dropout.is_some() { 2 } else { 1 };
    let bytes = || dy.dtype().size() + 8 + around_bytes + branches * norm.gamma.dtype().size();
    let _span = pointwise("residual and norm backward", || (dy.dims(), bytes()));
    B::residual_norm_backward(dy, norm, grads, around, dims, dropout)
}

pub fn gelu_tanh<B: DecoderBackend>(fused: Tensor<B, 2>, dims: BlockDims) -> Tensor<B, 2> {
    let _span = pointwise("GELU forward", || ([dims.tokens(), dims.mlp], 2 * fused.dtype().size()));
    B::gelu_tanh(fused, dims)
}

pub fn gelu_tanh_backward<B: DecoderBackend>(
    dh: Tensor<B, 2>,
    fused: Tensor<B, 2>,
    dims: BlockDims,
    into: Tensor<B, 2>,
    grad: BiasGrad<'_, B>,
) -> Tensor<B, 2> {
    let _span = pointwise("GELU backward", || ([dims.tokens(), dims.mlp], 3 * fused.dtype().size()));
    B::gelu_tanh_backward(dh, fused, dims, into, grad)
}

pub fn token_embedding<B: DecoderBackend>(table: Tensor<B, 2>, tokens: Tensor<B, 1, Int>) -> Tensor<B, 2> {
    let _span = pointwise("embedding forward", || ([tokens.dims()[0], table.dims()[1]], 4 + table.dtype().size()));
    B::token_embedding(table, tokens)
}

pub fn token_embedding_backward<B: DecoderBackend>(
    dx: Tensor<B, 2>,
    tokens: Tensor<B, 1, Int>,
    grads: &mut Tensor<B, 1>,
    table: MatrixSlot,
) {
    let _span = pointwise("embedding backward", || (dx.dims(), 12));
    B::token_embedding_backward(dx, tokens, grads, table);
}

/// Without dropout there is nothing to do, and no span.
pub fn embedding_dropout<B: DecoderBackend>(x: Tensor<B, 2>, seq: usize, dropout: Option<Dropout>) -> Tensor<B, 2> {
    let _span = dropout.map(|_| pointwise("embedding dropout", || (x.dims(), 8)));
    B::embedding_dropout(x, seq, dropout)
}

pub fn linear_cross_entropy<B: DecoderBackend>(
    h: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    targets: Tensor<B, 1, Int>,
) -> Tensor<B, 1> {
    let _span = op(|| product("head and loss forward", h.dims()[0], [h.dims()[1], weight.dims()[0]], 0));
    B::linear_cross_entropy(h, weight, bias, targets)
}

pub fn linear_cross_entropy_backward<B: DecoderBackend>(
    h: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    targets: Tensor<B, 1, Int>,
    scale: f32,
    grads: WeightGrads<'_, B>,
) -> (Tensor<B, 1>, Tensor<B, 2>) {
    let work = || {
        let one = product("head and loss", h.dims()[0], [h.dims()[1], weight.dims()[0]], 0);
        // The logits, and the gradients of h and of the weight.
        Work { flops: 3 * one.flops, ..one }
    };
    let _span = op(work);
    B::linear_cross_entropy_backward(h, weight, bias, targets, scale, grads)
}

/// An operation on single numbers.
pub fn scalar(name: &'static str) -> Span {
    op(|| Work { name: name.into(), ..Work::default() })
}

/// `name` over whole flat buffers, each of which is read or written `times`.
pub fn over_buffers<B: DecoderBackend>(name: &'static str, buffers: &[Tensor<B, 1>], times: u64) -> Span {
    let work = || {
        let bytes: u64 = buffers.iter().map(bytes_of).sum();
        let shape = format!("{} buffers, {bytes} bytes", buffers.len());
        Work { name: name.into(), shape, flops: 0, bytes: times * bytes }
    };
    op(work)
}

pub fn adamw<B: DecoderBackend>(
    buffers: AdamWBuffers<B>,
    grads: &Tensor<B, 1>,
    factor: &Tensor<B, 1>,
    decay_len: usize,
    step: AdamWStep,
) -> AdamWBuffers<B> {
    let work = || {
        let len = buffers.m.dims()[0];
        // m, v and the master weights are read and written, gradients read; narrower weights are written only.
        let weights = if buffers.master.is_some() { buffers.weights.dtype().size() } else { 0 };
        Work {
            name: "AdamW".into(),
            shape: format!("{len} parameters"),
            flops: 0,
            bytes: (len * (3 * 8 + 4 + weights)) as u64,
        }
    };
    let _span = op(work);
    B::adamw(buffers, grads, factor, decay_len, step)
}
