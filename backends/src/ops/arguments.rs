//! What operations are given and give back. Shapes are in the letters of `ops`.

use burn_backend::Backend;
use burn_tensor::Tensor;

/// The sizes of one block's activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockDims {
    pub batch: usize,
    pub seq: usize,
    pub heads: usize,
    pub head_dim: usize,
    /// Leading dimensions of each head that are rotated; even, at most `head_dim`.
    pub rotary_dim: usize,
    pub mlp: usize,
}

impl BlockDims {
    /// N: tokens in the micro-batch.
    pub fn tokens(&self) -> usize {
        self.batch * self.seq
    }

    /// C: width of the residual stream.
    pub fn hidden(&self) -> usize {
        self.heads * self.head_dim
    }

    /// W: columns of the fused projection, `[q | k | v | fc1]`.
    pub fn fused(&self) -> usize {
        3 * self.hidden() + self.mlp
    }

    /// 1 / sqrt(D): what attention scores are multiplied with.
    pub fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// A row-major matrix inside a flat buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixSlot {
    pub offset: usize,
    pub rows: usize,
    pub cols: usize,
}

/// A vector inside a flat buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorSlot {
    pub offset: usize,
    pub len: usize,
}

impl VectorSlot {
    /// The first `len` elements, and the others.
    pub fn split_at(self, len: usize) -> [Self; 2] {
        [Self { offset: self.offset, len }, Self { offset: self.offset + len, len: self.len - len }]
    }
}

/// Where the gradients of a weight and its bias are accumulated: slots of one flat fp32 buffer.
pub struct WeightGrads<'a, B: Backend> {
    pub flat: &'a mut Tensor<B, 1>,
    pub weight: MatrixSlot,
    /// Where it is shorter than the weight has rows, only the first elements' gradients are added.
    pub bias: VectorSlot,
}

/// The weights of a block's products, in the compute dtype, each with its bias.
#[derive(Clone)]
pub struct BlockWeights<B: Backend> {
    /// `[W, C]`: of q, k, v and fc1.
    pub fused: (Tensor<B, 2>, Tensor<B, 1>),
    /// `[C, C]`.
    pub dense: (Tensor<B, 2>, Tensor<B, 1>),
    /// `[C, F]`.
    pub fc2: (Tensor<B, 2>, Tensor<B, 1>),
}

/// One further token of each of a number of sequences on its way through a block.
pub struct NewTokens<B: Backend> {
    /// The block's input, fp32 `[B, C]`.
    pub x: Tensor<B, 2>,
    /// Its norm, `[B, C]` in the compute dtype.
    pub normed: Tensor<B, 2>,
}

/// Where the gradient of a bias is accumulated.
pub struct BiasGrad<'a, B: Backend> {
    pub flat: &'a mut Tensor<B, 1>,
    pub bias: VectorSlot,
}

/// Where the gradients of a norm's scale and shift are accumulated.
pub struct NormGrads<'a, B: Backend> {
    pub flat: &'a mut Tensor<B, 1>,
    pub gamma: VectorSlot,
    pub beta: VectorSlot,
}

/// A layer norm's result and what its backward needs besides the input.
pub struct Normed<B: Backend> {
    /// `[N, C]` in the compute dtype.
    pub y: Tensor<B, 2>,
    /// `[N]` fp32.
    pub mean: Tensor<B, 1>,
    /// `[N]` fp32: 1 / sqrt(variance + eps).
    pub rstd: Tensor<B, 1>,
}

/// A layer norm's weights, `[C]` each, and what is added to the variance.
pub struct NormWeights<B: Backend> {
    pub gamma: Tensor<B, 1>,
    pub beta: Tensor<B, 1>,
    pub eps: f32,
}

/// What a layer norm's backward needs besides the gradient of its output.
pub struct NormInputs<B: Backend> {
    /// The norm's input, fp32 `[N, C]`.
    pub x: Tensor<B, 2>,
    /// `[N]` fp32, as in [`Normed`].
    pub mean: Tensor<B, 1>,
    pub rstd: Tensor<B, 1>,
    /// `[C]` in the compute dtype.
    pub gamma: Tensor<B, 1>,
}

/// The gradients of the two branches of a residual sum.
pub struct BranchGrads<B: Backend> {
    /// `[N, C]` each, in the compute dtype.
    pub attention: Tensor<B, 2>,
    pub mlp: Tensor<B, 2>,
    /// `[S, C]` each, any float dtype: S rows that add up to the gradients of the branches' biases, for `bias_grad`.
    pub attention_sums: Tensor<B, 2>,
    pub mlp_sums: Tensor<B, 2>,
}

impl<B: Backend> BranchGrads<B> {
    /// Of gradients whose own rows are the biases'.
    pub fn new((attention, mlp): (Tensor<B, 2>, Tensor<B, 2>)) -> Self {
        Self { attention_sums: attention.clone(), mlp_sums: mlp.clone(), attention, mlp }
    }
}

/// Attention's result and what its backward needs besides q, k, v.
pub struct Attended<B: Backend> {
    /// `[N, C]` in the compute dtype.
    pub o: Tensor<B, 2>,
    /// `[B * H * T]` fp32: log-sum-exp of each row of scaled, masked scores.
    pub lse: Tensor<B, 1>,
}

/// cos and sin of position x frequency, each `[T, rotary_dim / 2]` fp32.
#[derive(Clone)]
pub struct RotaryTable<B: Backend> {
    pub cos: Tensor<B, 2>,
    pub sin: Tensor<B, 2>,
}

/// Whether `rotary` turns forward (on q and k) or back (on their gradients).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Forward,
    Back,
}

/// One AdamW step's scalars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    pub lr: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
    /// Updates made including this one, from 1: decides the bias corrections.
    pub update: u64,
}

/// The buffers of one parameter group that AdamW reads and writes, all `[len]`.
pub struct AdamWBuffers<B: Backend> {
    /// Weights in the compute dtype. In fp32 they are the master weights themselves.
    pub weights: Tensor<B, 1>,
    /// fp32 master weights; `None` where the compute dtype is fp32.
    pub master: Option<Tensor<B, 1>>,
    pub m: Tensor<B, 1>,
    pub v: Tensor<B, 1>,
}
