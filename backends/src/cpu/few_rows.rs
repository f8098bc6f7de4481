//! Products with so few rows that reading the weights is all the work: one pass over them, nothing packed or copied.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::matmul::Destination;

/// Above it `gemm`, which packs its operands, is faster.
pub const FEW_ROWS: usize = 32;
/// Weights below which waking the other threads costs more than they save.
const PARALLEL: usize = 1 << 16;
/// Outputs of a task: their results for every row stay in the first-level cache.
const BLOCK: usize = 256;
/// Rows of the weights whose sums are kept in registers at a time.
const OUTPUTS: usize = 2;
/// How far ahead of the products the weights are asked for, in rows of them: with several rows of x the processor's own
/// prefetching falls behind.
const AHEAD: usize = 64;
/// Rows of x whose sums are kept in registers at a time, where there are as many.
const ROWS: usize = 4;

/// `[n, o]`: `x` `[n, k]` times `weight` `[o, k]` transposed, plus `bias` `[o]`.
pub fn few_rows(x: &[f32], weight: &[f32], bias: &[f32], [n, o, k]: [usize; 3]) -> Vec<f32> {
    assert!(x.len() == n * k && weight.len() == o * k && bias.len() == o, "a linear layer's operands fit each other");
    if n == 0 || o == 0 {
        return Vec::new();
    }
    // A vocabulary's logits are megabytes: every task writes its columns where they stay.
    let mut y = Vec::with_capacity(n * o);
    let all = Destination { data: y.as_mut_ptr(), row_stride: o };
    let block = |first: usize| {
        let outputs = first..o.min(first + BLOCK);
        let weight = &weight[outputs.start * k..outputs.end * k];
        // SAFETY: `first` is below `o`, the length of the first of `n` rows.
        let y = unsafe { all.at(first) };
        Arch::new().dispatch(Products { x, weight, bias: &bias[outputs], n, k, y });
    };
    let starts: Vec<usize> = (0..o).step_by(BLOCK).collect();
    if o * k < PARALLEL {
        starts.into_iter().for_each(block);
    } else {
        starts.into_par_iter().for_each(block);
    }
    // SAFETY: there is room for n * o elements, and the blocks, which cover all columns, have written every one.
    unsafe { y.set_len(n * o) };
    y
}

/// Some rows of the weights times all of x. To the `n` rows of `y`, as many columns as there are rows of the weights are
/// written, by nobody else; whoever makes one sees to it that they are there.
struct Products<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    n: usize,
    k: usize,
    y: Destination,
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, weight, bias, n, k, y } = self;
        let write = |row: usize, column: usize, value: f32| {
            debug_assert!(row < n && column < bias.len());
            // SAFETY: one of the `n` rows and `bias.len()` columns that are this task's alone (see `Products`).
            unsafe { y.data.add(row * y.row_stride + column).write(value) };
        };
        let mut output = 0;
        while output < bias.len() {
            let count = OUTPUTS.min(bias.len() - output);
            // A row that is left over alone is multiplied twice.
            let rows = [output, output + count - 1];
            let weights = [&weight[rows[0] * k..][..k], &weight[rows[1] * k..][..k]];
            if n > 1 {
                prefetch(weight, (output + AHEAD) * k..(output + AHEAD + OUTPUTS) * k);
            }
            let mut row = 0;
            while row < n {
                if row + ROWS <= n {
                    let x: [&[f32]; ROWS] = std::array::from_fn(|i| &x[(row + i) * k..][..k]);
                    let sums = tile::<S, ROWS>(simd, x, weights);
                    for j in 0..count {
                        for i in 0..ROWS {
                            write(row + i, rows[j], sums[j][i] + bias[rows[j]]);
                        }
                    }
                    row += ROWS;
                } else {
                    let sums = tile::<S, 1>(simd, [&x[row * k..][..k]], weights);
                    for j in 0..count {
                        write(row, rows[j], sums[j][0] + bias[rows[j]]);
                    }
                    row += 1;
                }
            }
            output += count;
        }
    }
}

/// Asks for a range of `values`; what lies beyond their end is not harmed by that, nor read.
#[inline(always)]
fn prefetch(values: &[f32], range: Range<usize>) {
    #[cfg(target_arch = "x86_64")]
    for at in range.step_by(16) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, which only hints and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, range);
}

/// Products of `M` rows of x with two rows of the weights. Each is summed in the same order whatever M is.
#[inline(always)]
fn tile<S: Simd, const M: usize>(simd: S, x: [&[f32]; M], weights: [&[f32]; OUTPUTS]) -> [[f32; M]; OUTPUTS] {
    let mut parts = [[simd.splat_f32s(0.0); M]; OUTPUTS];
    let (first, first_tail) = S::as_simd_f32s(weights[0]);
    let (second, second_tail) = S::as_simd_f32s(weights[1]);
    let mut vectors = [first; M];
    let mut tails = [first_tail; M];
    for i in 0..M {
        (vectors[i], tails[i]) = S::as_simd_f32s(x[i]);
    }
    for at in 0..first.len() {
        for i in 0..M {
            let x = vectors[i][at];
            parts[0][i] = simd.mul_add_e_f32s(x, first[at], parts[0][i]);
            parts[1][i] = simd.mul_add_e_f32s(x, second[at], parts[1][i]);
        }
    }
    let mut sums = [[0.0; M]; OUTPUTS];
    for (j, tail) in [first_tail, second_tail].into_iter().enumerate() {
        for i in 0..M {
            sums[j][i] = simd.reduce_sum_f32s(parts[j][i]);
            for (x, weight) in tails[i].iter().zip(tail) {
                sums[j][i] += x * weight;
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dropout::mix64;

    fn random(len: usize, seed: u64) -> Vec<f32> {
        (0..len as u64).map(|i| (mix64(mix64(seed) ^ i) >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    #[test]
    fn products_of_any_sizes() {
        for (seed, [n, o, k]) in
            [[1, 1, 1], [1, 7, 5], [3, 2, 64], [4, 515, 129], [17, 33, 8], [32, 300, 301], [0, 3, 2]]
                .into_iter()
                .enumerate()
        {
            let seed = seed as u64 * 3;
            let (x, weight, bias) = (random(n * k, seed), random(o * k, seed + 1), random(o, seed + 2));
            let y = few_rows(&x, &weight, &bias, [n, o, k]);
            assert_eq!(y.len(), n * o);
            for (at, y) in y.iter().enumerate() {
                let (i, j) = (at / o, at % o);
                let products = (0..k).map(|t| f64::from(x[i * k + t]) * f64::from(weight[j * k + t]));
                let expected = products.sum::<f64>() + f64::from(bias[j]);
                // The sum's rounding, relative to the size of its terms.
                assert!((f64::from(*y) - expected).abs() < 1e-6 * (k as f64).sqrt(), "[{n}, {o}, {k}] at {at}");
            }
            // A row's bits do not depend on the rows beside it.
            for i in 0..n {
                assert_eq!(few_rows(&x[i * k..(i + 1) * k], &weight, &bias, [1, o, k]), y[i * o..(i + 1) * o]);
            }
        }
    }
}
