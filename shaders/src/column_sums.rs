//! Sums down the columns of a matrix, added to a vector: a bias' gradient. Two stages in a fixed order, no atomics.

use cubecl::prelude::*;

use crate::device::{Buffer, Class, cubes};
use crate::elementwise::array;
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

/// Columns of a cube of `add_partials`: a row of them is a line of memory.
const COLUMNS: usize = 32;

/// Units that share a column of `add_partials`; a power of two.
fn slices<R: Runtime>(client: &ComputeClient<R>) -> usize {
    match Class::of(client) {
        // A barrier costs more than the sum.
        Class::Narrow => 1,
        // One unit a column waits for hundreds of readings in turn.
        Class::Wide => 8,
    }
}

/// out[start + column] += the sum of its `rows` partial sums, which begin at row `first`.
#[cube(launch_unchecked)]
fn add_partials_kernel(
    partial: &Array<f32>,
    out: &mut Array<f32>,
    first: usize,
    rows: usize,
    cols: usize,
    start: usize,
    #[comptime] slices: usize,
) {
    let unit = UNIT_POS as usize;
    let column = CUBE_POS * COLUMNS + unit % COLUMNS;
    let slice = unit / COLUMNS;
    let mut sum = 0.0f32;
    if column < cols {
        let mut row = slice;
        while row < rows {
            sum += partial[(first + row) * cols + column];
            row += slices;
        }
    }
    if comptime!(slices > 1) {
        let mut shared = SharedMemory::<f32>::new(comptime!(slices * COLUMNS));
        shared[unit] = sum;
        sync_cube();
        if slice == 0 {
            #[unroll]
            for other in 1..slices {
                sum += shared[comptime!(other * COLUMNS) + unit];
            }
        }
    }
    if slice == 0 && column < cols {
        out[start + column] += sum;
    }
}

/// Adds the sums of rows `first..first + rows` of the fp32 `partial`, `cols` wide, to fp32 elements from `out.1` on: in a
/// fixed order.
pub fn add_partials<R: Runtime>(
    client: &ComputeClient<R>,
    partial: TensorBinding<R>,
    first: usize,
    [rows, cols]: [usize; 2],
    out: (TensorBinding<R>, usize),
) {
    if cols == 0 {
        return;
    }
    let slices = slices(client);
    // SAFETY: each unit compares its row and its column with their numbers before it reads or writes.
    unsafe {
        add_partials_kernel::launch_unchecked(
            client,
            cubes(client, cols.div_ceil(COLUMNS)),
            CubeDim::new_1d((slices * COLUMNS) as u32),
            array(partial),
            array(out.0),
            first,
            rows,
            cols,
            out.1,
            slices,
        );
    }
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
        add_partials(client, self.partial, 0, [rows.div_ceil(rows_of_a_unit()), cols], self.out);
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
    let partial = array(sums.partial.clone());
    // SAFETY: each unit compares its index with the number of columns and chunks before it reads or writes.
    unsafe {
        chunk_sums::launch_unchecked(client, count, dim, x.arg(), partial, rows, cols, row_len, chunk, dtype);
    }
    sums.finish(client, [rows, cols]);
}
