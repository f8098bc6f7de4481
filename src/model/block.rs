//! One decoder block, forward and backward.
//!
//! phi's parallel block: `x + drop(attention(ln(x))) + drop(mlp(ln(x)))` with one layer norm ("Textbooks Are All You
//! Need", section 2.3). q, k, v and fc1 share the norm's output, so they are one product. Shapes: N tokens, C hidden,
//! F inner MLP width, W = 3C + F.

use burn_tensor::{DType, Tensor};
use trainer_backends::DecoderBackend;
use trainer_backends::cache::{KeyValues, Places};
use trainer_backends::dropout::Dropout;
use trainer_backends::ops::{
    Attended, BiasGrad, BlockDims, BlockWeights, BranchGrads, NewTokens, NormGrads, NormInputs, NormWeights, Normed,
    RotaryTable, WeightGrads,
};

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
            Kept::Nothing => activations(context, weights, norm(context, weights, x.clone())),
        };
        (x, activations)
    }
}

/// A block's intermediate results, all but its branches.
pub struct Activations<B: DecoderBackend> {
    normed: Normed<B>,
    /// `[N, W]`: rotated q and k, v, and fc1's output.
    fused: Tensor<B, 2>,
    attended: Attended<B>,
    /// `[N, F]`: GELU's output.
    gelu: Tensor<B, 2>,
}

/// The two branches of a block, `[N, C]` each, before they are added to its input.
pub struct Branches<B: DecoderBackend> {
    pub attention: Tensor<B, 2>,
    pub mlp: Tensor<B, 2>,
}

fn norm<B: DecoderBackend>(context: &BlockContext<'_, B>, weights: &Tensor<B, 1>, x: Tensor<B, 2>) -> Normed<B> {
    let (gamma, beta) = (B::vector(weights, context.slots.gamma), B::vector(weights, context.slots.beta));
    ops::layer_norm_forward(x, gamma, beta, context.norm_eps, weights.dtype())
}

fn activations<B: DecoderBackend>(
    context: &BlockContext<'_, B>,
    weights: &Tensor<B, 1>,
    normed: Normed<B>,
) -> Activations<B> {
    let fused = project(context, weights, normed.y.clone(), context.dims);
    let attended = ops::attention_forward(fused.clone(), context.dims, context.attention_dropout);
    let gelu = ops::gelu_tanh(fused.clone(), context.dims);
    Activations { normed, fused, attended, gelu }
}

/// Returns the block's branches and its activations, given its input's norm.
pub fn forward<B: DecoderBackend>(
    context: &BlockContext<'_, B>,
    weights: &Tensor<B, 1>,
    normed: Normed<B>,
) -> (Branches<B>, Activations<B>) {
    let activations = activations(context, weights, normed);
    (branches(context, weights, activations.attended.o.clone(), activations.gelu.clone()), activations)
}

/// As `forward` without dropout, keeping only keys and values: each sequence's T tokens are its first ones.
pub fn prefill<B: DecoderBackend>(
    context: &BlockContext<'_, B>,
    weights: &Tensor<B, 1>,
    normed: Normed<B>,
    places: &Places<B>,
    cache: &mut KeyValues<B>,
) -> Branches<B> {
    let (branches, Activations { fused, .. }) = forward(context, weights, normed);
    B::store_keys_values(&fused, context.dims, places, cache);
    branches
}

/// The block for one new token a sequence, and the norm behind it. `context.rotary` has a row a sequence, that of its position.
pub fn decode<B: DecoderBackend>(
    context: &BlockContext<'_, B>,
    weights: &Tensor<B, 1>,
    tokens: NewTokens<B>,
    next: NormWeights<B>,
    places: &Places<B>,
    cache: &mut KeyValues<B>,
) -> NewTokens<B> {
    let BlockContext { dims, slots, rotary, .. } = context;
    let pair = |weight, bias| (B::matrix(weights, weight), B::vector(weights, bias));
    let products = BlockWeights {
        fused: pair(slots.fused, slots.fused_bias),
        dense: pair(slots.dense, slots.dense_bias),
        fc2: pair(slots.fc2, slots.fc2_bias),
    };
    B::block_decode(tokens, products, next, rotary, *dims, places, cache)
}

/// q and k, which are then rotated, v, and fc1's output, `[N, W]`, of the norm's output `[N, C]`.
fn project<B: DecoderBackend>(
    context: &BlockContext<'_, B>,
    weights: &Tensor<B, 1>,
    normed: Tensor<B, 2>,
    dims: BlockDims,
) -> Tensor<B, 2> {
    let (weight, bias) = (B::matrix(weights, context.slots.fused), B::vector(weights, context.slots.fused_bias));
    ops::linear_rotary_forward(normed, weight, bias, context.rotary, dims)
}

/// Both branches, given attention's output `o` `[N, C]` and GELU's `[N, F]`.
fn branches<B: DecoderBackend>(
    context: &BlockContext<'_, B>,
    weights: &Tensor<B, 1>,
    o: Tensor<B, 2>,
    gelu: Tensor<B, 2>,
) -> Branches<B> {
    let slots = context.slots;
    // First what was written last.
    let mlp = ops::linear_forward(gelu, B::matrix(weights, slots.fc2), B::vector(weights, slots.fc2_bias));
    let attention = ops::linear_forward(o, B::matrix(weights, slots.dense), B::vector(weights, slots.dense_bias));
    Branches { attention, mlp }
}

/// What reaches a block from behind it.
pub struct Upstream<B: DecoderBackend> {
    /// The gradient of the block's output, fp32 `[N, C]`.
    pub stream: Tensor<B, 2>,
    /// Those of its branches, where they came with it.
    pub branches: Option<BranchGrads<B>>,
}

/// The gradient of a norm's input, and of the branches of the block `before` the norm, whose output that is.
pub fn norm_backward<B: DecoderBackend>(
    before: Option<&BlockContext<'_, B>>,
    dy: Tensor<B, 2>,
    inputs: NormInputs<B>,
    grads: NormGrads<'_, B>,
    around: Option<Tensor<B, 2>>,
) -> Upstream<B> {
    match before {
        Some(BlockContext { dims, residual_dropout, .. }) => {
            let (stream, branches) = ops::residual_norm_backward(dy, inputs, grads, around, *dims, *residual_dropout);
            Upstream { stream, branches: Some(branches) }
        }
        None => {
            let NormInputs { x, mean, rstd, gamma } = inputs;
            Upstream { stream: ops::layer_norm_backward(dy, x, mean, rstd, gamma, grads, around), branches: None }
        }
    }
}

/// What reaches the block `before` this one, given what reaches this one; adds the gradients of the weights.
pub fn backward<B: DecoderBackend>(
    context: &BlockContext<'_, B>,
    weights: &Tensor<B, 1>,
    saved: Saved<B>,
    upstream: Upstream<B>,
    grads: &mut Tensor<B, 1>,
    before: Option<&BlockContext<'_, B>>,
) -> Upstream<B> {
    let BlockContext { dims, slots, rotary, .. } = context;
    let (dims, slots) = (*dims, *slots);
    let dtype: DType = weights.dtype();
    let (x, Activations { normed, fused, attended, gelu }) = saved.restore(context, weights);

    let Upstream { stream, branches } = upstream;
    let branches = branches.unwrap_or_else(|| {
        BranchGrads::new(B::residual_backward(stream.clone(), dims, context.residual_dropout, dtype))
    });
    let BranchGrads { attention, mlp, attention_sums, mlp_sums } = branches;
    let fc2 = WeightGrads { flat: grads, weight: slots.fc2, bias: slots.fc2_bias };
    let d_gelu = ops::linear_backward(mlp, gelu, B::matrix(weights, slots.fc2), fc2, Some(mlp_sums));
    let dense = WeightGrads { flat: grads, weight: slots.dense, bias: slots.dense_bias };
    let (o, weight) = (attended.o.clone(), B::matrix(weights, slots.dense));
    let d_o = ops::linear_backward(attention, o, weight, dense, Some(attention_sums));

    let d_fused = Tensor::empty([dims.tokens(), dims.fused()], (&x.device(), dtype));
    let [qkv_bias, fc1_bias] = slots.fused_bias.split_at(3 * dims.hidden());
    let fc1 = BiasGrad { flat: grads, bias: fc1_bias };
    let d_fused = ops::gelu_tanh_backward(d_gelu, fused.clone(), dims, d_fused, fc1);
    let dropout = context.attention_dropout;
    let (d_fused, qkv_sums) = ops::attention_rotary_backward(d_o, fused, attended, rotary, dims, dropout, d_fused);

    let Normed { y, mean, rstd } = normed;
    let projection = WeightGrads { flat: grads, weight: slots.fused, bias: qkv_bias };
    let dy = ops::linear_backward(d_fused, y, B::matrix(weights, slots.fused), projection, qkv_sums);
    let inputs = NormInputs { x, mean, rstd, gamma: B::vector(weights, slots.gamma) };
    let norm = NormGrads { flat: grads, gamma: slots.gamma, beta: slots.beta };
    norm_backward(before, dy, inputs, norm, Some(stream))
}
