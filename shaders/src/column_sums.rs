//! Sums down the columns of a matrix, added to a vector: a bias' gradient. Two stages in a fixed order, no atomics.

use cubecl::prelude::*;

use crate::device::{Buffer, cubes};
use crate::tuning::Choice;

/// Rows that one unit sums in the first stage.
pub(crate) fn rows_of_a_unit() -> usize {
    Choice::SumRows.one().unwrap_or(64)
}

fn units() -> usize {
    Choice::SumUnits.one().unwrap_or(32)
}

/// partial[chunk, column] = sum of up to `chunk` rows.
#[cube(launch_unchecked)]
fn chunk_sums<T: Float>(
    x: &Array<T>,
    partial: &mut Array<f32>,
    rows: usize,
    cols: usize,
    row_len: usize,
    #[comptime] chunk: usize,
    #[define(T)] _dtype: StorageType,
) {
    let at = CUBE_POS * (CUBE_DIM as usize) + UNIT_POS as usize;
    if at >= cols * rows.div_ceil(chunk) {
        terminate!();
    }
    let first = at / cols * chunk;
    let column = at % cols;
    let end = select(first + chunk < rows, first + chunk, rows);
    let mut sum = 0.0f32;
    for row in first..end {
        sum += f32::cast_from(x[row * row_len + column]);
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

/// Elements of the scratch for the sums of a matrix.
pub fn scratch_len([rows, cols]: [usize; 2]) -> usize {
    rows.div_ceil(rows_of_a_unit()) * cols
}

/// Where column sums are made, and what they are added to.
pub struct Sums<R: Runtime> {
    /// `scratch_len` fp32 elements.
    pub partial: TensorBinding<R>,
    /// fp32, from an element on.
    pub out: (TensorBinding<R>, usize),
}

impl<R: Runtime> Sums<R> {
    /// The second stage: adds up what `scratch_len` partial sums hold.
    pub(crate) fn finish(self, client: &ComputeClient<R>, [rows, cols]: [usize; 2]) {
        let array = |binding: TensorBinding<R>| binding.into_tensor_arg().into_array_arg();
        let (out, start) = self.out;
        // SAFETY: each unit compares its index with the number of columns before it reads or writes.
        unsafe {
            add_chunks::launch_unchecked(
                client,
                cubes(client, cols.div_ceil(units())),
                CubeDim::new_1d(units() as u32),
                array(self.partial),
                array(out),
                rows.div_ceil(rows_of_a_unit()),
                cols,
                start,
            );
        }
    }
}

/// Adds the sums of the first `cols` columns of the contiguous `x`, `rows` rows of `row_len` elements.
pub fn add_column_sums<R: Runtime>(
    client: &ComputeClient<R>,
    [rows, cols]: [usize; 2],
    row_len: usize,
    x: Buffer<R>,
    sums: Sums<R>,
) {
    if rows == 0 || cols == 0 {
        return;
    }
    let (dtype, len) = (x.dtype, scratch_len([rows, cols]));
    let (count, dim) = (cubes(client, len.div_ceil(units())), CubeDim::new_1d(units() as u32));
    let chunk = rows_of_a_unit();
    let partial = sums.partial.clone().into_tensor_arg().into_array_arg();
    // SAFETY: each unit compares its index with the number of columns and chunks before it reads or writes.
    unsafe {
        chunk_sums::launch_unchecked(client, count, dim, x.arg(), partial, rows, cols, row_len, chunk, dtype);
    }
    sums.finish(client, [rows, cols]);
}
