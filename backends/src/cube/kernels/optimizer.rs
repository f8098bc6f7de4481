use burn_cubecl::CubeRuntime;
use burn_tensor::{DType, Tensor};
use trainer_shaders::adamw::{self, Group, Step};
use trainer_shaders::squares::{self, Blueprint};
use trainer_shaders::{clip, elementwise};

use super::tensor::{CubeTensors, binding, buffer, cube, empty, float, modify, owned};
use crate::ops::{AdamWBuffers, AdamWStep};
use crate::reference::bias_corrections;

pub fn clear<R: CubeRuntime, B: CubeTensors<R>>(flat: &mut Tensor<B, 1>) {
    let len = flat.dims()[0];
    modify(flat, |flat| elementwise::clear(&flat.client, binding(flat), len));
}

pub fn sum_of_squares<R: CubeRuntime, B: CubeTensors<R>>(flat: &Tensor<B, 1>) -> Tensor<B, 1> {
    let len = flat.dims()[0];
    let flat = cube(flat.clone());
    let blueprint = Blueprint::of(&flat.client);
    let partial = empty(&flat, [blueprint.partials], DType::F32);
    let total = empty(&flat, [1], DType::F32);
    squares::sum(&flat.client, blueprint, len, binding(&flat), binding(&partial), binding(&total));
    float(total)
}

pub fn grad_factor<R: CubeRuntime, B: CubeTensors<R>>(
    loss: &Tensor<B, 1>,
    squares: &Tensor<B, 1>,
    loss_scale: f32,
    limit: f32,
) -> Tensor<B, 1> {
    let (loss, squares) = (cube(loss.clone()), cube(squares.clone()));
    let factor = empty(&loss, [1], DType::F32);
    clip::factor(&loss.client, [&loss, &squares, &factor].map(binding), loss_scale, limit);
    float(factor)
}

pub fn adamw<R: CubeRuntime, B: CubeTensors<R>>(
    buffers: AdamWBuffers<B>,
    grads: &Tensor<B, 1>,
    factor: &Tensor<B, 1>,
    decay_len: usize,
    step: AdamWStep,
) -> AdamWBuffers<B> {
    let AdamWBuffers { weights, master, m, v } = buffers;
    let len = weights.dims()[0];
    let (weights, master, m, v) = (owned(weights), master.map(owned), owned(m), owned(v));
    let (grads, factor) = (cube(grads.clone()), cube(factor.clone()));
    let (correction1, correction2) = bias_corrections(step);
    let scalars = Step {
        lr: step.lr,
        beta1: step.beta1,
        beta2: step.beta2,
        eps: step.eps,
        keep: 1.0 - step.lr * step.weight_decay,
        corrections: [correction1, correction2],
    };
    let group = Group {
        master: binding(master.as_ref().unwrap_or(&weights)),
        m: binding(&m),
        v: binding(&v),
        grads: binding(&grads),
        factor: binding(&factor),
    };
    let working = master.is_some().then(|| buffer(&weights));
    adamw::step(&weights.client, [len, decay_len], group, working, scalars);
    AdamWBuffers { weights: float(weights), master: master.map(float), m: float(m), v: float(v) }
}
