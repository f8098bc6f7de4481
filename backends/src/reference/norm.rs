use burn_backend::Backend;
use burn_tensor::{DType, Tensor};

use super::{accumulate, wide};
use crate::ops::{NormGrads, Normed};

/// y = (x - mean) rstd gamma + beta, with the biased variance (Ba et al., "Layer normalization").
pub fn layer_norm<B: Backend>(
    x: Tensor<B, 2>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    eps: f32,
    dtype: DType,
) -> Normed<B> {
    let rows = x.dims()[0];
    let mean = x.clone().mean_dim(1);
    let centred = x - mean.clone();
    let variance = (centred.clone() * centred.clone()).mean_dim(1);
    let rstd = (variance + eps).sqrt().recip();
    let y = centred * rstd.clone() * wide(gamma).unsqueeze::<2>() + wide(beta).unsqueeze::<2>();
    Normed { y: y.cast(dtype), mean: mean.reshape([rows]), rstd: rstd.reshape([rows]) }
}

/// With xhat = (x - mean) rstd and g = dy gamma: dx = rstd (g - mean(g) - xhat mean(g xhat)), plus `around`.
pub fn layer_norm_backward<B: Backend>(
    dy: Tensor<B, 2>,
    x: Tensor<B, 2>,
    mean: Tensor<B, 1>,
    rstd: Tensor<B, 1>,
    gamma: Tensor<B, 1>,
    grads: NormGrads<'_, B>,
    around: Option<Tensor<B, 2>>,
) -> Tensor<B, 2> {
    let [rows, cols] = x.dims();
    let dy = wide(dy);
    let rstd = rstd.reshape([rows, 1]);
    let xhat = (x - mean.reshape([rows, 1])) * rstd.clone();
    accumulate(grads.flat, grads.gamma.offset, (dy.clone() * xhat.clone()).sum_dim(0).reshape([cols]));
    accumulate(grads.flat, grads.beta.offset, dy.clone().sum_dim(0).reshape([cols]));
    let g = dy * wide(gamma).unsqueeze::<2>();
    let along = (g.clone() * xhat.clone()).mean_dim(1);
    let dx = (g.clone() - g.mean_dim(1) - xhat * along) * rstd;
    match around {
        Some(around) => around + dx,
        None => dx,
    }
}
