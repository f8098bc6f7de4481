//! GELU in its tanh form (Hendrycks and Gimpel; `gelu_new` in transformers), over columns of the fused projection.

use cubecl::prelude::*;

use crate::column_sums::{Sums, rows_of_a_unit, scratch_len};
use crate::device::{Buffer, Class};
use crate::elementwise::{spread, unit_index, widest, within};
use crate::tuning::Choice;

/// sqrt(2 / pi).
const INNER: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;
/// Vectors of a unit on a GPU: what a kernel computes of places in memory is shared by their elements.
const HELD: usize = 4;

/// Where the activation's input is: columns `start..start + cols` of rows of `row` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    pub rows: usize,
    pub row: usize,
    pub start: usize,
    pub cols: usize,
}

impl Columns {
    /// Elements of a vector, and vectors of a column that a unit reads before it computes with the first.
    fn blueprint<R: Runtime>(&self, client: &ComputeClient<R>, dtype: StorageType) -> [usize; 2] {
        let held = match Class::of(client) {
            Class::Narrow => 1,
            Class::Wide => HELD,
        };
        [widest(client, dtype, &[self.row, self.start, self.cols]), held]
    }
}

/// (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3))) / 2, as 1 / (1 + exp(-2 ...)): with CUDA's `tanh`, GELU computes for longer than
/// its bytes take. A u that is no number comes through by the product with it, whatever the approximation makes of it here.
#[cube]
fn gate<N: Size>(u: Vector<f32, N>) -> Vector<f32, N> {
    let one = Vector::<f32, N>::new(1.0f32);
    let twice = u * (u * u * Vector::new(-2.0 * INNER * CUBIC) + Vector::new(-2.0 * INNER));
    // exp(80) is far from fp32's largest number.
    one / (one + min(twice, Vector::new(80.0f32)).exp())
}

/// u gate(u) of one number.
#[cube]
pub(crate) fn gelu(u: f32) -> f32 {
    let twice = u * (u * u * comptime!(-2.0 * INNER * CUBIC) + comptime!(-2.0 * INNER));
    u / (1.0f32 + f32::exp(min(twice, 80.0f32)))
}

/// h = u gate(u). Sizes are in vectors; a unit has `held` rows of a column.
#[cube(
    launch_unchecked,
    fast_math = FastMath::ReducedPrecision | FastMath::AllowReciprocal | FastMath::UnsignedZero | FastMath::NotNaN | FastMath::NotInf
)]
fn forward_kernel<T: Float, N: Size>(
    fused: &Array<Vector<T, N>>,
    h: &mut Array<Vector<T, N>>,
    rows: usize,
    row: usize,
    start: usize,
    cols: usize,
    #[comptime] held: usize,
    #[define(T)] _dtype: StorageType,
) {
    let at = unit_index();
    let first = at / cols * held;
    let column = at % cols;
    if first < rows {
        let mut fetched = Array::<Vector<T, N>>::new(held);
        #[unroll]
        for i in 0..held {
            fetched[i] = fused[within(first + i, rows) * row + start + column];
        }
        #[unroll]
        for i in 0..held {
            let u = Vector::<f32, N>::cast_from(fetched[i]);
            let value = Vector::cast_from(u * gate(u));
            if first + i < rows {
                h[(first + i) * cols + column] = value;
            }
        }
    }
}

/// du = dh (g + u g (1 - g) 2 sqrt(2/pi) (1 + 3 x 0.044715 u^2)), g the forward's gate. A unit walks down `chunk` rows of its
/// columns, `held` at a time, and so has their sums without another reading.
#[cube(
    launch_unchecked,
    fast_math = FastMath::ReducedPrecision | FastMath::AllowReciprocal | FastMath::UnsignedZero | FastMath::NotNaN | FastMath::NotInf
)]
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
    #[comptime] held: usize,
    #[define(T)] _dtype: StorageType,
) {
    let at = unit_index();
    if at < cols * rows.div_ceil(chunk) {
        let column = at % cols;
        let first = at / cols * chunk;
        let end = select(first + chunk < rows, first + chunk, rows);
        let mut sum = Vector::<f32, N>::new(0.0f32);
        let mut own = first;
        while own < end {
            let mut row_u = Array::<Vector<T, N>>::new(held);
            let mut row_dh = Array::<Vector<T, N>>::new(held);
            #[unroll]
            for i in 0..held {
                let place = within(own + i, end);
                row_u[i] = fused[place * row + start + column];
                row_dh[i] = dh[place * cols + column];
            }
            #[unroll]
            for i in 0..held {
                let u = Vector::<f32, N>::cast_from(row_u[i]);
                let gate = gate(u);
                let inner = u * u * Vector::new(6.0 * INNER * CUBIC) + Vector::new(2.0 * INNER);
                let gated = u * gate;
                let slope = (gated - gated * gate) * inner + gate;
                let du = Vector::<f32, N>::cast_from(row_dh[i]) * slope;
                if own + i < end {
                    into[(own + i) * row + start + column] = Vector::cast_from(du);
                    sum += du;
                }
            }
            own += held;
        }
        partial[at] = sum;
    }
}

/// Writes `h` `[N, F]`, given the contiguous `fused` of the same dtype.
pub fn forward<R: Runtime>(client: &ComputeClient<R>, columns: Columns, fused: Buffer<R>, h: Buffer<R>) {
    let Columns { rows, row, start, cols } = columns;
    let dtype = h.dtype;
    let [n, held] = columns.blueprint(client, dtype);
    let (count, dim) = spread(client, cols / n * rows.div_ceil(held), Some(Choice::GeluUnits));
    // SAFETY: each unit compares its index with the length; `columns` lies within `fused`.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            count,
            dim,
            n,
            fused.arg(),
            h.arg(),
            rows,
            row / n,
            start / n,
            cols / n,
            held,
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
    let dtype = into.dtype;
    let [n, held] = columns.blueprint(client, dtype);
    let (count, dim) = spread(client, scratch_len([rows, cols]) / n, Some(Choice::GeluUnits));
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
            held,
            dtype,
        );
    }
    sums.finish(client, [rows, cols]);
}
