//! The operations that only move and scale: embedding, rotary embedding, GELU, residual and dropout.

use burn_flex::Flex;
use burn_tensor::{DType, Int, Tensor};
use rayon::prelude::*;

use super::simd::{tanh, vectorized};
use super::slices::{ids, modified, modify, tensor, wide, zeros};
use crate::dropout::{Dropout, Site};
use crate::ops::{BiasGrad, BlockDims, MatrixSlot, RotaryTable, Turn, VectorSlot};

/// Rows a task.
const ROWS: usize = 32;

pub fn embedding(table: Tensor<Flex, 2>, tokens: Tensor<Flex, 1, Int>) -> Tensor<Flex, 2> {
    // Rows are picked before they are widened: the table may be large and in fp16.
    let c = table.dims()[1];
    let n = tokens.dims()[0];
    if table.dtype() != DType::F32 {
        return table.select(0, tokens).cast(DType::F32);
    }
    let (table, tokens) = (wide(table), ids(tokens));
    let mut x = zeros(n * c);
    for (row, &token) in x.chunks_exact_mut(c).zip(&tokens) {
        row.copy_from_slice(&table[token as usize * c..][..c]);
    }
    tensor(x, [n, c], DType::F32)
}

pub fn embedding_backward(
    dx: Tensor<Flex, 2>,
    tokens: Tensor<Flex, 1, Int>,
    grads: &mut Tensor<Flex, 1>,
    table: MatrixSlot,
) {
    let (dx, tokens) = (wide(dx), ids(tokens));
    modify(grads, |flat| {
        for (row, &token) in dx.chunks_exact(table.cols).zip(&tokens) {
            let start = table.offset + token as usize * table.cols;
            flat[start..start + table.cols].iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
    });
}

pub fn rotary(fused: Tensor<Flex, 2>, table: &RotaryTable<Flex>, dims: BlockDims, turn: Turn) -> Tensor<Flex, 2> {
    let half = dims.rotary_dim / 2;
    if half == 0 {
        return fused;
    }
    let dtype = fused.dtype();
    let (cos, sin) = (wide(table.cos.clone()), wide(table.sin.clone()));
    let sign = if turn == Turn::Forward { 1.0 } else { -1.0 };
    let width = dims.fused();
    let (fused, ()) = modified(fused.cast(DType::F32), |fused| {
        fused.par_chunks_mut(width * ROWS).enumerate().for_each(|(chunk, rows)| {
            vectorized(|| {
                for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                    let position = (chunk * ROWS + i) % dims.seq;
                    let (cos, sin) = (&cos[position * half..][..half], &sin[position * half..][..half]);
                    for head in row[..2 * dims.hidden()].chunks_exact_mut(dims.head_dim) {
                        let (first, second) = head.split_at_mut(half);
                        for j in 0..half {
                            let (a, b) = (first[j], second[j]);
                            first[j] = a * cos[j] - b * sin[j] * sign;
                            second[j] = b * cos[j] + a * sin[j] * sign;
                        }
                    }
                }
            });
        });
    });
    fused.cast(dtype)
}

/// sqrt(2 / pi) and the cubic coefficient of GELU's tanh form.
const GELU: (f32, f32) = (0.797_884_6, 0.044_715);

pub fn gelu(fused: Tensor<Flex, 2>, dims: BlockDims) -> Tensor<Flex, 2> {
    let dtype = fused.dtype();
    let fused = wide(fused);
    let (width, f, start) = (dims.fused(), dims.mlp, 3 * dims.hidden());
    let mut h = zeros(dims.tokens() * f);
    h.par_chunks_mut(f * ROWS).zip(fused.par_chunks(width * ROWS)).for_each(|(h, fused)| {
        vectorized(|| {
            for (h, row) in h.chunks_exact_mut(f).zip(fused.chunks_exact(width)) {
                for (h, &u) in h.iter_mut().zip(&row[start..]) {
                    *h = 0.5 * u * (1.0 + tanh(GELU.0 * (u + GELU.1 * u * u * u)));
                }
            }
        });
    });
    tensor(h, [dims.tokens(), f], dtype)
}

pub fn gelu_backward(
    dh: Tensor<Flex, 2>,
    fused: Tensor<Flex, 2>,
    dims: BlockDims,
    into: Tensor<Flex, 2>,
    grad: BiasGrad<'_, Flex>,
) -> Tensor<Flex, 2> {
    let dtype = into.dtype();
    let (dh, fused) = (wide(dh), wide(fused));
    let (width, f, start) = (dims.fused(), dims.mlp, 3 * dims.hidden());
    let (into, sums) = modified(into.cast(DType::F32), |into| {
        let chunks = into.par_chunks_mut(width * ROWS).zip(fused.par_chunks(width * ROWS)).zip(dh.par_chunks(f * ROWS));
        let sums: Vec<Vec<f32>> = chunks
            .map(|((into, fused), dh)| {
                let mut sums = zeros(f);
                vectorized(|| {
                    for ((out, row), dh) in
                        into.chunks_exact_mut(width).zip(fused.chunks_exact(width)).zip(dh.chunks_exact(f))
                    {
                        for (((out, &u), &dh), sum) in out[start..].iter_mut().zip(&row[start..]).zip(dh).zip(&mut sums)
                        {
                            let tanh = tanh(GELU.0 * (u + GELU.1 * u * u * u));
                            let inner = GELU.0 * (1.0 + 3.0 * GELU.1 * u * u);
                            *out = dh * (0.5 * (1.0 + tanh) + 0.5 * u * (1.0 - tanh * tanh) * inner);
                            *sum += *out;
                        }
                    }
                });
                sums
            })
            .collect();
        sums
    });
    let VectorSlot { offset, len } = grad.bias;
    modify(grad.flat, |flat| sums.iter().for_each(|part| add(&mut flat[offset..offset + len], part)));
    into.cast(dtype)
}

fn add(to: &mut [f32], values: &[f32]) {
    to.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

/// Multiplies each row with its dropout factors, or hands them to `combine`.
fn with_factors(
    dropout: Dropout,
    site: Site,
    seq: usize,
    cols: usize,
    out: &mut [f32],
    combine: impl Fn(&mut [f32], &[f32], usize) + Sync,
) {
    out.par_chunks_mut(cols * ROWS).enumerate().for_each(|(chunk, rows)| {
        let mut factors = zeros(cols);
        for (i, row) in rows.chunks_exact_mut(cols).enumerate() {
            let index = chunk * ROWS + i;
            vectorized(|| dropout.fill(site, index / seq, 0, index % seq, 0, &mut factors));
            combine(row, &factors, index);
        }
    });
}

pub fn residual(
    x: Tensor<Flex, 2>,
    attention: Tensor<Flex, 2>,
    mlp: Tensor<Flex, 2>,
    dims: BlockDims,
    dropout: Option<Dropout>,
) -> Tensor<Flex, 2> {
    let (attention, mlp) = (wide(attention), wide(mlp));
    let (c, seq) = (dims.hidden(), dims.seq);
    let (x, ()) = modified(x, |x| match dropout {
        None => x.par_chunks_mut(c * ROWS).zip(attention.par_chunks(c * ROWS).zip(mlp.par_chunks(c * ROWS))).for_each(
            |(x, (attention, mlp))| {
                vectorized(|| {
                    for i in 0..x.len() {
                        x[i] = x[i] + attention[i] + mlp[i];
                    }
                });
            },
        ),
        Some(dropout) => {
            for (site, branch) in [(Site::AttentionResidual, &attention), (Site::MlpResidual, &mlp)] {
                with_factors(dropout, site, seq, c, x, |x, factors, row| {
                    let branch = &branch[row * c..][..c];
                    vectorized(|| {
                        for i in 0..c {
                            x[i] += branch[i] * factors[i];
                        }
                    });
                });
            }
        }
    });
    x
}

fn dropped(dx: &[f32], site: Site, seq: usize, cols: usize, dropout: Dropout) -> Vec<f32> {
    let mut out = zeros(dx.len());
    with_factors(dropout, site, seq, cols, &mut out, |out, factors, row| {
        let dx = &dx[row * cols..][..cols];
        for i in 0..cols {
            out[i] = dx[i] * factors[i];
        }
    });
    out
}

pub fn residual_backward(
    dx: Tensor<Flex, 2>,
    dims: BlockDims,
    dropout: Option<Dropout>,
    dtype: DType,
) -> (Tensor<Flex, 2>, Tensor<Flex, 2>) {
    let Some(dropout) = dropout else {
        let branch = dx.cast(dtype);
        return (branch.clone(), branch);
    };
    let shape = dx.dims();
    let dx = wide(dx);
    let branch = |site| tensor(dropped(&dx, site, dims.seq, dims.hidden(), dropout), shape, dtype);
    (branch(Site::AttentionResidual), branch(Site::MlpResidual))
}
