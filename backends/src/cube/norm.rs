use burn_cubecl::CubeRuntime;
use burn_tensor::{DType, Tensor};
use trainer_shaders::norm::{self, Statistics};

use super::tensor::{CubeTensors, binding, buffer, cube, empty, float, modify, slot};
use crate::ops::{NormGrads, Normed};

pub fn forward<R: CubeRuntime, B: CubeTensors<R>>(
    x: Tensor<B, 2>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    eps: f32,
    dtype: DType,
) -> Normed<B> {
    let [rows, cols] = x.dims();
    let (x, gamma, beta) = (cube(x), cube(gamma), cube(beta));
    let y = empty(&x, [rows, cols], dtype);
    let [mean, rstd] = [(); 2].map(|()| empty(&x, [rows], DType::F32));
    let statistics = Statistics { mean: binding(&mean), rstd: binding(&rstd) };
    let weights = [buffer(&gamma), buffer(&beta)];
    norm::forward(&x.client, [rows, cols], binding(&x), weights, eps, buffer(&y), statistics);
    Normed { y: float(y), mean: float(mean), rstd: float(rstd) }
}

pub fn backward<R: CubeRuntime, B: CubeTensors<R>>(
    dy: Tensor<B, 2>,
    x: Tensor<B, 2>,
    mean: Tensor<B, 1>,
    rstd: Tensor<B, 1>,
    gamma: Tensor<B, 1>,
    grads: NormGrads<'_, B>,
) -> Tensor<B, 2> {
    let sizes = x.dims();
    let (dy, x, mean, rstd, gamma) = (cube(dy), cube(x), cube(mean), cube(rstd), cube(gamma));
    let statistics = || Statistics { mean: binding(&mean), rstd: binding(&rstd) };
    let dx = empty(&x, sizes, DType::F32);
    norm::input_gradient(&x.client, sizes, buffer(&dy), binding(&x), statistics(), buffer(&gamma), binding(&dx));
    let partial = empty(&x, [norm::scratch_len(sizes)], DType::F32);
    let NormGrads { flat, gamma, beta } = grads;
    modify(flat, |flat| {
        let slots = [gamma, beta].map(|at| slot(flat, at.offset, at.len));
        norm::weight_gradients(&x.client, sizes, buffer(&dy), binding(&x), statistics(), binding(&partial), slots);
    });
    float(dx)
}
