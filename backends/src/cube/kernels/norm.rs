use burn_cubecl::CubeRuntime;
use burn_tensor::{DType, Tensor};
use trainer_shaders::norm::{self, Blueprint, Statistics};

use super::tensor::{CubeTensors, binding, buffer, cube, empty, float, modify, owned, slot};
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
    norm::forward(
        &x.client,
        Blueprint::of(&x.client, cols),
        [rows, cols],
        binding(&x),
        weights,
        eps,
        buffer(&y),
        statistics,
    );
    Normed { y: float(y), mean: float(mean), rstd: float(rstd) }
}

pub fn backward<R: CubeRuntime, B: CubeTensors<R>>(
    dy: Tensor<B, 2>,
    x: Tensor<B, 2>,
    mean: Tensor<B, 1>,
    rstd: Tensor<B, 1>,
    gamma: Tensor<B, 1>,
    grads: NormGrads<'_, B>,
    around: Option<Tensor<B, 2>>,
) -> Tensor<B, 2> {
    let sizes = x.dims();
    let (dy, x, mean, rstd, gamma) = (cube(dy), cube(x), cube(mean), cube(rstd), cube(gamma));
    let statistics = || Statistics { mean: binding(&mean), rstd: binding(&rstd) };
    let accumulate = around.is_some();
    let dx = around.map_or_else(|| empty(&x, sizes, DType::F32), owned);
    norm::input_gradient(
        &x.client,
        Blueprint::of(&x.client, sizes[1]),
        sizes,
        buffer(&dy),
        binding(&x),
        statistics(),
        buffer(&gamma),
        binding(&dx),
        accumulate,
    );
    let partial = empty(&x, [norm::scratch_len(sizes)], DType::F32);
    let NormGrads { flat, gamma, beta } = grads;
    modify(flat, |flat| {
        let slots = [gamma, beta].map(|at| slot(flat, at.offset, at.len));
        norm::weight_gradients(&x.client, sizes, buffer(&dy), binding(&x), statistics(), binding(&partial), slots);
    });
    float(dx)
}

/// The blueprint that a processor's adapter would not choose: a cube a row, sums through shared memory.
#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use burn_cubecl::tensor::CubeTensor;
    use burn_flex::Flex;
    use burn_tensor::{Distribution, TensorData};
    use trainer_shaders::squares;

    use super::*;
    use crate::cube::{Wgpu, wgpu_device};
    use crate::discovery::{Request, choose};
    use crate::ops::VectorSlot;
    use crate::reference;

    #[test]
    fn a_cube_a_row_gives_the_same() {
        let choice = match choose(Request::Wgpu, None) {
            Ok(choice) => choice,
            Err(error) => return eprintln!("SKIPPED: {error}"),
        };
        let device = wgpu_device(&choice.device);
        for [rows, cols, units] in [[5, 37, 32], [3, 300, 64], [3, 1000, 32], [70_000, 2, 32]] {
            let shape = [rows, cols];
            let draw = |shape: Vec<usize>| -> Vec<f32> {
                let normal = Distribution::Normal(1.0, 1.0);
                Tensor::<Flex, 1>::random([shape.iter().product::<usize>()], normal, &Default::default())
                    .into_data()
                    .into_vec()
                    .unwrap()
            };
            let host = [draw(vec![rows, cols]), draw(vec![rows, cols]), draw(vec![cols]), draw(vec![cols])];
            let on_host = |i: usize| Tensor::<Flex, 1>::from_data(TensorData::from(&host[i][..]), &Default::default());
            let on_device = |i: usize| cube(Tensor::<Wgpu, 1>::from_data(TensorData::from(&host[i][..]), &device));
            let [x, dy, gamma, beta] = [0, 1, 2, 3].map(on_device);
            let client = x.client.clone();
            let blueprint = Blueprint { units, rows: 1, plane: 0 };
            let [y, dx] = [(); 2].map(|()| empty(&x, shape, DType::F32));
            let [mean, rstd] = [(); 2].map(|()| empty(&x, [rows], DType::F32));
            let statistics = || Statistics { mean: binding(&mean), rstd: binding(&rstd) };
            let weights = [buffer(&gamma), buffer(&beta)];
            norm::forward(&client, blueprint, shape, binding(&x), weights, 1e-5, buffer(&y), statistics());
            let gamma = buffer(&gamma);
            norm::input_gradient(
                &client,
                blueprint,
                shape,
                buffer(&dy),
                binding(&x),
                statistics(),
                gamma,
                binding(&dx),
                false,
            );
            let partial = empty(&x, [1000], DType::F32);
            let total = empty(&x, [1], DType::F32);
            let two_stages = squares::Blueprint { partials: 1000, units };
            squares::sum(&client, two_stages, rows * cols, binding(&x), binding(&partial), binding(&total));

            let x = || on_host(0).reshape(shape);
            let expected = reference::layer_norm(x(), on_host(2), on_host(3), 1e-5, DType::F32);
            let (mut flat, slot) = (Tensor::zeros([cols], &Default::default()), VectorSlot { offset: 0, len: cols });
            let grads = NormGrads { flat: &mut flat, gamma: slot, beta: slot };
            let dx_expected = reference::layer_norm_backward(
                on_host(1).reshape(shape),
                x(),
                expected.mean,
                expected.rstd,
                on_host(2),
                grads,
                None,
            );
            let found = |tensor: CubeTensor<_>| float::<_, Wgpu, 2>(tensor).into_data().into_vec::<f32>().unwrap();
            close(&found(y), &expected.y.into_data().into_vec().unwrap());
            close(&found(dx), &dx_expected.into_data().into_vec().unwrap());
            let sum: f64 = host[0].iter().map(|value| f64::from(*value).powi(2)).sum();
            let total: Tensor<Wgpu, 1> = float(total);
            close(&total.into_data().into_vec().unwrap(), &[sum as f32]);
        }
    }

    #[track_caller]
    fn close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        let scale = expected.iter().fold(1.0f32, |most, value| most.max(value.abs()));
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 2e-5 * scale, "{found} is not {expected}");
        }
    }
}
