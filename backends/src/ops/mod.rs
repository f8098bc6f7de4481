//! The decoder's operations, each with its forward and its backward, over plain tensors.
//!
//! Shapes in one letter each: B sequences, T positions, N = B x T tokens, C hidden, H heads, D = C / H, F inner width of
//! the MLP, V vocabulary, W = 3C + F. The *compute dtype* is that of the weights (fp32, fp16 or bf16); the residual
//! stream, statistics, the loss and every weight gradient are fp32.

mod arguments;
mod decode;

use burn_backend::Backend;
use burn_tensor::{DType, Int, Tensor};

use crate::cache::{KeyValues, Places};
use crate::dropout::Dropout;
use crate::error::{Error, Result};
use crate::reference;
use crate::transfer::{DeviceSpan, Fence, Reading};
use crate::tuning::Tunable;
pub use arguments::*;
pub(crate) use decode::block as block_decode_by_operations;

/// The most bytes of fp32 logits that a GPU holds at a time (a single row of more is taken alone). Each chunk reads the head
/// and reads and writes its gradient, which is as long as the products of some 500 tokens on a GPU with tensor cores; at
/// 51200 words this is 2592 tokens. Adapters that bind less hold less, and processors 32 MiB.
pub const LOGITS_BYTES: usize = 512 << 20;

/// Tokens whose logits are held at a time in `bytes`: a multiple of 32 where there are as many, so that tiles are full.
pub fn device_loss_chunk(tokens: usize, vocab: usize, bytes: usize) -> usize {
    let most = (bytes / (4 * vocab.max(1))).max(1);
    let even = if most >= 32 { most / 32 * 32 } else { most };
    even.min(tokens).max(1)
}

/// Bytes of a device's memory, as its allocator counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// In live buffers.
    pub in_use: u64,
    /// Taken from the driver; nothing is given back while training, so this is also the most there was.
    pub reserved: u64,
}

/// A burn backend that runs the decoder.
///
/// Each method's default body is the plain-tensor reference in `crate::reference`, so any burn backend can run the whole
/// program, and an override has its oracle beside it. Methods that take a tensor by value may write into it; the
/// `into` argument of a backward method is written in its own columns and returned.
pub trait DecoderBackend: Backend {
    /// The memory of `device` once everything queued has been taken up; `None` where nothing counts it.
    fn memory(_device: &Self::Device) -> Option<DeviceMemory> {
        None
    }

    /// Begins to copy a buffer to the host, as what is queued by now leaves it; any thread may wait for it. On CUDA the copy
    /// is waited for here.
    fn read(flat: Tensor<Self, 1>) -> Reading {
        Reading::ask(async move { flat.into_data_async().await.map_err(|error| error.to_string()) })
    }

    /// Lends a buffer's bytes to `look`, as what is queued by now leaves them: from where they are, where the host can look there.
    fn with_bytes<R>(flat: &Tensor<Self, 1>, look: impl FnOnce(&[u8]) -> R) -> R {
        look(flat.clone().into_data().as_bytes())
    }

    /// What another thread waits for, where it wants all that is queued by now to be done.
    fn fence(device: &Self::Device) -> Fence {
        Fence::there(Self::sync(device).map_err(|error| error.to_string()))
    }

    /// Where a flat buffer lies in the device's memory; `None` where no library but the backend's own works there.
    fn span(_flat: &Tensor<Self, 1>) -> Option<DeviceSpan> {
        None
    }

    /// Whether products of fp32 with a narrower dtype round the fp32 side first: tensor cores take both sides in one dtype.
    fn rounds_products(_device: &Self::Device) -> bool {
        false
    }

    /// Blocks that share out the tiles of a product among them, where a kernel of this device does that.
    fn sharing_blocks(_device: &Self::Device) -> Option<usize> {
        None
    }

    /// What the device's kernels leave to measurements; `products` are the inputs and outputs of the layers to ask for.
    fn tunables(_device: &Self::Device, _products: &[[usize; 2]]) -> Vec<Tunable> {
        Vec::new()
    }

    /// Sets one of them for the whole process, or leaves it to the kernels' own rule again. To be called between operations.
    ///
    /// # Errors
    /// A name or a value that `tunables` does not have.
    fn tune(_device: &Self::Device, _name: &str, _value: Option<&str>) -> Result<()> {
        Err(Error::NoChoices)
    }

    /// Whether, since the last call, a chosen kernel did not take what it was given, so that another ran in its place.
    fn refused_choice() -> bool {
        false
    }

    /// The matrix at `slot` of a flat buffer, `[rows, cols]`.
    fn matrix(flat: &Tensor<Self, 1>, slot: MatrixSlot) -> Tensor<Self, 2> {
        let MatrixSlot { offset, rows, cols } = slot;
        flat.clone().slice([offset..offset + rows * cols]).reshape([rows, cols])
    }

    /// The vector at `slot` of a flat buffer.
    fn vector(flat: &Tensor<Self, 1>, slot: VectorSlot) -> Tensor<Self, 1> {
        flat.clone().slice([slot.offset..slot.offset + slot.len])
    }

    /// Sets every element to zero.
    fn clear(flat: &mut Tensor<Self, 1>) {
        flat.inplace(|flat| flat.zeros_like());
    }

    /// Rows of `table` `[V, C]` at `tokens` `[N]`, as fp32 `[N, C]`.
    fn token_embedding(table: Tensor<Self, 2>, tokens: Tensor<Self, 1, Int>) -> Tensor<Self, 2> {
        reference::embedding(table, tokens)
    }

    /// Adds `dx` `[N, C]` fp32 to the rows of the table's gradient at `tokens`.
    fn token_embedding_backward(
        dx: Tensor<Self, 2>,
        tokens: Tensor<Self, 1, Int>,
        grads: &mut Tensor<Self, 1>,
        table: MatrixSlot,
    ) {
        reference::embedding_backward(dx, tokens, grads, table);
    }

    /// Layer norm over the last dimension of `x` `[N, C]` fp32; `gamma` and `beta` are `[C]`.
    fn layer_norm_forward(
        x: Tensor<Self, 2>,
        gamma: Tensor<Self, 1>,
        beta: Tensor<Self, 1>,
        eps: f32,
        dtype: DType,
    ) -> Normed<Self> {
        reference::layer_norm(x, gamma, beta, eps, dtype)
    }

    /// Returns the gradient of the norm's input, fp32 `[N, C]`, given that of its output `dy` (any float dtype); plus
    /// `around` `[N, C]` fp32, the gradient that reaches the input around the norm.
    fn layer_norm_backward(
        dy: Tensor<Self, 2>,
        x: Tensor<Self, 2>,
        mean: Tensor<Self, 1>,
        rstd: Tensor<Self, 1>,
        gamma: Tensor<Self, 1>,
        grads: NormGrads<'_, Self>,
        around: Option<Tensor<Self, 2>>,
    ) -> Tensor<Self, 2> {
        reference::layer_norm_backward(dy, x, mean, rstd, gamma, grads, around)
    }

    /// `x` `[N, K]` times `weight` `[O, K]` transposed, plus `bias` `[O]`, in the compute dtype with fp32 sums.
    fn linear_forward(x: Tensor<Self, 2>, weight: Tensor<Self, 2>, bias: Tensor<Self, 1>) -> Tensor<Self, 2> {
        reference::linear(x, weight, bias)
    }

    /// Adds the gradients of weight and bias: `dy` `[N, O]` transposed times `x` `[N, K]`, and the column sums of `dy`.
    fn linear_weight_grad(dy: Tensor<Self, 2>, x: Tensor<Self, 2>, grads: WeightGrads<'_, Self>) {
        reference::linear_weight_grad(dy, x, grads);
    }

    /// The gradient of x `[N, K]`, in the compute dtype: `dy` `[N, O]` times `weight` `[O, K]`.
    fn linear_input_grad(dy: Tensor<Self, 2>, weight: Tensor<Self, 2>) -> Tensor<Self, 2> {
        reference::linear_input_grad(dy, weight)
    }

    /// Both: returns the gradient of `x`, and adds those of weight and bias.
    fn linear_backward(
        dy: Tensor<Self, 2>,
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        grads: WeightGrads<'_, Self>,
    ) -> Tensor<Self, 2> {
        Self::linear_weight_grad(dy.clone(), x, grads);
        Self::linear_input_grad(dy, weight)
    }

    /// Rotates the first `rotary_dim` dimensions of each head of q and k in `fused` `[N, W]`, pairing i with
    /// i + rotary_dim / 2 (GPT-NeoX's half-split form, as in transformers' modeling_phi.py).
    fn rotary(fused: Tensor<Self, 2>, table: &RotaryTable<Self>, dims: BlockDims, turn: Turn) -> Tensor<Self, 2> {
        reference::rotary(fused, table, dims, turn)
    }

    /// `linear_forward` to `[N, W]`, and `rotary` forward of that.
    fn linear_rotary_forward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        bias: Tensor<Self, 1>,
        table: &RotaryTable<Self>,
        dims: BlockDims,
    ) -> Tensor<Self, 2> {
        Self::rotary(Self::linear_forward(x, weight, bias), table, dims, Turn::Forward)
    }

    /// Causal softmax attention of the rotated q, k and v in `fused` `[N, W]`, with dropout on the probabilities.
    fn attention_forward(fused: Tensor<Self, 2>, dims: BlockDims, dropout: Option<Dropout>) -> Attended<Self> {
        reference::attention(fused, dims, dropout)
    }

    /// Writes the gradients of the rotated q, k and v into columns `..3C` of `into` `[N, W]`.
    fn attention_backward(
        d_o: Tensor<Self, 2>,
        fused: Tensor<Self, 2>,
        attended: Attended<Self>,
        dims: BlockDims,
        dropout: Option<Dropout>,
        into: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        reference::attention_backward(d_o, fused, attended, dims, dropout, into)
    }

    /// `attention_backward`, and `rotary` back of that. Besides, where a kernel has them on the way, rows `[S, 3C]`, any float
    /// dtype, that add up to the gradient of the bias of q, k and v, for `bias_grad`.
    fn attention_rotary_backward(
        d_o: Tensor<Self, 2>,
        fused: Tensor<Self, 2>,
        attended: Attended<Self>,
        table: &RotaryTable<Self>,
        dims: BlockDims,
        dropout: Option<Dropout>,
        into: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Option<Tensor<Self, 2>>) {
        let into = Self::attention_backward(d_o, fused, attended, dims, dropout, into);
        (Self::rotary(into, table, dims, Turn::Back), None)
    }

    /// Writes the rotated k and the v in `fused` `[N, W]` into the cache: each sequence's T tokens from its position on.
    fn store_keys_values(fused: &Tensor<Self, 2>, dims: BlockDims, places: &Places<Self>, cache: &mut KeyValues<Self>) {
        reference::store_keys_values(fused, dims, places, cache);
    }

    /// Attention of one new token a sequence: the rotated q in `fused` `[B, W]` over the positions so far, itself included,
    /// whose k and v are first written into the cache. `[B, C]` in the compute dtype; `dims.seq` is 1.
    fn attention_decode(
        fused: Tensor<Self, 2>,
        dims: BlockDims,
        places: &Places<Self>,
        cache: &mut KeyValues<Self>,
    ) -> Tensor<Self, 2> {
        reference::attention_decode(fused, dims, places, cache)
    }

    /// A whole block without dropout for one new token a sequence, and the norm behind it: what the next block is given. The new
    /// k and v are written into the cache. `table` has a row a sequence, that of its position; `dims.seq` is 1.
    fn block_decode(
        tokens: NewTokens<Self>,
        weights: BlockWeights<Self>,
        next: NormWeights<Self>,
        table: &RotaryTable<Self>,
        dims: BlockDims,
        places: &Places<Self>,
        cache: &mut KeyValues<Self>,
    ) -> NewTokens<Self> {
        decode::block(tokens, weights, next, table, dims, places, cache)
    }

    /// GELU (tanh form) of columns `3C..` of `fused` `[N, W]`: `[N, F]`.
    fn gelu_tanh(fused: Tensor<Self, 2>, dims: BlockDims) -> Tensor<Self, 2> {
        reference::gelu(fused, dims)
    }

    /// Writes the gradient of GELU's input into columns `3C..` of `into` `[N, W]`, and adds its column sums, before they are
    /// rounded: the gradient of fc1's bias.
    fn gelu_tanh_backward(
        dh: Tensor<Self, 2>,
        fused: Tensor<Self, 2>,
        dims: BlockDims,
        into: Tensor<Self, 2>,
        grad: BiasGrad<'_, Self>,
    ) -> Tensor<Self, 2> {
        reference::gelu_backward(dh, fused, dims, into, grad)
    }

    /// `x + drop(attention) + drop(mlp)`: fp32 `[N, C]` from an fp32 stream and two branches in the compute dtype.
    fn residual(
        x: Tensor<Self, 2>,
        attention: Tensor<Self, 2>,
        mlp: Tensor<Self, 2>,
        dims: BlockDims,
        dropout: Option<Dropout>,
    ) -> Tensor<Self, 2> {
        reference::residual(x, attention, mlp, dims, dropout)
    }

    /// The gradients of the two branches, in `dtype`, given that of the sum, fp32 `[N, C]`.
    fn residual_backward(
        dx: Tensor<Self, 2>,
        dims: BlockDims,
        dropout: Option<Dropout>,
        dtype: DType,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        reference::residual_backward(dx, dims, dropout, dtype)
    }

    /// `residual`, and the layer norm of its sum in the branches' dtype.
    fn residual_norm(
        x: Tensor<Self, 2>,
        attention: Tensor<Self, 2>,
        mlp: Tensor<Self, 2>,
        dims: BlockDims,
        dropout: Option<Dropout>,
        norm: NormWeights<Self>,
    ) -> (Tensor<Self, 2>, Normed<Self>) {
        let dtype = attention.dtype();
        let x = Self::residual(x, attention, mlp, dims, dropout);
        let normed = Self::layer_norm_forward(x.clone(), norm.gamma, norm.beta, norm.eps, dtype);
        (x, normed)
    }

    /// `layer_norm_backward`, whose result, fp32 `[N, C]`, is the gradient of the sum in front of the norm, and
    /// `residual_backward` of that. The branches' gradients have gamma's dtype.
    fn residual_norm_backward(
        dy: Tensor<Self, 2>,
        norm: NormInputs<Self>,
        grads: NormGrads<'_, Self>,
        around: Option<Tensor<Self, 2>>,
        dims: BlockDims,
        dropout: Option<Dropout>,
    ) -> (Tensor<Self, 2>, BranchGrads<Self>) {
        let NormInputs { x, mean, rstd, gamma } = norm;
        let dtype = gamma.dtype();
        let dx = Self::layer_norm_backward(dy, x, mean, rstd, gamma, grads, around);
        let branches = Self::residual_backward(dx.clone(), dims, dropout, dtype);
        (dx, BranchGrads::new(branches))
    }

    /// Adds the column sums of `sums` `[S, C]`, any float dtype, to a bias' gradient.
    fn bias_grad(sums: Tensor<Self, 2>, grad: BiasGrad<'_, Self>) {
        reference::bias_grad(sums, grad);
    }

    /// Dropout on the embedding's output, fp32 `[N, C]`; its own backward, since it only multiplies.
    fn embedding_dropout(x: Tensor<Self, 2>, seq: usize, dropout: Option<Dropout>) -> Tensor<Self, 2> {
        reference::embedding_dropout(x, seq, dropout)
    }

    /// Sum over tokens of the cross entropy (nats, fp32 `[1]`) of `h` `[N, C]` times `weight` `[V, C]` transposed plus
    /// `bias` `[V]` against `targets` `[N]`.
    fn linear_cross_entropy(
        h: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        bias: Tensor<Self, 1>,
        targets: Tensor<Self, 1, Int>,
    ) -> Tensor<Self, 1> {
        reference::linear_cross_entropy(h, weight, bias, targets)
    }

    /// As `linear_cross_entropy`, and besides the sum the gradient of `scale` x sum with respect to `h`, in the compute
    /// dtype; those of weight and bias are added. Logits exist for a chunk of tokens at a time only.
    fn linear_cross_entropy_backward(
        h: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        bias: Tensor<Self, 1>,
        targets: Tensor<Self, 1, Int>,
        scale: f32,
        grads: WeightGrads<'_, Self>,
    ) -> (Tensor<Self, 1>, Tensor<Self, 2>) {
        reference::linear_cross_entropy_backward(h, weight, bias, targets, scale, grads)
    }

    /// Sum of squares of a flat fp32 buffer, `[1]`; not finite where any element is not.
    fn sum_of_squares(flat: &Tensor<Self, 1>) -> Tensor<Self, 1> {
        reference::sum_of_squares(flat)
    }

    /// What accumulated gradients are multiplied with before an update, fp32 `[1]`: unscaling by `loss_scale`, and clipping
    /// to the global norm `clip` (none at 0) where `squares` `[1]` is the sum of squares of all of them, scaled. Zero where
    /// `squares` or `loss` `[1]` is not finite.
    fn grad_factor(loss: &Tensor<Self, 1>, squares: &Tensor<Self, 1>, loss_scale: f32, clip: f32) -> Tensor<Self, 1> {
        reference::grad_factor(loss, squares, loss_scale, clip)
    }

    /// One AdamW update (Loshchilov and Hutter, algorithm 2, decoupled decay scaled by lr as in PyTorch) of a parameter
    /// group; decay applies to its first `decay_len` elements.
    /// `factor` is `grad_factor`'s; where it is zero, nothing changes.
    fn adamw(
        buffers: AdamWBuffers<Self>,
        grads: &Tensor<Self, 1>,
        factor: &Tensor<Self, 1>,
        decay_len: usize,
        step: AdamWStep,
    ) -> AdamWBuffers<Self> {
        reference::adamw(buffers, grads, factor, decay_len, step)
    }
}
