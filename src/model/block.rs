//! One decoder block, forward and backward.
//!
//! phi's parallel block: `x + drop(attention(ln(x))) + drop(mlp(ln(x)))` with one layer norm ("Textbooks Are All You
//! Need", section 2.3). q, k, v and fc1 share the norm's output, so they are one product. Shapes: N tokens, C hidden,
//! F inner MLP width, W = 3C + F.

use burn_tensor::{DType, Tensor};
use trainer_backends::DecoderBackend;
use trainer_backends::dropout::Dropout;
use trainer_backends::ops::{Attended, BiasGrad, BlockDims, NormGrads, Normed, RotaryTable, Turn, WeightGrads};

use super::table::BlockSlots;
use crate::config::Recompute;

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
                let gelu = B::gelu_tanh(fused.clone(), context.dims);
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
    B::layer_norm_forward(x, gamma, beta, context.norm_eps, weights.dtype())
}

/// Returns the block's output, fp32 `[N, C]`, and its activations.
pub fn forward<B: DecoderBackend>(
    context: &BlockContext<'_, B>,
    weights: &Tensor<B, 1>,
    x: Tensor<B, 2>,
) -> (Tensor<B, 2>, Activations<B>) {
    let BlockContext { dims, slots, rotary, attention_dropout, residual_dropout, .. } = context;
    let (dims, slots) = (*dims, *slots);
    let vector = |slot| B::vector(weights, slot);
    let matrix = |slot| B::matrix(weights, slot);

    let normed = norm(context, weights, x.clone());
    let fused = B::linear_forward(normed.y.clone(), matrix(slots.fused), vector(slots.fused_bias));
    let fused = B::rotary(fused, rotary, dims, Turn::Forward);
    let attended = B::attention_forward(fused.clone(), dims, *attention_dropout);
    let attention = B::linear_forward(attended.o.clone(), matrix(slots.dense), vector(slots.dense_bias));
    let gelu = B::gelu_tanh(fused.clone(), dims);
    let mlp = B::linear_forward(gelu.clone(), matrix(slots.fc2), vector(slots.fc2_bias));
    let out = B::residual(x, attention, mlp, dims, *residual_dropout);
    (out, Activations { normed, fused, attended, gelu })
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

    let (d_attention, d_mlp) = B::residual_backward(dout.clone(), dims, context.residual_dropout, dtype);
    let fc2 = WeightGrads { flat: grads, weight: slots.fc2, bias: slots.fc2_bias };
    let d_gelu = B::linear_backward(d_mlp, gelu, B::matrix(weights, slots.fc2), fc2);
    let dense = WeightGrads { flat: grads, weight: slots.dense, bias: slots.dense_bias };
    let d_o = B::linear_backward(d_attention, attended.o.clone(), B::matrix(weights, slots.dense), dense);

    let d_fused = Tensor::empty([dims.tokens(), dims.fused()], (&x.device(), dtype));
    let [qkv_bias, fc1_bias] = slots.fused_bias.split_at(3 * dims.hidden());
    let fc1 = BiasGrad { flat: grads, bias: fc1_bias };
    let d_fused = B::gelu_tanh_backward(d_gelu, fused.clone(), dims, d_fused, fc1);
    let d_fused = B::attention_backward(d_o, fused, attended, dims, context.attention_dropout, d_fused);
    let d_fused = B::rotary(d_fused, rotary, dims, Turn::Back);

    let Normed { y, mean, rstd } = normed;
    let projection = WeightGrads { flat: grads, weight: slots.fused, bias: qkv_bias };
    let d_normed = B::linear_backward(d_fused, y, B::matrix(weights, slots.fused), projection);
    let norm = NormGrads { flat: grads, gamma: slots.gamma, beta: slots.beta };
    B::layer_norm_backward(d_normed, x, mean, rstd, B::vector(weights, slots.gamma), norm, Some(dout))
}
