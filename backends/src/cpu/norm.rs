use burn_flex::Flex;
use burn_tensor::{DType, Tensor};
use rayon::prelude::*;

use super::simd::{dot, sum, vectorized};
use super::slices::{modify, tensor, wide, zeros};
use crate::ops::{NormGrads, Normed};

/// Rows whose gamma and beta gradients one task adds up: fixed, so that the order of the sum is too.
const ROWS: usize = 64;

pub fn layer_norm(
    x: Tensor<Flex, 2>,
    gamma: Tensor<Flex, 1>,
    beta: Tensor<Flex, 1>,
    eps: f32,
    dtype: DType,
) -> Normed<Flex> {
    let [n, c] = x.dims();
    let (x, gamma, beta) = (wide(x), wide(gamma), wide(beta));
    // As slices of one length, which the loops below can be vectorised over: a tensor checks itself at every look.
    let (gamma, beta) = (&gamma[..c], &beta[..c]);
    let (mut y, mut mean, mut rstd) = (zeros(n * c), zeros(n), zeros(n));
    y.par_chunks_mut(c * ROWS)
        .zip(x.par_chunks(c * ROWS))
        .zip(mean.par_chunks_mut(ROWS).zip(rstd.par_chunks_mut(ROWS)))
        .for_each(|((y, x), (mean, rstd))| {
            vectorized(|| {
                for (i, (y, x)) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)).enumerate() {
                    let (y, x) = (&mut y[..c], &x[..c]);
                    let m = sum(x.iter().copied()) / c as f32;
                    let variance = sum(x.iter().map(|x| (x - m) * (x - m))) / c as f32;
                    let r = 1.0 / (variance + eps).sqrt();
                    for j in 0..c {
                        y[j] = (x[j] - m) * r * gamma[j] + beta[j];
                    }
                    (mean[i], rstd[i]) = (m, r);
                }
            });
        });
    Normed { y: tensor(y, [n, c], dtype), mean: tensor(mean, [n], DType::F32), rstd: tensor(rstd, [n], DType::F32) }
}

/// With xhat = (x - mean) rstd and g = dy gamma: dx = rstd (g - mean(g) - xhat mean(g xhat)), plus `around`.
pub fn layer_norm_backward(
    dy: Tensor<Flex, 2>,
    x: Tensor<Flex, 2>,
    mean: Tensor<Flex, 1>,
    rstd: Tensor<Flex, 1>,
    gamma: Tensor<Flex, 1>,
    grads: NormGrads<'_, Flex>,
    around: Option<Tensor<Flex, 2>>,
) -> Tensor<Flex, 2> {
    let [n, c] = x.dims();
    let (dy, x, gamma) = (wide(dy), wide(x), wide(gamma));
    let (mean, rstd) = (wide(mean), wide(rstd));
    // As in `layer_norm`.
    let (dy, x, gamma, mean, rstd) = (&dy[..], &x[..], &gamma[..c], &mean[..], &rstd[..]);
    let mut dx = zeros(n * c);
    let partial: Vec<(Vec<f32>, Vec<f32>)> = dx
        .par_chunks_mut(c * ROWS)
        .enumerate()
        .map(|(chunk, dx)| {
            let (mut dgamma, mut dbeta) = (zeros(c), zeros(c));
            let (mut xhat, mut g) = (zeros(c), zeros(c));
            let (dgammas, dbetas) = (&mut dgamma[..c], &mut dbeta[..c]);
            let (xhat, g) = (&mut xhat[..c], &mut g[..c]);
            vectorized(|| {
                for (i, dx) in dx.chunks_exact_mut(c).enumerate() {
                    let row = chunk * ROWS + i;
                    let (dy, x, dx) = (&dy[row * c..][..c], &x[row * c..][..c], &mut dx[..c]);
                    let (m, r) = (mean[row], rstd[row]);
                    for j in 0..c {
                        xhat[j] = (x[j] - m) * r;
                        g[j] = dy[j] * gamma[j];
                        dgammas[j] += dy[j] * xhat[j];
                        dbetas[j] += dy[j];
                    }
                    let g_mean = sum(g.iter().copied()) / c as f32;
                    let along = dot(g, xhat) / c as f32;
                    for j in 0..c {
                        dx[j] = (g[j] - g_mean - xhat[j] * along) * r;
                    }
                }
            });
            (dgamma, dbeta)
        })
        .collect();
    modify(grads.flat, |flat| {
        for (dgamma, dbeta) in partial {
            for j in 0..c {
                flat[grads.gamma.offset + j] += dgamma[j];
                flat[grads.beta.offset + j] += dbeta[j];
            }
        }
    });
    let dx = tensor(dx, [n, c], DType::F32);
    match around {
        Some(around) => around + dx,
        None => dx,
    }
}
