//! One decoder block, forward and backward.
//!
//! phi's parallel block: `x + drop(attention(ln(x))) + drop(mlp(ln(x)))` with one layer norm ("Textbooks Are All You
//! Need", section 2.3). q, k, v and fc1 share the norm's output, so they are one product. Shapes: N tokens, C hidden,
//! F inner MLP width, W = 3C + F.

use burn_tensor::{DType, Tensor};
use trainer_backends::DecoderBackend;
use trainer_backends::cache::{KeyValues, Places};
use trainer_backends::dropout::Dropout;
use trainer_backends::ops::{Attended, BiasGrad, BlockDims, NormGrads, Normed, RotaryTable, Turn, WeightGrads};

use super::table::BlockSlots;
use crate::config::Recompute;
use crate::profile::ops;

/// What a block needs besides its input and weights.
pub struct BlockContext<'a, B: DecoderBackend> {
    pub dims: BlockDims,
    pub slots: BlockSlots,
    pub rotary: &'a RotaryTable<B>,
    pub norm_eps: f32,
    pub attention_dropout: Option<Dropout>,
    pub residual_dropout: Option<Dropout>,
}

/// What backward needs of a block's forward.
pub struct Saved<B: DecoderBackend> {
    /// The block's input, fp32 `[N, C]`.
    x: Tensor<B, 2>,
    kept: Kept<B>,
}

/// What is kept of a block beside its input; the rest is computed again.
enum Kept<B: DecoderBackend> {
    All(Activations<B>),
    /// What takes products to compute: `fused` and attention's output.
    Products(Tensor<B, 2>, Attended<B>),
    Nothing,
}

impl<B: DecoderBackend> Saved<B> {
    pub fn new(x: Tensor<B, 2>, activations: Activations<B>, recompute: Recompute) -> Self {
        let kept = match recompute {
            Recompute::None => Kept::All(activations),
            Recompute::Activation => Kept::Products(activations.fused, activations.attended),
            Recompute::Block => Kept::Nothing,
        };
        Self { x, kept }
    }

    /// The block's input and all its activations.
    fn restore(self, context: &BlockContext<'_, B>, weights: &Tensor<B, 1>) -> (Tensor<B, 2>, Activations<B>) {
        let Self { x, kept } = self;
        let activations = match kept {
            Kept::All(activations) => activations,
            Kept::Products(fused, attended) => {
                let normed = norm(context, weights, x.clone());
                let gelu = ops::gelu_tanh(fused.clone(), context.dims);
                Activations { normed, fused, attended, gelu }
            }
            Kept::Nothing => forward(context, weights, x.clone()).1,
        };
        (x, activations)
    }
}

/// A block's intermediate results.
pub struct Activations<B: DecoderBackend> {
    normed: Normed<B>,
    /// `[N, W]`: rotated q and k, v, and fc1's output.
    fused: Tensor<B, 2>,
    attended: Attended<B>,
    /// `[N, F]`: GELU's output.
    gelu: Tensor<B, 2>,
}

fn norm<B: DecoderBackend>(context: &BlockContext<'_, B>, weights: &Tensor<B, 1>, x: Tensor<B, 2>) -> Normed<B> {
    let (gamma, beta) = (B::vector(weights, context.slots.gamma), B::vector(weights, context.slots.beta));
    ops::layer_norm_forward(x, gamma, beta, context.norm_eps, weights.dtype())
}

/// Returns the block's output, fp32 `[N, C]`, and its activations.
pub fn forward<B: DecoderBackend>(
    context: &BlockContext<'_, B>,
    weights: &Tensor<B, 1>,
    x: Tensor<B, 2>,
) -> (Tensor<B, 2>, Activations<B>) {
    let normed = norm(context, weights, x.clone());
    let fused = project(context, weights, normed.y.clone());
    let fused = ops::rotary(fused, context.rotary, context.dims, Turn::Forward);
    let attended = ops::attention_forward(fused.clone(), context.dims, context.attention_dropout);
    let (out, gelu) = merge(context, weights, x, attended.o.clone(), fused.clone());
    (out, Activations { normed, fused, attended, gelu })
}

/// As `forward` without dropout, keeping only keys and values: each sequence's T tokens are its first ones.
pub fn prefill<B: DecoderBackend>(
    context: &BlockContext<'_, B>,
    weights: &Tensor<B, 1>,
    x: Tensor<B, 2>,
    places: &Places<B>,
    cache: &mut KeyValues<B>,
) -> Tensor<B, 2> {
    let (out, Activations { fused, .. }) = forward(context, weights, x);
    B::store_keys_values(&fused, context.dims, places, cache);
    out
}

/// The block's output for one new token a sequence, fp32 `[B, C]`. `context.rotary` has a row a sequence, that of its
/// position.
pub fn decode<B: DecoderBackend>(
    context: &BlockContext<'_, B>,
    weights: &Tensor<B, 1>,
    x: Tensor<B, 2>,
    places: &Places<B>,
    cache: &mut KeyValues<B>,
) -> Tensor<B, 2> {
    let dims = context.dims;
    let fused = project(context, weights, norm(context, weights, x.clone()).y);
    // Row i of the table is what the i-th position of one sequence of B turns by.
    let as_positions = BlockDims { batch: 1, seq: dims.batch, ..dims };
    let fused = ops::rotary(fused, context.rotary, as_positions, Turn::Forward);
    let o = B::attention_decode(fused.clone(), dims, places, cache);
    merge(context, weights, x, o, fused).0
}

/// q, k, v and fc1's output, `[N, W]`, of the norm's output `[N, C]`.
fn project<B: DecoderBackend>(
    context: &BlockContext<'_, B>,
    weights: &Tensor<B, 1>,
    normed: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let slots = context.slots;
    ops::linear_forward(normed, B::matrix(weights, slots.fused), B::vector(weights, slots.fused_bias))
}

/// Both branches added to `x`, fp32 `[N, C]`, and GELU's output, given attention's `o` `[N, C]`.
fn merge<B: DecoderBackend>(
    context: &BlockContext<'_, B>,
    weights: &Tensor<B, 1>,
    x: Tensor<B, 2>,
    o: Tensor<B, 2>,
    fused: Tensor<B, 2>,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let BlockContext { dims, slots, residual_dropout, .. } = context;
    let attention = ops::linear_forward(o, B::matrix(weights, slots.dense), B::vector(weights, slots.dense_bias));
    let gelu = ops::gelu_tanh(fused, *dims);
    let mlp = ops::linear_forward(gelu.clone(), B::matrix(weights, slots.fc2), B::vector(weights, slots.fc2_bias));
    (ops::residual(x, attention, mlp, *dims, *residual_dropout), gelu)
}

/// Returns the gradient of the block's input, fp32 `[N, C]`, given that of its output; adds those of the weights.
pub fn backward<B: DecoderBackend>(
    context: &BlockContext<'_, B>,
    weights: &Tensor<B, 1>,
    saved: Saved<B>,
    dout: Tensor<B, 2>,
    grads: &mut Tensor<B, 1>,
) -> Tensor<B, 2> {
    let BlockContext { dims, slots, rotary, .. } = context;
    let (dims, slots) = (*dims, *slots);
    let dtype: DType = weights.dtype();
    let (x, Activations { normed, fused, attended, gelu }) = saved.restore(context, weights);

    let (d_attention, d_mlp) = ops::residual_backward(dout.clone(), dims, context.residual_dropout, dtype);
    let fc2 = WeightGrads { flat: grads, weight: slots.fc2, bias: slots.fc2_bias };
    let d_gelu = ops::linear_backward(d_mlp, gelu, B::matrix(weights, slots.fc2), fc2);
    let dense = WeightGrads { flat: grads, weight: slots.dense, bias: slots.dense_bias };
    let d_o = ops::linear_backward(d_attention, attended.o.clone(), B::matrix(weights, slots.dense), dense);

    let d_fused = Tensor::empty([dims.tokens(), dims.fused()], (&x.device(), dtype));
    let [qkv_bias, fc1_bias] = slots.fused_bias.split_at(3 * dims.hidden());
    let fc1 = BiasGrad { flat: grads, bias: fc1_bias };
    let d_fused = ops::gelu_tanh_backward(d_gelu, fused.clone(), dims, d_fused, fc1);
    let d_fused = ops::attention_backward(d_o, fused, attended, dims, context.attention_dropout, d_fused);
    let d_fused = ops::rotary(d_fused, rotary, dims, Turn::Back);

    let Normed { y, mean, rstd } = normed;
    let projection = WeightGrads { flat: grads, weight: slots.fused, bias: qkv_bias };
    let d_normed = ops::linear_backward(d_fused, y, B::matrix(weights, slots.fused), projection);
    let norm = NormGrads { flat: grads, gamma: slots.gamma, beta: slots.beta };
    ops::layer_norm_backward(d_normed, x, mean, rstd, B::vector(weights, slots.gamma), norm, Some(dout))
}
