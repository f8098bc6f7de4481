//! The residual sum and the layer norm behind it: one kernel where a device gains by it, else two.

use burn_cubecl::CubeRuntime;
use burn_tensor::{DType, Tensor};
use trainer_shaders::column_sums::add_partials;
use trainer_shaders::norm::Statistics;
use trainer_shaders::residual::Sizes;
use trainer_shaders::residual_norm::{self, Blueprint, Norm, Partials, Pass, rows_of_a_cube};

use super::tensor::{CubeTensors, binding, buffer, cube, empty, float, modify, owned, slot};
use super::{norm, residual};
use crate::dropout::Dropout;
use crate::ops::{BlockDims, BranchGrads, NormGrads, NormInputs, NormWeights, Normed};

pub fn forward<R: CubeRuntime, B: CubeTensors<R>>(
    x: Tensor<B, 2>,
    [attention, mlp]: [Tensor<B, 2>; 2],
    dims: BlockDims,
    dropout: Option<Dropout>,
    weights: NormWeights<B>,
) -> (Tensor<B, 2>, Normed<B>) {
    let x = cube(x);
    match Blueprint::new(&x.client, Pass::Forward, dims.hidden()) {
        Some(blueprint) => joined(blueprint, float(x), [attention, mlp], dims, dropout, weights),
        None => {
            let (NormWeights { gamma, beta, eps }, dtype) = (weights, attention.dtype());
            let x: Tensor<B, 2> = residual::forward(float(x), attention, mlp, dims, dropout);
            (x.clone(), norm::forward(x, gamma, beta, eps, dtype))
        }
    }
}

/// As one kernel.
fn joined<R: CubeRuntime, B: CubeTensors<R>>(
    blueprint: Blueprint,
    x: Tensor<B, 2>,
    branches: [Tensor<B, 2>; 2],
    dims: BlockDims,
    dropout: Option<Dropout>,
    weights: NormWeights<B>,
) -> (Tensor<B, 2>, Normed<B>) {
    let [rows, cols] = x.dims();
    let NormWeights { gamma, beta, eps } = weights;
    let ([attention, mlp], x, gamma, beta) = (branches.map(cube), cube(x), cube(gamma), cube(beta));
    let (out, y) = (empty(&x, [rows, cols], DType::F32), empty(&x, [rows, cols], attention.dtype));
    let [mean, rstd] = [(); 2].map(|()| empty(&x, [rows], DType::F32));
    residual_norm::forward(
        &x.client,
        blueprint,
        Sizes { rows, cols, seq: dims.seq },
        binding(&x),
        [buffer(&attention), buffer(&mlp)],
        dropout.map(residual::branches),
        Norm { gamma: buffer(&gamma), beta: buffer(&beta), eps },
        binding(&out),
        buffer(&y),
        Statistics { mean: binding(&mean), rstd: binding(&rstd) },
    );
    (float(out), Normed { y: float(y), mean: float(mean), rstd: float(rstd) })
}

pub fn backward<R: CubeRuntime, B: CubeTensors<R>>(
    dy: Tensor<B, 2>,
    inputs: NormInputs<B>,
    grads: NormGrads<'_, B>,
    around: Option<Tensor<B, 2>>,
    dims: BlockDims,
    dropout: Option<Dropout>,
) -> (Tensor<B, 2>, BranchGrads<B>) {
    let dy = cube(dy);
    match Blueprint::new(&dy.client, Pass::Backward, dims.hidden()) {
        Some(blueprint) => {
            let chunk = rows_of_a_cube(&dy.client, dims.tokens());
            joined_backward((blueprint, chunk), float(dy), inputs, grads, around, dims, dropout)
        }
        None => {
            let NormInputs { x, mean, rstd, gamma } = inputs;
            let dtype = gamma.dtype();
            let dx: Tensor<B, 2> = norm::backward(float(dy), x, mean, rstd, gamma, grads, around);
            let branches = residual::backward(dx.clone(), dims, dropout, dtype);
            (dx, BranchGrads::new(branches))
        }
    }
}

/// As one kernel, `chunk` rows a cube.
fn joined_backward<R: CubeRuntime, B: CubeTensors<R>>(
    (blueprint, chunk): (Blueprint, usize),
    dy: Tensor<B, 2>,
    inputs: NormInputs<B>,
    grads: NormGrads<'_, B>,
    around: Option<Tensor<B, 2>>,
    dims: BlockDims,
    dropout: Option<Dropout>,
) -> (Tensor<B, 2>, BranchGrads<B>) {
    let ([rows, cols], dtype) = (dy.dims(), inputs.gamma.dtype());
    let NormInputs { x, mean, rstd, gamma } = inputs;
    let (dy, x, mean, rstd, gamma) = (cube(dy), cube(x), cube(mean), cube(rstd), cube(gamma));
    let accumulate = around.is_some();
    let dx = around.map_or_else(|| empty(&dy, [rows, cols], DType::F32), owned);
    let parts = rows.div_ceil(chunk);
    let norm_sums = empty(&dy, [2 * parts, cols], DType::F32);
    let branch = |rows, parts| (empty(&dy, [rows, cols], dtype), empty(&dy, [parts, cols], DType::F32));
    // Without dropout both branches have one gradient, and the kernel leaves the second's memory alone.
    let (attention, mlp) = (branch(rows, parts), if dropout.is_some() { branch(rows, parts) } else { branch(1, 1) });
    residual_norm::backward(
        &dy.client,
        blueprint,
        Sizes { rows, cols, seq: dims.seq },
        buffer(&dy),
        binding(&x),
        Statistics { mean: binding(&mean), rstd: binding(&rstd) },
        buffer(&gamma),
        binding(&dx),
        accumulate,
        [buffer(&attention.0), buffer(&mlp.0)],
        dropout.map(residual::branches),
        Partials { chunk, norm: binding(&norm_sums), branches: [binding(&attention.1), binding(&mlp.1)] },
    );
    let NormGrads { flat, gamma, beta } = grads;
    modify(flat, |flat| {
        for (first, at) in [(0, gamma), (parts, beta)] {
            add_partials(&dy.client, binding(&norm_sums), first, [parts, cols], slot(flat, at.offset, at.len));
        }
    });
    let float_both = |(gradient, sums)| (float(gradient), float(sums));
    let (attention, attention_sums): (Tensor<B, 2>, Tensor<B, 2>) = float_both(attention);
    let (mlp, mlp_sums) = if dropout.is_some() { float_both(mlp) } else { (attention.clone(), attention_sums.clone()) };
    (float(dx), BranchGrads { attention, mlp, attention_sums, mlp_sums })
}

/// One kernel, on a device whose own rule takes two.
#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use burn_flex::Flex;
    use burn_tensor::{Distribution, TensorData};

    use super::*;
    use crate::cube::{Wgpu, wgpu_device};
    use crate::discovery::{Request, choose};
    use crate::ops::VectorSlot;
    use crate::reference;

    /// A unit with several vectors of a row, with one, and with none; several rows a cube, the last of them not full.
    const CASES: [(BlockDims, usize, usize); 4] = [
        (BlockDims { batch: 2, seq: 21, heads: 3, head_dim: 44, rotary_dim: 8, mlp: 8 }, 16, 5),
        (BlockDims { batch: 1, seq: 33, heads: 1, head_dim: 64, rotary_dim: 8, mlp: 8 }, 4, 33),
        (BlockDims { batch: 3, seq: 7, heads: 4, head_dim: 32, rotary_dim: 8, mlp: 8 }, 32, 1),
        (BlockDims { batch: 3, seq: 7, heads: 1, head_dim: 20, rotary_dim: 8, mlp: 8 }, 64, 100),
    ];

    #[test]
    fn one_kernel_gives_what_two_give() {
        let choice = match choose(Request::Wgpu, None) {
            Ok(choice) => choice,
            Err(error) => return eprintln!("SKIPPED: {error}"),
        };
        let device = wgpu_device(&choice.device);
        let dropout = Dropout::new(0.3, 11, 5, 40).map(|dropout| dropout.at_layer(2));
        for (dims, units, chunk) in CASES {
            for (dropout, with_around) in [(None, true), (dropout, true), (dropout, false)] {
                let [n, c] = [dims.tokens(), dims.hidden()];
                let draw = |len: usize| -> Vec<f32> {
                    let normal = Distribution::Normal(1.0, 1.0);
                    Tensor::<Flex, 1>::random([len], normal, &Default::default()).into_data().into_vec().unwrap()
                };
                let host = [n * c, n * c, n * c, n * c, c, c, 2 * c].map(draw);
                let flat = |i: usize| Tensor::<Wgpu, 1>::from_data(TensorData::from(&host[i][..]), &device);
                let oracle =
                    |i: usize| Tensor::<Flex, 1>::from_data(TensorData::from(&host[i][..]), &Default::default());
                let (matrix, matrix_oracle) = (|i| flat(i).reshape([n, c]), |i| oracle(i).reshape([n, c]));
                let blueprint = Blueprint::of_units(&cube(flat(0)).client, c, units).unwrap();

                let weights = NormWeights { gamma: flat(4), beta: flat(5), eps: 1e-5 };
                let (sum, normed) = joined(blueprint, matrix(0), [matrix(1), matrix(2)], dims, dropout, weights);
                let expected = reference::residual(matrix_oracle(0), matrix_oracle(1), matrix_oracle(2), dims, dropout);
                close(sum, expected.clone());
                let expected = reference::layer_norm(expected, oracle(4), oracle(5), 1e-5, DType::F32);
                close(normed.y, expected.y);
                close(normed.mean, expected.mean);
                close(normed.rstd, expected.rstd);

                let expected = reference::layer_norm(matrix_oracle(0), oracle(4), oracle(5), 1e-5, DType::F32);
                let statistic = |tensor: &Tensor<Flex, 1>| Tensor::from_data(tensor.to_data(), &device);
                let (mean, rstd) = (statistic(&expected.mean), statistic(&expected.rstd));
                let (mut found, mut sums) = (flat(6), oracle(6));
                let [gamma, beta] = [0, c].map(|offset| VectorSlot { offset, len: c });
                let grads = NormGrads { flat: &mut found, gamma, beta };
                let inputs = NormInputs { x: matrix(0), mean, rstd, gamma: flat(4) };
                let around = with_around.then(|| matrix(3));
                let (dx, branches) =
                    joined_backward((blueprint, chunk), matrix(1), inputs, grads, around, dims, dropout);
                let grads = NormGrads { flat: &mut sums, gamma, beta };
                let around = with_around.then(|| matrix_oracle(3));
                let (x, mean, rstd) = (matrix_oracle(0), expected.mean, expected.rstd);
                let expected =
                    reference::layer_norm_backward(matrix_oracle(1), x, mean, rstd, oracle(4), grads, around);
                let (attention, mlp) = reference::residual_backward(expected.clone(), dims, dropout, DType::F32);
                close(dx, expected);
                close(found, sums);
                close(branches.attention_sums.sum_dim(0), attention.clone().sum_dim(0));
                close(branches.mlp_sums.sum_dim(0), mlp.clone().sum_dim(0));
                close(branches.attention, attention);
                close(branches.mlp, mlp);
            }
        }
    }

    #[track_caller]
    #[expect(clippy::unwrap_used, reason = "part of the test above")]
    fn close<const D: usize>(found: Tensor<Wgpu, D>, expected: Tensor<Flex, D>) {
        let [found, expected] = [found.into_data(), expected.into_data()].map(|data| data.into_vec::<f32>().unwrap());
        assert_eq!(found.len(), expected.len());
        let scale = expected.iter().fold(1.0f32, |most, value| most.max(value.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() <= 2e-5 * scale, "{found} is not {expected}");
        }
    }
}
