//! GELU in its tanh form (Hendrycks and Gimpel; `gelu_new` in transformers), over columns of the fused projection.

use cubecl::prelude::*;

use crate::column_sums::{Sums, rows_of_a_unit, scratch_len};
use crate::device::Buffer;
use crate::elementwise::{spread, unit_index, width};
use crate::tuning::Choice;

/// sqrt(2 / pi).
const INNER: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

/// Where the activation's input is: columns `start..start + cols` of rows of `row` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    pub rows: usize,
    pub row: usize,
    pub start: usize,
    pub cols: usize,
}

impl Columns {
    fn width(&self) -> usize {
        width(&[self.row, self.start, self.cols])
    }
}

/// h = 0.5 u (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3))). Sizes are in vectors.
#[cube(launch_unchecked)]
fn forward_kernel<T: Float, N: Size>(
    fused: &Array<Vector<T, N>>,
    h: &mut Array<Vector<T, N>>,
    len: usize,
    row: usize,
    start: usize,
    cols: usize,
    #[define(T)] _dtype: StorageType,
) {
    let at = unit_index();
    if at < len {
        let u = Vector::<f32, N>::cast_from(fused[at / cols * row + start + at % cols]);
        let inner = (u + u * u * u * Vector::new(CUBIC)) * Vector::new(INNER);
        h[at] = Vector::cast_from(u * (inner.tanh() + Vector::new(1.0f32)) * Vector::new(0.5f32));
    }
}

/// du = dh (0.5 (1 + t) + 0.5 u (1 - t^2) sqrt(2/pi) (1 + 3 x 0.044715 u^2)), t the forward's tanh. A unit walks down
/// `chunk` rows of its columns, and so has their sums without another reading.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn backward_kernel<T: Float, N: Size>(
    dh: &Array<Vector<T, N>>,
    fused: &Array<Vector<T, N>>,
    into: &mut Array<Vector<T, N>>,
    partial: &mut Array<Vector<f32, N>>,
    rows: usize,
    row: usize,
    start: usize,
    cols: usize,
    #[comptime] chunk: usize,
    #[define(T)] _dtype: StorageType,
) {
    let at = unit_index();
    if at < cols * rows.div_ceil(chunk) {
        let one = Vector::<f32, N>::new(1.0f32);
        let half = Vector::<f32, N>::new(0.5f32);
        let column = at % cols;
        let first = at / cols * chunk;
        let end = select(first + chunk < rows, first + chunk, rows);
        let mut sum = Vector::<f32, N>::new(0.0f32);
        for own in first..end {
            let place = own * row + start + column;
            let u = Vector::<f32, N>::cast_from(fused[place]);
            let tanh = ((u + u * u * u * Vector::new(CUBIC)) * Vector::new(INNER)).tanh();
            let inner = (one + u * u * Vector::new(3.0 * CUBIC)) * Vector::new(INNER);
            let slope = (one + tanh) * half + u * (one - tanh * tanh) * inner * half;
            let du = Vector::<f32, N>::cast_from(dh[own * cols + column]) * slope;
            into[place] = Vector::cast_from(du);
            sum += du;
        }
        partial[at] = sum;
    }
}

/// Writes `h` `[N, F]`, given the contiguous `fused` of the same dtype.
pub fn forward<R: Runtime>(client: &ComputeClient<R>, columns: Columns, fused: Buffer<R>, h: Buffer<R>) {
    let Columns { rows, row, start, cols } = columns;
    let n = columns.width();
    let len = rows * cols / n;
    let (count, dim) = spread(client, len, Some(Choice::GeluUnits));
    let dtype = h.dtype;
    // SAFETY: each unit compares its index with the length; `columns` lies within `fused`.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            count,
            dim,
            n,
            fused.arg(),
            h.arg(),
            len,
            row / n,
            start / n,
            cols / n,
            dtype,
        );
    }
}

/// Writes the gradient of the activation's input into the same columns of `into`, which has `fused`'s shape and dtype, and
/// adds its column sums.
pub fn backward<R: Runtime>(
    client: &ComputeClient<R>,
    columns: Columns,
    dh: Buffer<R>,
    fused: Buffer<R>,
    into: Buffer<R>,
    sums: Sums<R>,
) {
    let Columns { rows, row, start, cols } = columns;
    if rows == 0 || cols == 0 {
        return;
    }
    let n = columns.width();
    let (count, dim) = spread(client, scratch_len([rows, cols]) / n, Some(Choice::GeluUnits));
    let dtype = into.dtype;
    let partial = sums.partial.clone().into_tensor_arg().into_array_arg();
    // SAFETY: as in `forward`; `partial` holds as many vectors as there are units at work.
    unsafe {
        backward_kernel::launch_unchecked(
            client,
            count,
            dim,
            n,
            dh.arg(),
            fused.arg(),
            into.arg(),
            partial,
            rows,
            row / n,
            start / n,
            cols / n,
            rows_of_a_unit(),
            dtype,
        );
    }
    sums.finish(client, [rows, cols]);
}
