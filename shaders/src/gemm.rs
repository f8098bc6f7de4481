//! Matrix product for devices without planes or tensor cores: register tiles straight from global memory.
//!
//! out[m, n] (+)= sum over k of a[m, k] b[n, k] (+ bias[n]), with f32 sums. Operands are strided, which makes the three
//! products of a linear layer one kernel without copies: x W^T, dy W and dy^T x. Neither shared memory nor barriers nor
//! bounds checks in the inner loop: tiles past an edge read the last row again and do not store (on llvmpipe 8x4 tiles
//! with checks ran at 6.1 GFLOP/s, 16x16 without at 14.8).

use cubecl::prelude::*;

use crate::device::{Buffer, Class, NARROW_ITERATIONS, cubes};

/// Longest running sum into an fp32 destination: longer ones are sums of sums, so that rounding grows with the root of this
/// and not of k (one running sum of 300,001 terms was 2.5e-5 off).
const K_PART: usize = 16_384;

/// What is decided when the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blueprint {
    /// Rows of `out` that a unit computes.
    pub tile_m: usize,
    /// Columns that a unit computes, `units` apart: neighbouring units read and write neighbouring columns.
    pub tile_n: usize,
    pub units: usize,
    pub bias: bool,
    pub accumulate: bool,
}

impl Blueprint {
    fn new(class: Class, [m, n]: [usize; 2], bias: bool, accumulate: bool) -> Self {
        let (units, largest_m, largest_n) = match class {
            Class::Narrow => (8, 16, 16),
            Class::Wide => (64, 8, 2),
        };
        // No larger than the matrix needs, so that a narrow one is not computed several times over.
        let fitting = |extent: usize, largest: usize| extent.next_power_of_two().clamp(1, largest);
        Self { tile_m: fitting(m, largest_m), tile_n: fitting(n.div_ceil(units), largest_n), units, bias, accumulate }
    }
}

/// The first element, and the elements between neighbours along m (or n) and along k.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
struct Layout {
    start: usize,
    row: usize,
    k: usize,
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn gemm_kernel<A: Float, B: Float, V: Float, O: Float>(
    a: &Array<A>,
    b: &Array<B>,
    bias: &Array<V>,
    out: &mut Array<O>,
    m: usize,
    n: usize,
    k: usize,
    a_layout: Layout,
    b_layout: Layout,
    out_start: usize,
    out_row: usize,
    #[comptime] blueprint: Blueprint,
    #[define(A, B, V, O)] _dtypes: [StorageType; 4],
) {
    let tile_m = comptime!(blueprint.tile_m);
    let tile_n = comptime!(blueprint.tile_n);
    let units = comptime!(blueprint.units);
    let columns = n.div_ceil(tile_n * units);
    if CUBE_POS >= columns * m.div_ceil(tile_m) {
        terminate!();
    }
    let first_m = CUBE_POS / columns * tile_m;
    let first_n = CUBE_POS % columns * (tile_n * units) + UNIT_POS as usize;

    let mut a_at = Array::<usize>::new(tile_m);
    let mut b_at = Array::<usize>::new(tile_n);
    let mut sums = Array::<f32>::new(tile_m * tile_n);
    #[unroll]
    for i in 0..tile_m {
        let row = first_m + i;
        a_at[i] = a_layout.start + select(row < m, row, m - 1) * a_layout.row;
    }
    #[unroll]
    for j in 0..tile_n {
        let column = first_n + j * units;
        b_at[j] = b_layout.start + select(column < n, column, n - 1) * b_layout.row;
    }
    #[unroll]
    for i in 0..tile_m * tile_n {
        sums[i] = 0.0f32;
    }

    let mut a_step = 0usize;
    let mut b_step = 0usize;
    for _ in 0..k {
        let mut a_values = Array::<f32>::new(tile_m);
        let mut b_values = Array::<f32>::new(tile_n);
        #[unroll]
        for i in 0..tile_m {
            a_values[i] = f32::cast_from(a[a_at[i] + a_step]);
        }
        #[unroll]
        for j in 0..tile_n {
            b_values[j] = f32::cast_from(b[b_at[j] + b_step]);
        }
        #[unroll]
        for i in 0..tile_m {
            #[unroll]
            for j in 0..tile_n {
                sums[i * tile_n + j] = fma(a_values[i], b_values[j], sums[i * tile_n + j]);
            }
        }
        a_step += a_layout.k;
        b_step += b_layout.k;
    }

    #[unroll]
    for j in 0..tile_n {
        let column = first_n + j * units;
        if column < n {
            let mut shift = 0.0f32;
            if comptime!(blueprint.bias) {
                shift = f32::cast_from(bias[column]);
            }
            #[unroll]
            for i in 0..tile_m {
                let row = first_m + i;
                if row < m {
                    let at = out_start + row * out_row + column;
                    let mut value = sums[i * tile_n + j] + shift;
                    if comptime!(blueprint.accumulate) {
                        value += f32::cast_from(out[at]);
                    }
                    out[at] = O::cast_from(value);
                }
            }
        }
    }
}

/// A strided matrix.
pub struct Operand<R: Runtime> {
    pub buffer: Buffer<R>,
    /// Index of the first element.
    pub start: usize,
    /// Elements between neighbours along m (or n), and along k.
    pub strides: [usize; 2],
}

/// The destination: `[m, n]`, rows `row_stride` elements apart.
pub struct Destination<R: Runtime> {
    pub buffer: Buffer<R>,
    /// Index of the first element.
    pub start: usize,
    pub row_stride: usize,
    /// Add to what is there instead of overwriting it.
    pub accumulate: bool,
}

impl<R: Runtime> Operand<R> {
    /// The same rows from column `k` of the product on.
    fn from(&self, k: usize) -> Self {
        let buffer = Buffer { binding: self.buffer.binding.clone(), dtype: self.buffer.dtype };
        Self { buffer, start: self.start + k * self.strides[1], strides: self.strides }
    }
}

/// out[m, n] (+)= sum over k of a[m, k] b[n, k] (+ bias[n]); `dims` is `[m, n, k]`.
///
/// Every operand must hold what `dims` and the strides reach: nothing is checked on the device.
pub fn gemm<R: Runtime>(
    client: &ComputeClient<R>,
    [m, n, k]: [usize; 3],
    a: Operand<R>,
    b: Operand<R>,
    bias: Option<Buffer<R>>,
    out: Destination<R>,
) {
    if m == 0 || n == 0 {
        return;
    }
    let most = match (out.buffer.dtype == f32::as_type_native_unchecked().storage_type(), Class::of(client)) {
        (true, _) => K_PART,
        (false, Class::Narrow) => NARROW_ITERATIONS,
        (false, Class::Wide) => usize::MAX,
    };
    if k <= most {
        return part(client, [m, n, k], a, b, bias, out);
    }
    // Parts of k one after the other, each added to the ones before (rounded to the destination's dtype between).
    let Destination { buffer, start, row_stride, accumulate } = out;
    let mut bias = bias;
    for first in (0..k).step_by(most) {
        let buffer = Buffer { binding: buffer.binding.clone(), dtype: buffer.dtype };
        let out = Destination { buffer, start, row_stride, accumulate: accumulate || first > 0 };
        part(client, [m, n, most.min(k - first)], a.from(first), b.from(first), bias.take(), out);
    }
}

/// `gemm` in one launch.
fn part<R: Runtime>(
    client: &ComputeClient<R>,
    [m, n, k]: [usize; 3],
    a: Operand<R>,
    b: Operand<R>,
    bias: Option<Buffer<R>>,
    out: Destination<R>,
) {
    let blueprint = Blueprint::new(Class::of(client), [m, n], bias.is_some(), out.accumulate);
    // Without a bias the binding is still declared; `a` stands in and is not read through it.
    let bias = bias.unwrap_or_else(|| Buffer { binding: a.buffer.binding.clone(), dtype: a.buffer.dtype });
    let dtypes = [a.buffer.dtype, b.buffer.dtype, bias.dtype, out.buffer.dtype];
    let count = n.div_ceil(blueprint.tile_n * blueprint.units) * m.div_ceil(blueprint.tile_m);
    // SAFETY: rows and columns are clamped to the matrix for reading and compared before writing, and the caller promises
    // that the buffers hold what the dimensions and strides reach.
    unsafe {
        gemm_kernel::launch_unchecked(
            client,
            cubes(client, count),
            CubeDim::new_1d(blueprint.units as u32),
            a.buffer.arg(),
            b.buffer.arg(),
            bias.arg(),
            out.buffer.arg(),
            m,
            n,
            k,
            LayoutLaunch::new(a.start, a.strides[0], a.strides[1]),
            LayoutLaunch::new(b.start, b.strides[0], b.strides[1]),
            out.start,
            out.row_stride,
            blueprint,
            dtypes,
        );
    }
}
