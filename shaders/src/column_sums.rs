//! Sums down the columns of a matrix, added to a vector: a bias' gradient. Two stages in a fixed order, no atomics.

use cubecl::prelude::*;

use crate::device::{Buffer, cubes};

/// Rows that one unit sums in the first stage.
pub const ROWS: usize = 64;
const UNITS: u32 = 32;

/// partial[chunk, column] = sum of up to `ROWS` rows.
#[cube(launch_unchecked)]
fn chunk_sums<T: Float>(
    x: &Array<T>,
    partial: &mut Array<f32>,
    rows: usize,
    cols: usize,
    #[define(T)] _dtype: StorageType,
) {
    let at = CUBE_POS * (CUBE_DIM as usize) + UNIT_POS as usize;
    if at >= cols * rows.div_ceil(ROWS) {
        terminate!();
    }
    let first = at / cols * ROWS;
    let column = at % cols;
    let end = select(first + ROWS < rows, first + ROWS, rows);
    let mut sum = 0.0f32;
    for row in first..end {
        sum += f32::cast_from(x[row * cols + column]);
    }
    partial[at] = sum;
}

/// out[start + column] += the sum of its partial sums.
#[cube(launch_unchecked)]
fn add_chunks(partial: &Array<f32>, out: &mut Array<f32>, chunks: usize, cols: usize, start: usize) {
    let column = CUBE_POS * (CUBE_DIM as usize) + UNIT_POS as usize;
    if column >= cols {
        terminate!();
    }
    let mut sum = 0.0f32;
    for chunk in 0..chunks {
        sum += partial[chunk * cols + column];
    }
    out[start + column] += sum;
}

/// Elements of the scratch that `add_column_sums` needs.
pub fn scratch_len([rows, cols]: [usize; 2]) -> usize {
    rows.div_ceil(ROWS) * cols
}

/// Adds the column sums of the contiguous `x` `[rows, cols]` to the fp32 elements of `out` from `start` on; `partial` is fp32 scratch of
/// `scratch_len` elements.
pub fn add_column_sums<R: Runtime>(
    client: &ComputeClient<R>,
    [rows, cols]: [usize; 2],
    x: Buffer<R>,
    partial: TensorBinding<R>,
    (out, start): (TensorBinding<R>, usize),
) {
    if rows == 0 || cols == 0 {
        return;
    }
    let dim = CubeDim::new_1d(UNITS);
    let array = |binding: TensorBinding<R>| binding.into_tensor_arg().into_array_arg();
    let dtype = x.dtype;
    let count = |len: usize| cubes(client, len.div_ceil(UNITS as usize));
    // SAFETY: each unit compares its index with the number of columns (and chunks) before it reads or writes.
    unsafe {
        let len = scratch_len([rows, cols]);
        chunk_sums::launch_unchecked(client, count(len), dim, x.arg(), array(partial.clone()), rows, cols, dtype);
        add_chunks::launch_unchecked(
            client,
            count(cols),
            dim,
            array(partial),
            array(out),
            rows.div_ceil(ROWS),
            cols,
            start,
        );
    }
}
