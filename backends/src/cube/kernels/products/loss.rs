//! The head and its cross entropy, a chunk of tokens at a time.

use burn_backend::TensorMetadata;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use burn_tensor::{DType, Int, Tensor};
use trainer_shaders::cross_entropy::{Rows, cross_entropy, total};

use super::linear::add_gradients;
use super::matmul::{Part, Side, product};
use super::tensor::{Slots, contiguous, empty, primitive, tensor, token_ids};
use crate::ops::WeightGrads;

/// The most bytes of fp32 logits that exist at a time (a single row of more is taken alone). Small beside the weights of
/// any model that needs it to be, and within what every adapter binds; at 51200 words it is 160 tokens.
pub const LOGITS_BYTES: usize = 32 << 20;

/// Tokens a chunk: a multiple of 32 where there are as many, so that tiles are full.
pub fn chunk_rows(tokens: usize, vocab: usize) -> usize {
    let most = (LOGITS_BYTES / (4 * vocab.max(1))).max(1);
    let even = if most >= 32 { most / 32 * 32 } else { most };
    even.min(tokens).max(1)
}

/// The head's inputs, and what each chunk leaves behind.
struct Head<R: CubeRuntime> {
    /// `[N, C]`.
    h: CubeTensor<R>,
    /// `[V, C]`.
    weight: CubeTensor<R>,
    /// `[V]`.
    bias: CubeTensor<R>,
    /// `[N]` i32.
    targets: CubeTensor<R>,
    /// `[N]` fp32.
    losses: CubeTensor<R>,
}

impl<R: CubeRuntime> Head<R> {
    fn new<F, I, BT>(
        h: Tensor<CubeBackend<R, F, I, BT>, 2>,
        weight: Tensor<CubeBackend<R, F, I, BT>, 2>,
        bias: Tensor<CubeBackend<R, F, I, BT>, 1>,
        targets: Tensor<CubeBackend<R, F, I, BT>, 1, Int>,
    ) -> Self
    where
        R::Server: cubecl::server::ComputeServer,
        F: FloatElement,
        I: IntElement,
        BT: BoolElement,
    {
        let (h, weight, bias) = (contiguous(h), primitive(weight), contiguous(bias));
        let losses = empty(&h, [h.shape()[0]], DType::F32);
        Self { h, weight, bias, targets: token_ids(targets), losses }
    }

    /// Rows `first..first + count` of the hidden state, in place.
    fn hidden(&self, first: usize, count: usize) -> Part<R> {
        Part { matrix: self.h.clone(), first, rows: count }
    }

    /// Calls `work` with the first token and the logits of each chunk, whose losses are already taken; with `scale`, the
    /// logits have been replaced by the gradient of `scale` x the sum of losses.
    fn for_each_chunk(&self, scale: Option<f32>, mut work: impl FnMut(usize, CubeTensor<R>)) {
        let (tokens, vocab) = (self.h.shape()[0], self.weight.shape()[0]);
        let most = chunk_rows(tokens, vocab);
        for first in (0..tokens).step_by(most) {
            let count = most.min(tokens - first);
            let logits = empty(&self.h, [count, vocab], DType::F32);
            let (h, weight) = (self.hidden(first, count), self.weight.clone());
            product((h, Side::Rows), (weight, Side::Rows), Some(self.bias.clone()), logits.clone(), false);
            let [x, targets, losses] = [&logits, &self.targets, &self.losses].map(|t| t.clone().binding());
            cross_entropy(&self.h.client, Rows { first, count, vocab }, x, targets, losses, scale);
            work(first, logits);
        }
    }

    /// The sum of the losses, `[1]`.
    fn total(&self) -> CubeTensor<R> {
        let sum = empty(&self.h, [1], DType::F32);
        let len = self.losses.shape()[0];
        total(&self.h.client, len, self.losses.clone().binding(), sum.clone().binding());
        sum
    }
}

pub fn forward<R, F, I, BT>(
    h: Tensor<CubeBackend<R, F, I, BT>, 2>,
    weight: Tensor<CubeBackend<R, F, I, BT>, 2>,
    bias: Tensor<CubeBackend<R, F, I, BT>, 1>,
    targets: Tensor<CubeBackend<R, F, I, BT>, 1, Int>,
) -> Tensor<CubeBackend<R, F, I, BT>, 1>
where
    R: CubeRuntime,
    R::Server: cubecl::server::ComputeServer,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    let head = Head::new(h, weight, bias, targets);
    head.for_each_chunk(None, |_, _| ());
    tensor(head.total())
}

pub fn backward<R, F, I, BT>(
    h: Tensor<CubeBackend<R, F, I, BT>, 2>,
    weight: Tensor<CubeBackend<R, F, I, BT>, 2>,
    bias: Tensor<CubeBackend<R, F, I, BT>, 1>,
    targets: Tensor<CubeBackend<R, F, I, BT>, 1, Int>,
    scale: f32,
    grads: WeightGrads<'_, CubeBackend<R, F, I, BT>>,
) -> (Tensor<CubeBackend<R, F, I, BT>, 1>, Tensor<CubeBackend<R, F, I, BT>, 2>)
where
    R: CubeRuntime,
    R::Server: cubecl::server::ComputeServer,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    let head = Head::new(h, weight, bias, targets);
    let dh = empty(&head.h, head.h.shape(), head.h.dtype);
    Slots::write(grads.flat, |slots| {
        head.for_each_chunk(Some(scale), |first, dlogits| {
            let count = dlogits.shape()[0];
            add_gradients(slots, dlogits.clone(), head.hidden(first, count), grads.weight, grads.bias);
            let out = Part { matrix: dh.clone(), first, rows: count };
            product((dlogits, Side::Rows), (head.weight.clone(), Side::Columns), None, out, false);
        });
    });
    (tensor(head.total()), tensor(dh))
}
