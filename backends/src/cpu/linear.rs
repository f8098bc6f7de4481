use burn_flex::Flex;
use burn_tensor::Tensor;
use rayon::prelude::*;

use super::few_rows::{FEW_ROWS, few_rows};
use super::matmul::{Operand, matmul};
use super::simd::vectorized;
use super::slices::{modify, tensor, wide, zeros};
use crate::ops::{BiasGrad, VectorSlot, WeightGrads};

/// Rows whose column sums one task adds up: fixed, so that the order of the sum is too.
const SUM_ROWS: usize = 128;

/// y = x W^T + b.
pub fn linear(x: Tensor<Flex, 2>, weight: Tensor<Flex, 2>, bias: Tensor<Flex, 1>) -> Tensor<Flex, 2> {
    let dtype = x.dtype();
    let ([n, k], o) = (x.dims(), weight.dims()[0]);
    let (x, weight, bias) = (wide(x), wide(weight), wide(bias));
    if n <= FEW_ROWS {
        return tensor(few_rows(&x, &weight, &bias, [n, o, k]), [n, o], dtype);
    }
    let mut y = zeros(n * o);
    y.par_chunks_mut(o).for_each(|row| row.copy_from_slice(&bias));
    matmul([n, o, k], Operand::rows(&x, k), Operand::rows(&weight, k).transposed(), &mut y, o, true);
    tensor(y, [n, o], dtype)
}

/// dW += dy^T x, db += the column sums of dy, as many as the bias' slot has.
pub fn linear_weight_grad(dy: Tensor<Flex, 2>, x: Tensor<Flex, 2>, grads: WeightGrads<'_, Flex>) {
    let ([n, o], k) = (dy.dims(), x.dims()[1]);
    let (dy, x) = (wide(dy), wide(x));
    modify(grads.flat, |flat| {
        let start = grads.weight.offset;
        weight_grad(&dy, &x, [n, o, k], &mut flat[start..start + o * k]);
        if grads.bias.len > 0 {
            add_column_sums(&dy, o, &mut flat[grads.bias.offset..grads.bias.offset + grads.bias.len]);
        }
    });
}

/// db += the column sums of `sums` `[S, C]`.
pub fn bias_grad(sums: Tensor<Flex, 2>, grad: BiasGrad<'_, Flex>) {
    let (cols, sums) = (sums.dims()[1], wide(sums));
    let VectorSlot { offset, len } = grad.bias;
    modify(grad.flat, |flat| add_column_sums(&sums, cols, &mut flat[offset..offset + len]));
}

/// dx = dy W.
pub fn linear_input_grad(dy: Tensor<Flex, 2>, weight: Tensor<Flex, 2>) -> Tensor<Flex, 2> {
    let dtype = dy.dtype();
    let ([n, o], k) = (dy.dims(), weight.dims()[1]);
    let (dy, weight) = (wide(dy), wide(weight));
    let mut dx = zeros(n * k);
    matmul([n, k, o], Operand::rows(&dy, o), Operand::rows(&weight, k), &mut dx, k, false);
    tensor(dx, [n, k], dtype)
}

/// dW `[o, k]` += dy `[n, o]` transposed x `[n, k]`.
pub fn weight_grad(dy: &[f32], x: &[f32], [n, o, k]: [usize; 3], dweight: &mut [f32]) {
    matmul([o, k, n], Operand::rows(dy, o).transposed(), Operand::rows(x, k), dweight, k, true);
}

/// Adds the sums of the first columns of `matrix` to `sums`, one each.
pub fn add_column_sums(matrix: &[f32], cols: usize, sums: &mut [f32]) {
    let partial: Vec<Vec<f32>> = matrix
        .par_chunks(SUM_ROWS * cols)
        .map(|rows| {
            let mut sums = zeros(sums.len());
            vectorized(|| {
                for row in rows.chunks_exact(cols) {
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
            });
            sums
        })
        .collect();
    for part in partial {
        sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
}
