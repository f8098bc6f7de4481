//! The whole decoder: tokens to loss, and back to every weight's gradient. No tape: one step reads top to bottom.

use burn_tensor::{DType, Int, Tensor, TensorData};
use trainer_backends::DecoderBackend;
use trainer_backends::dropout::Dropout;
use trainer_backends::ops::{BlockDims, NormGrads, NormInputs, NormWeights, Normed, RotaryTable, WeightGrads};

use super::architecture::Architecture;
use super::block::{self, BlockContext, Branches, Saved, Upstream};
use super::table::ParameterTable;
use super::weights::Buffers;
use crate::config::Recompute;
use crate::profile::{self, ops};

/// Dropout of one micro-batch; `None` at evaluation.
#[derive(Clone, Copy, Debug, Default)]
pub struct MicroBatchDropout {
    pub embedding: Option<Dropout>,
    pub attention: Option<Dropout>,
    pub residual: Option<Dropout>,
}

/// Where the backward pass adds the weights' gradients: flat fp32 buffers, one a parameter group.
pub trait GradientSink<B: DecoderBackend> {
    /// The buffer that a group's gradients are added to.
    fn group(&mut self, index: usize) -> &mut Tensor<B, 1>;

    /// This micro-batch has added all that it adds to the group.
    fn done(&mut self, index: usize);
}

impl<B: DecoderBackend> GradientSink<B> for Buffers<B> {
    fn group(&mut self, index: usize) -> &mut Tensor<B, 1> {
        &mut self[index]
    }

    fn done(&mut self, _: usize) {}
}

/// A decoder's shape on a device. The weights are handed in, since whoever updates them must own them alone.
pub struct Decoder<B: DecoderBackend> {
    pub arch: Architecture,
    pub table: ParameterTable,
    pub device: B::Device,
    pub(super) rotary: RotaryTable<B>,
    recompute: Recompute,
}

/// The state between forward and backward.
struct Forward<B: DecoderBackend> {
    blocks: Vec<Saved<B>>,
    /// The last block's output, fp32 `[N, C]`, and its norm.
    x: Tensor<B, 2>,
    normed: Normed<B>,
}

impl<B: DecoderBackend> Decoder<B> {
    /// `seq` is the longest sequence that will be given.
    pub fn new(arch: Architecture, seq: usize, device: &B::Device, recompute: Recompute) -> Self {
        let table = ParameterTable::new(&arch);
        let rotary = rotary_table(&arch, seq, device);
        Self { arch, table, device: device.clone(), rotary, recompute }
    }

    pub(super) fn dims(&self, batch: usize, seq: usize) -> BlockDims {
        BlockDims {
            batch,
            seq,
            heads: self.arch.heads,
            head_dim: self.arch.head_dim(),
            rotary_dim: self.arch.rotary_dim,
            mlp: self.arch.mlp,
        }
    }

    pub(super) fn context(&self, dims: BlockDims, layer: usize, dropout: MicroBatchDropout) -> BlockContext<'_, B> {
        BlockContext {
            dims,
            slots: self.table.block,
            rotary: &self.rotary,
            norm_eps: self.arch.norm_eps as f32,
            attention_dropout: dropout.attention.map(|dropout| dropout.at_layer(layer)),
            residual_dropout: dropout.residual.map(|dropout| dropout.at_layer(layer)),
        }
    }

    pub(super) fn tokens(&self, ids: &[i32]) -> Tensor<B, 1, Int> {
        let _span = profile::host("upload tokens");
        Tensor::from_data(TensorData::new(ids.to_vec(), [ids.len()]), (&self.device, DType::I32))
    }

    pub(super) fn embed(
        &self,
        weights: &Buffers<B>,
        tokens: Tensor<B, 1, Int>,
        seq: usize,
        dropout: MicroBatchDropout,
    ) -> Tensor<B, 2> {
        let x = ops::token_embedding(B::matrix(&weights[0], self.table.embedding), tokens);
        ops::embedding_dropout(x, seq, dropout.embedding)
    }

    /// The weights of the norm in front of block `layer`; behind the last one that of the head.
    pub(super) fn norm_weights(&self, weights: &Buffers<B>, layer: usize) -> NormWeights<B> {
        let ParameterTable { block, head, .. } = &self.table;
        let inside = layer < self.arch.layers;
        let [gamma, beta] = if inside { [block.gamma, block.beta] } else { [head.gamma, head.beta] };
        let flat = &weights[1 + layer];
        NormWeights { gamma: B::vector(flat, gamma), beta: B::vector(flat, beta), eps: self.arch.norm_eps as f32 }
    }

    /// The norm in front of the first block.
    pub(super) fn first_norm(&self, weights: &Buffers<B>, x: Tensor<B, 2>) -> Normed<B> {
        let NormWeights { gamma, beta, eps } = self.norm_weights(weights, 0);
        ops::layer_norm_forward(x, gamma, beta, eps, weights[1].dtype())
    }

    /// The output of block `layer`, fp32 `[N, C]`, and the norm behind it, given the block's input and branches.
    pub(super) fn join(
        &self,
        weights: &Buffers<B>,
        layer: usize,
        x: Tensor<B, 2>,
        branches: Branches<B>,
        context: &BlockContext<'_, B>,
    ) -> (Tensor<B, 2>, Normed<B>) {
        let Branches { attention, mlp } = branches;
        let norm = self.norm_weights(weights, layer + 1);
        ops::residual_norm(x, attention, mlp, context.dims, context.residual_dropout, norm)
    }

    fn forward_blocks(
        &self,
        weights: &Buffers<B>,
        mut x: Tensor<B, 2>,
        dims: BlockDims,
        dropout: MicroBatchDropout,
        keep: bool,
    ) -> Forward<B> {
        let mut blocks = Vec::new();
        let mut normed = self.first_norm(weights, x.clone());
        for layer in 0..self.arch.layers {
            let _span = profile::group(|| format!("block {layer} forward"));
            let context = self.context(dims, layer, dropout);
            let (branches, activations) = block::forward(&context, &weights[1 + layer], normed);
            let saved = keep.then(|| Saved::new(x.clone(), activations, self.recompute));
            blocks.extend(saved);
            (x, normed) = self.join(weights, layer, x, branches, &context);
        }
        Forward { blocks, x, normed }
    }

    /// Loss of a micro-batch, summed over its tokens (fp32 `[1]`, nats); adds `scale` x its gradient to `grads`.
    ///
    /// `inputs` and `targets` hold `batch` sequences one after the other.
    pub fn forward_backward(
        &self,
        weights: &Buffers<B>,
        grads: &mut (impl GradientSink<B> + ?Sized),
        (inputs, targets): (&[i32], &[i32]),
        batch: usize,
        dropout: MicroBatchDropout,
        scale: f32,
    ) -> Tensor<B, 1> {
        let seq = inputs.len() / batch;
        let dims = self.dims(batch, seq);
        let layers = self.arch.layers;
        let tokens = self.tokens(inputs);

        let x = self.embed(weights, tokens.clone(), seq, dropout);
        let Forward { blocks, x, normed } = self.forward_blocks(weights, x, dims, dropout, true);

        let (head, slots) = (&weights[layers + 1], self.table.head);
        let head_grads = grads.group(layers + 1);
        let Normed { y, mean, rstd } = normed;
        let (loss, d_normed) = ops::linear_cross_entropy_backward(
            y,
            B::matrix(head, slots.weight),
            B::vector(head, slots.bias),
            self.tokens(targets),
            scale,
            WeightGrads { flat: head_grads, weight: slots.weight, bias: slots.bias },
        );
        let norm_grads = NormGrads { flat: head_grads, gamma: slots.gamma, beta: slots.beta };
        let inputs = NormInputs { x, mean, rstd, gamma: B::vector(head, slots.gamma) };
        let before = |layer: usize| layer.checked_sub(1).map(|layer| self.context(dims, layer, dropout));
        let mut upstream = block::norm_backward(before(layers).as_ref(), d_normed, inputs, norm_grads, None);
        grads.done(layers + 1);

        for (layer, saved) in blocks.into_iter().enumerate().rev() {
            let _span = profile::group(|| format!("block {layer} backward"));
            let (context, before) = (self.context(dims, layer, dropout), before(layer));
            let (weights, flat) = (&weights[1 + layer], grads.group(1 + layer));
            upstream = block::backward(&context, weights, saved, upstream, flat, before.as_ref());
            grads.done(1 + layer);
        }
        let Upstream { stream: dx, .. } = upstream;
        let dx = ops::embedding_dropout(dx, seq, dropout.embedding);
        ops::token_embedding_backward(dx, tokens, grads.group(0), self.table.embedding);
        grads.done(0);
        loss
    }

    /// Device memory that a training step's forward pass over `batch` sequences keeps for its backward pass, in bytes: what
    /// `Memory::estimate` calls activations, measured. `None` where the backend does not count.
    pub fn activation_bytes(
        &self,
        weights: &Buffers<B>,
        inputs: &[i32],
        batch: usize,
        dropout: MicroBatchDropout,
    ) -> Option<u64> {
        let seq = inputs.len() / batch;
        let tokens = self.tokens(inputs);
        let before = B::memory(&self.device)?.in_use;
        let x = self.embed(weights, tokens, seq, dropout);
        let Forward { blocks, x, normed } = self.forward_blocks(weights, x, self.dims(batch, seq), dropout, true);
        let after = B::memory(&self.device)?.in_use;
        drop((blocks, x, normed));
        Some(after.saturating_sub(before))
    }

    /// The final norm's output for `batch` sequences, `[N, C]`, without dropout.
    fn hidden(&self, weights: &Buffers<B>, inputs: &[i32], batch: usize) -> Tensor<B, 2> {
        let seq = inputs.len() / batch;
        let dropout = MicroBatchDropout::default();
        let x = self.embed(weights, self.tokens(inputs), seq, dropout);
        self.forward_blocks(weights, x, self.dims(batch, seq), dropout, false).normed.y
    }

    /// Loss summed over the tokens of `batch` sequences, fp32 `[1]`, nats, without dropout.
    pub fn loss(&self, weights: &Buffers<B>, inputs: &[i32], targets: &[i32], batch: usize) -> Tensor<B, 1> {
        let (head, slots) = (&weights[self.arch.layers + 1], self.table.head);
        let h = self.hidden(weights, inputs, batch);
        ops::linear_cross_entropy(h, B::matrix(head, slots.weight), B::vector(head, slots.bias), self.tokens(targets))
    }

    /// Logits of every position of `batch` sequences, fp32 `[N, V]`, without dropout.
    pub fn logits(&self, weights: &Buffers<B>, inputs: &[i32], batch: usize) -> Tensor<B, 2> {
        self.project(weights, self.hidden(weights, inputs, batch))
    }

    /// Logits at one position of each sequence, fp32 `[batch, V]`.
    pub fn logits_at(&self, weights: &Buffers<B>, inputs: &[i32], positions: &[usize]) -> Tensor<B, 2> {
        let seq = inputs.len() / positions.len();
        let h = self.hidden(weights, inputs, positions.len());
        self.project(weights, self.rows_at(h, seq, positions))
    }

    /// The rows of `x` `[batch * seq, C]` at one position of each sequence, `[batch, C]`.
    pub(super) fn rows_at(&self, x: Tensor<B, 2>, seq: usize, positions: &[usize]) -> Tensor<B, 2> {
        let rows: Vec<i32> = positions.iter().enumerate().map(|(i, position)| (i * seq + position) as i32).collect();
        x.select(0, self.tokens(&rows))
    }

    pub(super) fn project(&self, weights: &Buffers<B>, h: Tensor<B, 2>) -> Tensor<B, 2> {
        let (head, slots) = (&weights[self.arch.layers + 1], self.table.head);
        ops::linear_forward(h, B::matrix(head, slots.weight), B::vector(head, slots.bias)).cast(DType::F32)
    }
}

/// cos and sin of position x theta^(-2i/R), with the roundings of transformers' modeling_phi.py: the inverse frequency
/// and the angle are rounded to fp32 before the cosine is taken.
fn rotary_table<B: DecoderBackend>(arch: &Architecture, seq: usize, device: &B::Device) -> RotaryTable<B> {
    let half = arch.rotary_dim / 2;
    let angle = |position: usize, i: usize| {
        let exponent = (2 * i) as f32 / arch.rotary_dim as f32;
        let inverse_frequency = 1.0 / (arch.rope_theta.powf(f64::from(exponent)) as f32);
        f64::from(position as f32 * inverse_frequency)
    };
    let table = |f: fn(f64) -> f64| {
        let values: Vec<f32> =
            (0..seq).flat_map(|position| (0..half).map(move |i| f(angle(position, i)) as f32)).collect();
        Tensor::from_data(TensorData::new(values, [seq, half]), (device, DType::F32))
    };
    if half == 0 {
        let empty = Tensor::zeros([1, 1], (device, DType::F32));
        return RotaryTable { cos: empty.clone(), sin: empty };
    }
    RotaryTable { cos: table(f64::cos), sin: table(f64::sin) }
}
