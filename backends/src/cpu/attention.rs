//! Causal attention a head at a time, a block of queries at a time: scores exist for one block only.

use burn_flex::Flex;
use burn_tensor::{DType, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

use super::matmul::{Destination, Operand, matmul_raw};
use super::simd::{dot, exp, max, sum, vectorized};
use super::slices::{modified, tensor, wide, zeros};
use crate::dropout::{Dropout, Site};
use crate::ops::{Attended, BlockDims};

/// Queries a block: 64 x T scores stay in the second-level cache for T up to 2048.
const BLOCK: usize = 64;

/// Keys and values of one head of one sequence in the fused projection.
struct Head<'a> {
    k: Operand<'a>,
    v: Operand<'a>,
}

/// The memory of one head's part of a `[N, width]` matrix: its first row starts at `column`.
fn head_rows(matrix: &[f32], width: usize, sequence: usize, seq: usize, column: usize) -> &[f32] {
    &matrix[sequence * seq * width + column..]
}

impl<'a> Head<'a> {
    fn new(fused: &'a [f32], dims: BlockDims, sequence: usize, head: usize) -> Self {
        let width = dims.fused();
        let [k, v] = [1, 2].map(|part| {
            let column = part * dims.hidden() + head * dims.head_dim;
            Operand::rows(head_rows(fused, width, sequence, dims.seq, column), width)
        });
        Self { k, v }
    }
}

/// `rows[start..]` of a row-major operand over `data`.
fn from_row(data: &[f32], stride: usize, start: usize) -> Operand<'_> {
    Operand::rows(&data[start * stride..], stride)
}

/// The dropout factors of row `position`, keys `0..=position`; ones without dropout.
fn row_factors(dropout: Option<Dropout>, sequence: usize, head: usize, position: usize, out: &mut [f32]) {
    if let Some(dropout) = dropout {
        dropout.fill(Site::Attention, sequence, head, position, 0, out);
    }
}

pub fn attention(fused: Tensor<Flex, 2>, dims: BlockDims, dropout: Option<Dropout>) -> Attended<Flex> {
    let dtype = fused.dtype();
    let fused = wide(fused);
    let BlockDims { batch, seq, heads, head_dim, .. } = dims;
    let (hidden, width) = (dims.hidden(), dims.fused());
    let mut o = zeros(dims.tokens() * hidden);
    let mut lse = zeros(batch * heads * seq);
    let out = Destination { data: o.as_mut_ptr(), row_stride: hidden };
    lse.par_chunks_mut(seq).enumerate().for_each(|(task, lse)| {
        let (sequence, head) = (task / heads, task % heads);
        let Head { k, v } = Head::new(&fused, dims, sequence, head);
        let queries = head_rows(&fused, width, sequence, seq, head * head_dim);
        let mut scores = zeros(BLOCK.min(seq) * seq);
        let mut factors = zeros(seq);
        for start in (0..seq).step_by(BLOCK) {
            let end = (start + BLOCK).min(seq);
            let (rows, scores) = (end - start, &mut scores[..(end - start) * end]);
            let s = Destination { data: scores.as_mut_ptr(), row_stride: end };
            let q = from_row(queries, width, start);
            // SAFETY: `scores` holds rows x end elements and is this task's own.
            unsafe { matmul_raw([rows, end, head_dim], q, k.transposed(), s, false, Parallelism::None) };
            for (i, row) in scores.chunks_exact_mut(end).enumerate() {
                let position = start + i;
                let factors = &mut factors[..position + 1];
                row_factors(dropout, sequence, head, position, factors);
                let (row, future) = row.split_at_mut(position + 1);
                lse[position] = vectorized(|| softmax(row, dims.scale()));
                if dropout.is_some() {
                    vectorized(|| row.iter_mut().zip(factors).for_each(|(p, factor)| *p *= *factor));
                }
                future.fill(0.0);
            }
            let p = Operand::rows(scores, end);
            // SAFETY: rows start..end, columns of this head: in bounds, and no other task writes them.
            unsafe {
                let out = out.at((sequence * seq + start) * hidden + head * head_dim);
                matmul_raw([rows, head_dim, end], p, v, out, false, Parallelism::None);
            }
        }
    });
    Attended { o: tensor(o, [dims.tokens(), hidden], dtype), lse: tensor(lse, [batch * heads * seq], DType::F32) }
}

/// Turns a row of unscaled scores into probabilities; returns the log-sum-exp of the scaled scores.
#[inline(always)]
fn softmax(row: &mut [f32], scale: f32) -> f32 {
    let highest = max(row) * scale;
    row.iter_mut().for_each(|s| *s = exp(*s * scale - highest));
    let total = sum(row.iter().copied());
    let inverse = 1.0 / total;
    row.iter_mut().for_each(|p| *p *= inverse);
    highest + total.ln()
}

/// FlashAttention-2's backward (Dao 2023, algorithm 2), with all keys of a query block at once.
pub fn attention_backward(
    d_o: Tensor<Flex, 2>,
    fused: Tensor<Flex, 2>,
    attended: Attended<Flex>,
    dims: BlockDims,
    dropout: Option<Dropout>,
    into: Tensor<Flex, 2>,
) -> Tensor<Flex, 2> {
    let dtype = into.dtype();
    let (d_o, fused, o, lse) = (wide(d_o), wide(fused), wide(attended.o), wide(attended.lse));
    let (hidden, width) = (dims.hidden(), dims.fused());
    let (into, ()) = modified(into.cast(DType::F32), |into| {
        for row in into.chunks_exact_mut(width) {
            row[..3 * hidden].fill(0.0);
        }
        let out = Destination { data: into.as_mut_ptr(), row_stride: width };
        let inputs = Backward { d_o: &d_o, fused: &fused, o: &o, lse: &lse, dims, dropout };
        (0..dims.batch * dims.heads).into_par_iter().for_each(|task| {
            // SAFETY: a task writes the q, k and v columns of its own head in the rows of its own sequence only, and
            // `into` is exclusively borrowed for as long as the tasks run.
            unsafe { inputs.head(task / dims.heads, task % dims.heads, out) }
        });
    });
    into.cast(dtype)
}

struct Backward<'a> {
    d_o: &'a [f32],
    fused: &'a [f32],
    o: &'a [f32],
    lse: &'a [f32],
    dims: BlockDims,
    dropout: Option<Dropout>,
}

impl Backward<'_> {
    /// # Safety
    /// Nobody else may access this head's q, k and v columns of `out` in the rows of `sequence` meanwhile.
    unsafe fn head(&self, sequence: usize, head: usize, out: Destination) {
        let BlockDims { seq, heads, head_dim, .. } = self.dims;
        let (hidden, width, scale) = (self.dims.hidden(), self.dims.fused(), self.dims.scale());
        let Head { k, v } = Head::new(self.fused, self.dims, sequence, head);
        let column = head * head_dim;
        let queries = head_rows(self.fused, width, sequence, seq, column);
        let d_o = head_rows(self.d_o, hidden, sequence, seq, column);
        let o = head_rows(self.o, hidden, sequence, seq, column);
        let lse = &self.lse[(sequence * heads + head) * seq..][..seq];
        // SAFETY: in bounds: the first row of the sequence, at this head's q, k and v columns.
        let [dq, dk, dv] = [0, 1, 2].map(|part| unsafe { out.at(sequence * seq * width + part * hidden + column) });
        let (mut p, mut dp) = (zeros(BLOCK.min(seq) * seq), zeros(BLOCK.min(seq) * seq));
        let mut factors = vec![1.0; seq];
        for start in (0..seq).step_by(BLOCK) {
            let end = (start + BLOCK).min(seq);
            let rows = end - start;
            let (p, dp) = (&mut p[..rows * end], &mut dp[..rows * end]);
            let (p_out, dp_out) = (
                Destination { data: p.as_mut_ptr(), row_stride: end },
                Destination { data: dp.as_mut_ptr(), row_stride: end },
            );
            let (q, d_o_block) = (from_row(queries, width, start), from_row(d_o, hidden, start));
            // SAFETY: both scratch blocks hold rows x end elements and are this task's own.
            unsafe {
                matmul_raw([rows, end, head_dim], q, k.transposed(), p_out, false, Parallelism::None);
                matmul_raw([rows, end, head_dim], d_o_block, v.transposed(), dp_out, false, Parallelism::None);
            }
            for (i, (p, dp)) in p.chunks_exact_mut(end).zip(dp.chunks_exact_mut(end)).enumerate() {
                let position = start + i;
                let row = position * hidden;
                let delta = dot(&d_o[row..row + head_dim], &o[row..row + head_dim]);
                let factors = &mut factors[..position + 1];
                row_factors(self.dropout, sequence, head, position, factors);
                vectorized(|| {
                    for j in 0..=position {
                        let probability = exp(p[j] * scale - lse[position]);
                        p[j] = probability * factors[j];
                        dp[j] = probability * (dp[j] * factors[j] - delta) * scale;
                    }
                });
                p[position + 1..].fill(0.0);
                dp[position + 1..].fill(0.0);
            }
            let (p, ds) = (Operand::rows(p, end), Operand::rows(dp, end));
            // SAFETY: rows of this sequence, columns of this head: promised to be this call's own.
            unsafe {
                matmul_raw([end, head_dim, rows], p.transposed(), d_o_block, dv, true, Parallelism::None);
                matmul_raw([end, head_dim, rows], ds.transposed(), q, dk, true, Parallelism::None);
                matmul_raw([rows, head_dim, end], ds, k, dq.at(start * width), false, Parallelism::None);
            }
        }
    }
}
