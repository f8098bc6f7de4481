//! Matrix product for devices without planes or tensor cores: register tiles straight from global memory.
//!
//! out[m, n] (+)= sum over k of a[m, k] b[n, k] (+ bias[n]), with f32 sums. Operands are strided, which makes the three
//! products of a linear layer one kernel without copies: x W^T, dy W and dy^T x. Neither shared memory nor barriers nor
//! bounds checks in the inner loop: tiles past an edge read the last row again and do not store. Operands are read by fours
//! along whichever side is contiguous: on llvmpipe a load is a loop over the lanes and costs tens of products.

use cubecl::prelude::*;

use crate::device::{Buffer, Class, NARROW_ITERATIONS, cubes};
use crate::packed::{Packing, unpacked};
use crate::tuning::Choice;

/// Longest running sum into an fp32 destination: longer ones are sums of sums, so that rounding grows with the root of this
/// and not of k (one running sum of 300,001 terms was 2.5e-5 off).
const K_PART: usize = 4096;

/// How a unit reads an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Load {
    /// Element by element.
    Single,
    /// Four neighbours along k at a time.
    AlongK,
    /// Four neighbouring rows at a time.
    AlongRows,
}

impl Load {
    /// Four at a time where the operand's rows (`extent` of them, or `k` columns) are contiguous and everything about them is
    /// a multiple of four.
    fn of(start: usize, [row, along_k]: [usize; 2], extent: usize, k: usize) -> Self {
        let fours = |sizes: [usize; 3]| sizes.iter().all(|size| size.is_multiple_of(4));
        if along_k == 1 && fours([start, row, k]) {
            Self::AlongK
        } else if row == 1 && fours([start, along_k, extent]) {
            Self::AlongRows
        } else {
            Self::Single
        }
    }

    fn width(self) -> usize {
        if self == Self::Single { 1 } else { 4 }
    }
}

/// What is decided when the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blueprint {
    /// Rows of `out` that a unit computes.
    pub tile_m: usize,
    /// Columns that a unit computes: groups of `group` neighbours, `units` groups apart, so that neighbouring units read
    /// and write neighbouring columns.
    pub tile_n: usize,
    pub units: usize,
    /// Values of k that a unit reads at a time.
    pub step: usize,
    pub load_a: Load,
    pub load_b: Load,
    /// How the operands are bound.
    pub packing_a: Packing,
    pub packing_b: Packing,
    /// Columns that a unit writes at a time.
    pub store: usize,
    pub bias: bool,
    pub accumulate: bool,
}

impl Blueprint {
    fn group(&self) -> usize {
        if self.tile_n.is_multiple_of(4) { 4 } else { 1 }
    }
}

/// Tiles and units for a matrix `[m, n]`: the choices that a sweep varies.
fn tile(class: Class, [m, n]: [usize; 2]) -> [usize; 3] {
    let [largest_m, largest_n, units] = Choice::Gemm.three().unwrap_or(match class {
        Class::Narrow => [16, 16, 8],
        Class::Wide => [8, 4, 64],
    });
    // No larger than the matrix needs, so that a narrow one is not computed several times over.
    let fitting = |extent: usize, largest: usize| extent.next_power_of_two().clamp(1, largest);
    [fitting(m, largest_m), fitting(n.div_ceil(units), largest_n), units]
}

/// The first element, and the elements between neighbours along m (or n) and along k; in vectors of the operand's load.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
struct Layout {
    start: usize,
    row: usize,
    k: usize,
}

/// Where in an operand each of a unit's rows begins; one a group of four where rows are read by fours. `first` and `apart`
/// place the groups of `group` neighbouring rows; rows past the last read it again.
#[cube]
fn begin(
    layout: Layout,
    first: usize,
    apart: usize,
    extent: usize,
    #[comptime] count: usize,
    #[comptime] group: usize,
    #[comptime] load: Load,
) -> Array<usize> {
    let mut at = Array::<usize>::new(count);
    #[unroll]
    for i in 0..count {
        let row = first + comptime!(i / group) * apart + comptime!(i % group);
        if comptime!(load == Load::AlongRows) {
            // Extent and row are multiples of four for the first of a group, which is the one that is read.
            at[i] = layout.start + select(row < extent, row, extent - 4) / 4;
        } else {
            at[i] = layout.start + select(row < extent, row, extent - 1) * layout.row;
        }
    }
    at
}

/// `values[i * step + s]`: row i at the s-th value of k from `offset` on, in f32.
#[cube]
#[allow(clippy::too_many_arguments)]
fn load<T: Numeric, N: Size>(
    operand: &Array<Vector<T, N>>,
    at: &Array<usize>,
    offset: usize,
    stride: usize,
    values: &mut Array<f32>,
    #[comptime] count: usize,
    #[comptime] step: usize,
    #[comptime] load: Load,
    #[comptime] packed: bool,
) {
    if comptime!(load == Load::AlongK) {
        #[unroll]
        for i in 0..count {
            #[unroll]
            for part in 0..comptime!(step / 4) {
                let vector = unpacked::<T, N, Const<4>>(operand[at[i] + offset + part], packed);
                #[unroll]
                for e in 0..4usize {
                    values[i * step + part * 4 + e] = vector[e];
                }
            }
        }
    } else if comptime!(load == Load::AlongRows) {
        #[unroll]
        for g in 0..comptime!(count / 4) {
            #[unroll]
            for s in 0..step {
                let vector = unpacked::<T, N, Const<4>>(operand[at[g * 4] + offset + s * stride], packed);
                #[unroll]
                for e in 0..4usize {
                    values[(g * 4 + e) * step + s] = vector[e];
                }
            }
        }
    } else {
        #[unroll]
        for i in 0..count {
            #[unroll]
            for s in 0..step {
                let vector = Vector::<f32, N>::cast_from(operand[at[i] + offset + s * stride]);
                values[i * step + s] = vector[0];
            }
        }
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn gemm_kernel<A: Numeric, NA: Size, B: Numeric, NB: Size, V: Float, O: Float, NO: Size>(
    a: &Array<Vector<A, NA>>,
    b: &Array<Vector<B, NB>>,
    bias: &Array<V>,
    out: &mut Array<Vector<O, NO>>,
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
    let step = comptime!(blueprint.step);
    let group = comptime!(blueprint.group());
    let store = comptime!(blueprint.store);
    let columns = n.div_ceil(tile_n * units);
    if CUBE_POS >= columns * m.div_ceil(tile_m) {
        terminate!();
    }
    let first_m = CUBE_POS / columns * tile_m;
    let first_n = CUBE_POS % columns * (tile_n * units) + UNIT_POS as usize * group;

    let a_at = begin(a_layout, first_m, 4usize, m, tile_m, 4usize, blueprint.load_a);
    let b_at = begin(b_layout, first_n, units * group, n, tile_n, group, blueprint.load_b);
    let mut sums = Array::<f32>::new(tile_m * tile_n);
    #[unroll]
    for i in 0..tile_m * tile_n {
        sums[i] = 0.0f32;
    }

    let a_stride = comptime!(if blueprint.load_a == Load::AlongK { step / 4 } else { step });
    let b_stride = comptime!(if blueprint.load_b == Load::AlongK { step / 4 } else { step });
    let mut a_offset = 0usize;
    let mut b_offset = 0usize;
    for _ in 0..k / step {
        let mut a_values = Array::<f32>::new(tile_m * step);
        let mut b_values = Array::<f32>::new(tile_n * step);
        load(a, &a_at, a_offset, a_layout.k, &mut a_values, tile_m, step, blueprint.load_a, blueprint.packing_a.packed);
        load(b, &b_at, b_offset, b_layout.k, &mut b_values, tile_n, step, blueprint.load_b, blueprint.packing_b.packed);
        #[unroll]
        for i in 0..tile_m {
            #[unroll]
            for j in 0..tile_n {
                let mut sum = sums[i * tile_n + j];
                #[unroll]
                for s in 0..step {
                    sum = fma(a_values[i * step + s], b_values[j * step + s], sum);
                }
                sums[i * tile_n + j] = sum;
            }
        }
        a_offset += a_stride * a_layout.k;
        b_offset += b_stride * b_layout.k;
    }

    #[unroll]
    for part in 0..comptime!(tile_n / store) {
        let j = comptime!(part * store);
        let column = first_n + comptime!(j / group) * (units * group) + comptime!(j % group);
        if column < n {
            let mut shift = Vector::<f32, NO>::new(0.0f32);
            if comptime!(blueprint.bias) {
                #[unroll]
                for e in 0..store {
                    shift[e] = f32::cast_from(bias[column + e]);
                }
            }
            #[unroll]
            for i in 0..tile_m {
                let row = first_m + i;
                if row < m {
                    let at = (out_start + row * out_row + column) / store;
                    let mut value = Vector::<f32, NO>::empty();
                    #[unroll]
                    for e in 0..store {
                        value[e] = sums[i * tile_n + j + e];
                    }
                    value += shift;
                    if comptime!(blueprint.accumulate) {
                        value += Vector::<f32, NO>::cast_from(out[at]);
                    }
                    out[at] = Vector::cast_from(value);
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
    let [tile_m, tile_n, units] = tile(Class::of(client), [m, n]);
    let by_fours = |load: Load, tile: usize| if load == Load::AlongRows && tile < 4 { Load::Single } else { load };
    let load_a = by_fours(Load::of(a.start, a.strides, m, k), tile_m);
    let load_b = by_fours(Load::of(b.start, b.strides, n, k), tile_n);
    let step = if k.is_multiple_of(4) { 4 } else { 1 };
    let store =
        if tile_n >= 4 && [out.start, out.row_stride, n].iter().all(|size| size.is_multiple_of(4)) { 4 } else { 1 };
    let packing = |operand: &Operand<R>, load: Load| Packing::of(client, operand.buffer.dtype, load.width());
    let (packing_a, packing_b) = (packing(&a, load_a), packing(&b, load_b));
    let blueprint = Blueprint {
        tile_m,
        tile_n,
        units,
        step,
        load_a,
        load_b,
        packing_a,
        packing_b,
        store,
        bias: bias.is_some(),
        accumulate: out.accumulate,
    };
    // Without a bias the binding is still declared; `a` stands in and is not read through it.
    let bias = bias.unwrap_or_else(|| Buffer { binding: a.buffer.binding.clone(), dtype: a.buffer.dtype });
    let dtypes = [packing_a.dtype, packing_b.dtype, bias.dtype, out.buffer.dtype];
    let count = n.div_ceil(tile_n * units) * m.div_ceil(tile_m);
    // SAFETY: rows and columns are clamped to the matrix for reading and compared before writing, and the caller promises
    // that the buffers hold what the dimensions and strides reach.
    unsafe {
        gemm_kernel::launch_unchecked(
            client,
            cubes(client, count),
            CubeDim::new_1d(units as u32),
            packing_a.components,
            packing_b.components,
            store,
            a.buffer.arg(),
            b.buffer.arg(),
            bias.arg(),
            out.buffer.arg(),
            m,
            n,
            k,
            layout(load_a, a.start, a.strides),
            layout(load_b, b.start, b.strides),
            out.start,
            out.row_stride,
            blueprint,
            dtypes,
        );
    }
}

fn layout<R: Runtime>(load: Load, start: usize, [row, k]: [usize; 2]) -> LayoutLaunch<R> {
    match load {
        Load::Single => LayoutLaunch::new(start, row, k),
        Load::AlongK => LayoutLaunch::new(start / 4, row / 4, 1),
        // The row's own offset is added by fours.
        Load::AlongRows => LayoutLaunch::new(start / 4, 1, k / 4),
    }
}
