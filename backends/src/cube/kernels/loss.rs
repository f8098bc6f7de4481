//! The head and its cross entropy, a chunk of tokens at a time.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use burn_tensor::{DType, Int, Tensor};
use trainer_shaders::cross_entropy::{Place, Rows, cross_entropy, total};
use trainer_shaders::device::Class;

use super::super::tuning;
use super::linear::add_gradients;
use super::matmul::{Out, Part, Side, narrows, product};
use super::tensor::{CubeTensors, binding, buffer, cube, cube_int, empty, float, modify};
use crate::ops::{LOGITS_BYTES, WeightGrads, device_loss_chunk};

/// Of logits that this device holds at a time.
fn logits_bytes<R: CubeRuntime>(like: &CubeTensor<R>) -> usize {
    // Half of what can be bound, so that adapters at their lowest limits have room.
    let most = like.client.properties().memory.max_page_size as usize / 2;
    let rule = match Class::of(&like.client) {
        Class::Narrow => 32 << 20,
        Class::Wide => LOGITS_BYTES,
    };
    tuning::logits_bytes().unwrap_or(rule).min(most)
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
    fn new<B: CubeTensors<R>>(
        h: Tensor<B, 2>,
        weight: Tensor<B, 2>,
        bias: Tensor<B, 1>,
        targets: Tensor<B, 1, Int>,
    ) -> Self {
        let tokens = h.dims()[0];
        let h = cube(h);
        let losses = empty(&h, [tokens], DType::F32);
        Self { weight: cube(weight), bias: cube(bias), targets: cube_int(targets), losses, h }
    }

    /// Calls `work` with the first token of each chunk, whose losses are already taken, and its logits; with `scale`, with the
    /// gradient of `scale` x the sum of losses in their place, in the dtype that products with the weight take.
    fn for_each_chunk(&self, scale: Option<f32>, mut work: impl FnMut(usize, &CubeTensor<R>)) {
        let (tokens, vocab) = (self.h.meta.shape()[0], self.weight.meta.shape()[0]);
        let most = device_loss_chunk(tokens, vocab, logits_bytes(&self.h));
        for first in (0..tokens).step_by(most) {
            let count = most.min(tokens - first);
            let logits = empty(&self.h, [count, vocab], DType::F32);
            let (h, weight) = (Part::rows(&self.h, first, count), Part::whole(&self.weight));
            product(h, Side::Rows, weight, Side::Rows, Some(&self.bias), Out::new(&logits));
            let place = match scale {
                None => Place::Nowhere,
                Some(_) if narrows(&self.h.client, self.weight.dtype) => Place::Apart,
                Some(_) => Place::Logits,
            };
            let apart = match place {
                Place::Apart => empty(&self.h, [count, vocab], self.weight.dtype),
                _ => empty(&self.h, [4], DType::F32),
            };
            let [x, targets, losses] = [&logits, &self.targets, &self.losses].map(binding);
            let rows = Rows { first, count, vocab };
            let scale = scale.unwrap_or(0.0);
            cross_entropy(&self.h.client, rows, x, targets, losses, buffer(&apart), place, scale);
            work(first, if place == Place::Apart { &apart } else { &logits });
        }
    }

    /// The sum of the losses, `[1]`.
    fn total(&self) -> CubeTensor<R> {
        let sum = empty(&self.h, [1], DType::F32);
        total(&self.h.client, self.losses.meta.shape()[0], binding(&self.losses), binding(&sum));
        sum
    }
}

pub fn forward<R: CubeRuntime, B: CubeTensors<R>>(
    h: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    targets: Tensor<B, 1, Int>,
) -> Tensor<B, 1> {
    let head = Head::new(h, weight, bias, targets);
    head.for_each_chunk(None, |_, _| ());
    float(head.total())
}

pub fn backward<R: CubeRuntime, B: CubeTensors<R>>(
    h: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    targets: Tensor<B, 1, Int>,
    scale: f32,
    grads: WeightGrads<'_, B>,
) -> (Tensor<B, 1>, Tensor<B, 2>) {
    let sizes = h.dims();
    let head = Head::new(h, weight, bias, targets);
    let dh = empty(&head.h, sizes, head.h.dtype);
    modify(grads.flat, |flat| {
        head.for_each_chunk(Some(scale), |first, dlogits| {
            let count = dlogits.meta.shape()[0];
            add_gradients(flat, dlogits, Part::rows(&head.h, first, count), grads.weight, grads.bias);
            let (out, weight) = (Out::rows(&dh, first, count), Part::whole(&head.weight));
            product(Part::whole(dlogits), Side::Rows, weight, Side::Columns, None, out);
        });
    });
    (float(head.total()), float(dh))
}
