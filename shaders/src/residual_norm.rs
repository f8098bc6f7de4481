//! The residual stream's sum and the layer norm behind it as one kernel, forward and backward: the stream is read and written
//! once where residual.rs and norm.rs one after the other do it twice, and backward the sums for gamma, beta and the
//! branches' biases need no reading of their own.
//!
//! A row belongs to a cube, whose units hold vectors of 4 of it in registers: unit u the vectors u, u + units, ...

use cubecl::prelude::*;

use crate::device::{Buffer, Class, cubes, multiplies_high, plane_lanes};
use crate::elementwise::{array, sum_pair_of_units, within};
use crate::norm::{self, HELD, Statistics, across};
use crate::philox::{Dropout, Words, word, words};
use crate::residual::{Site, Sizes, launch_site, word_factors};
use crate::tuning::Choice;

/// Elements of a vector: a word of a Philox call has a byte for each.
const WIDTH: usize = 4;
/// Vectors that one Philox call decides.
const CALL: usize = 4;
/// Buffers of the backward kernel.
const BINDINGS: u32 = 11;
/// Cubes that a multiprocessor of an NVIDIA GPU holds at a time: of 128 units with up to 168 registers.
const CUBES: u32 = 3;

/// One of the two kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Forward,
    Backward,
}

/// What is decided when the kernels are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blueprint {
    /// Units that share a row; a power of two, and no fewer than a call's vectors.
    units: usize,
    /// Vectors of a row that a unit holds.
    held: usize,
    /// Whether the device has an instruction for the upper half of a product.
    native: bool,
    /// `device::plane_lanes`.
    plane: usize,
}

impl Blueprint {
    /// For rows of `cols` elements; `None` where norm.rs and residual.rs are to do it.
    pub fn new<R: Runtime>(client: &ComputeClient<R>, pass: Pass, cols: usize) -> Option<Self> {
        let chosen = match pass {
            Pass::Forward => Choice::ResidualNormUnits.one(),
            Pass::Backward => Choice::ResidualNormBackward.one(),
        };
        let units = match (chosen, Class::of(client)) {
            (Some(units), _) => units,
            // Barriers cost a processor more than reading once more.
            (None, Class::Narrow) => return None,
            // As norm.rs has it, so that a norm that is computed again for backward is the same bits.
            (None, Class::Wide) => norm::Blueprint::of(client, cols).units,
        };
        Self::of_units(client, cols, units)
    }

    /// With so many units a row; `None` where the device or the row does not suit.
    pub fn of_units<R: Runtime>(client: &ComputeClient<R>, cols: usize, units: usize) -> Option<Self> {
        let (held, hardware) = (cols.div_ceil(WIDTH * units), &client.properties().hardware);
        let suits = cols.is_multiple_of(WIDTH)
            && units.is_power_of_two()
            && units >= CALL
            && units <= hardware.max_units_per_cube as usize
            && held <= HELD
            && hardware.max_bindings >= BINDINGS;
        suits.then(|| Self { units, held, native: multiplies_high(client), plane: plane_lanes(client) })
    }

    fn dim(self) -> CubeDim {
        CubeDim::new_1d(self.units as u32)
    }
}

/// Rows that a cube of the backward kernel takes one after the other: so many that all cubes are at work at a time.
pub fn rows_of_a_cube<R: Runtime>(client: &ComputeClient<R>, rows: usize) -> usize {
    let processors = client.properties().hardware.num_streaming_multiprocessors;
    let chosen = Choice::ResidualNormBackward.two().map(|[_, rows]| rows);
    chosen.unwrap_or(processors.map_or(64, |processors| rows.div_ceil((CUBES * processors) as usize))).max(1)
}

/// Words of the masks of a row: word i decides the unit's i-th vector. Units of one call's vectors each draw one call and
/// hand it to the others through `shared`, which has room for a call a unit and four words.
#[cube]
fn row_words(
    dropout: &Dropout,
    row: usize,
    seq: usize,
    shared: &mut SharedMemory<u32>,
    #[comptime] blueprint: Blueprint,
) -> Words {
    let (units, unit) = (comptime!(blueprint.units), UNIT_POS as usize);
    let (lane, group) = (unit % CALL, unit / CALL);
    // Lane i of a group draws the call of the group's i-th vectors; those past the row are drawn for nothing.
    let call = group + lane * comptime!(units / CALL);
    let drawn = words(dropout, (row / seq) as u32, 0u32, (row % seq) as u32, call as u32, comptime!(blueprint.native));
    // Rows of one unit more than there are, so that neighbours read from different banks.
    let apart = comptime!(units + 1);
    shared[unit] = drawn.w0;
    shared[apart + unit] = drawn.w1;
    shared[2 * apart + unit] = drawn.w2;
    shared[3 * apart + unit] = drawn.w3;
    sync_cube();
    let first = lane * apart + group * CALL;
    Words { w0: shared[first], w1: shared[first + 1], w2: shared[first + 2], w3: shared[first + 3] }
}

/// out = x + drop(a) + drop(b), and y = its layer norm. `cols` in vectors.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn forward_kernel<T: Float, W: Float, N: Size>(
    x: &Array<Vector<f32, N>>,
    a: &Array<Vector<T, N>>,
    b: &Array<Vector<T, N>>,
    gamma: &Array<Vector<W, N>>,
    beta: &Array<Vector<W, N>>,
    out: &mut Array<Vector<f32, N>>,
    y: &mut Array<Vector<T, N>>,
    mean_out: &mut Array<f32>,
    rstd_out: &mut Array<f32>,
    rows: usize,
    cols: usize,
    seq: usize,
    eps: f32,
    drop_a: &Dropout,
    drop_b: &Dropout,
    #[comptime] dropped: bool,
    #[comptime] blueprint: Blueprint,
    #[define(T, W)] _dtypes: [StorageType; 2],
) {
    let (units, held) = (comptime!(blueprint.units), comptime!(blueprint.held));
    let row = CUBE_POS;
    // The whole cube: barriers stay uniform.
    if row >= rows {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let start = row * cols;
    let zero = Vector::<f32, N>::new(0.0f32);

    // The whole row is asked for before any of it is used: one wait in place of one a vector.
    let mut stream = Array::<Vector<f32, N>>::new(held);
    let mut row_a = Array::<Vector<T, N>>::new(held);
    let mut row_b = Array::<Vector<T, N>>::new(held);
    #[unroll]
    for i in 0..held {
        let at = start + within(unit + i * units, cols);
        stream[i] = x[at];
        row_a[i] = a[at];
        row_b[i] = b[at];
    }
    if comptime!(dropped) {
        let mut shared_a = SharedMemory::<u32>::new(comptime!(CALL * (units + 1)));
        let mut shared_b = SharedMemory::<u32>::new(comptime!(CALL * (units + 1)));
        let words_a = row_words(drop_a, row, seq, &mut shared_a, blueprint);
        let words_b = row_words(drop_b, row, seq, &mut shared_b, blueprint);
        #[unroll]
        for i in 0..held {
            let factors_a = word_factors::<N>(drop_a, word(words_a, i), 0usize, WIDTH);
            let factors_b = word_factors::<N>(drop_b, word(words_b, i), 0usize, WIDTH);
            stream[i] = stream[i]
                + Vector::<f32, N>::cast_from(row_a[i]) * factors_a
                + Vector::<f32, N>::cast_from(row_b[i]) * factors_b;
        }
    } else {
        #[unroll]
        for i in 0..held {
            stream[i] = stream[i] + Vector::<f32, N>::cast_from(row_a[i]) + Vector::<f32, N>::cast_from(row_b[i]);
        }
    }
    #[unroll]
    for i in 0..held {
        let column = unit + i * units;
        if column < cols {
            out[start + column] = stream[i];
        } else {
            stream[i] = zero;
        }
    }

    norm::of_held(
        &stream,
        gamma,
        beta,
        y,
        mean_out,
        rstd_out,
        row,
        cols,
        eps,
        held,
        units,
        comptime!(blueprint.plane),
        WIDTH,
    );
}

/// The norm's input gradient dx as in norm.rs, da = drop(dx), db = drop(dx), and sums over the cube's rows: norm_sums
/// `[2, cubes, cols]` of dy xhat and of dy, a_sums and b_sums `[cubes, cols]` of da and db before they are rounded. Without
/// dropout da is both. `cols` in vectors.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn backward_kernel<T: Float, W: Float, U: Float, N: Size>(
    dy: &Array<Vector<T, N>>,
    x: &Array<Vector<f32, N>>,
    mean: &Array<f32>,
    rstd: &Array<f32>,
    gamma: &Array<Vector<W, N>>,
    dx: &mut Array<Vector<f32, N>>,
    da: &mut Array<Vector<U, N>>,
    db: &mut Array<Vector<U, N>>,
    norm_sums: &mut Array<Vector<f32, N>>,
    a_sums: &mut Array<Vector<f32, N>>,
    b_sums: &mut Array<Vector<f32, N>>,
    rows: usize,
    cols: usize,
    seq: usize,
    chunk: usize,
    drop_a: &Dropout,
    drop_b: &Dropout,
    #[comptime] accumulate: bool,
    #[comptime] dropped: bool,
    #[comptime] blueprint: Blueprint,
    #[define(T, W, U)] _dtypes: [StorageType; 3],
) {
    let (units, held) = (comptime!(blueprint.units), comptime!(blueprint.held));
    let cubes = rows.div_ceil(chunk);
    let cube = CUBE_POS;
    if cube >= cubes {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let first = cube * chunk;
    let end = select(first + chunk < rows, first + chunk, rows);
    let count = f32::cast_from(cols * WIDTH);
    let zero = Vector::<f32, N>::new(0.0f32);

    let mut gamma_sums = Array::<Vector<f32, N>>::new(held);
    let mut beta_sums = Array::<Vector<f32, N>>::new(held);
    let mut da_sums = Array::<Vector<f32, N>>::new(held);
    let mut db_sums = Array::<Vector<f32, N>>::new(held);
    let mut g = Array::<Vector<f32, N>>::new(held);
    let mut xhat = Array::<Vector<f32, N>>::new(held);
    let mut around = Array::<Vector<f32, N>>::new(held);
    let mut shared_a = SharedMemory::<u32>::new(comptime!(CALL * (units + 1)));
    let mut shared_b = SharedMemory::<u32>::new(comptime!(CALL * (units + 1)));
    #[unroll]
    for i in 0..held {
        gamma_sums[i] = zero;
        beta_sums[i] = zero;
        da_sums[i] = zero;
        db_sums[i] = zero;
    }

    for row in first..end {
        let start = row * cols;
        let row_mean = Vector::new(mean[row]);
        let row_rstd = Vector::new(rstd[row]);
        // The whole row is asked for before any of it is used, and before the barriers below: it is waited for once.
        let mut row_dy = Array::<Vector<T, N>>::new(held);
        let mut gammas = Array::<Vector<W, N>>::new(held);
        #[unroll]
        for i in 0..held {
            let column = within(unit + i * units, cols);
            let at = start + column;
            row_dy[i] = dy[at];
            xhat[i] = x[at];
            around[i] = zero;
            if comptime!(accumulate) {
                around[i] = dx[at];
            }
            gammas[i] = gamma[column];
        }
        let mut sum = zero;
        let mut along = zero;
        #[unroll]
        for i in 0..held {
            if unit + i * units < cols {
                let dy = Vector::<f32, N>::cast_from(row_dy[i]);
                xhat[i] = (xhat[i] - row_mean) * row_rstd;
                gamma_sums[i] += dy * xhat[i];
                beta_sums[i] += dy;
                g[i] = dy * Vector::cast_from(gammas[i]);
                sum += g[i];
                along += g[i] * xhat[i];
            }
        }
        let sums = sum_pair_of_units(across(sum, WIDTH), across(along, WIDTH), units, comptime!(blueprint.plane));
        let (sum, along) = (Vector::new(sums[0] / count), Vector::new(sums[1] / count));
        if comptime!(dropped) {
            let words_a = row_words(drop_a, row, seq, &mut shared_a, blueprint);
            let words_b = row_words(drop_b, row, seq, &mut shared_b, blueprint);
            #[unroll]
            for i in 0..held {
                let column = unit + i * units;
                if column < cols {
                    let at = start + column;
                    let value = around[i] + (g[i] - sum - xhat[i] * along) * row_rstd;
                    let a = value * word_factors::<N>(drop_a, word(words_a, i), 0usize, WIDTH);
                    let b = value * word_factors::<N>(drop_b, word(words_b, i), 0usize, WIDTH);
                    dx[at] = value;
                    da[at] = Vector::cast_from(a);
                    db[at] = Vector::cast_from(b);
                    da_sums[i] += a;
                    db_sums[i] += b;
                }
            }
        } else {
            #[unroll]
            for i in 0..held {
                let column = unit + i * units;
                if column < cols {
                    let value = around[i] + (g[i] - sum - xhat[i] * along) * row_rstd;
                    dx[start + column] = value;
                    da[start + column] = Vector::cast_from(value);
                    da_sums[i] += value;
                }
            }
        }
    }

    #[unroll]
    for i in 0..held {
        let column = unit + i * units;
        if column < cols {
            let at = cube * cols + column;
            norm_sums[at] = gamma_sums[i];
            norm_sums[cubes * cols + at] = beta_sums[i];
            a_sums[at] = da_sums[i];
            if comptime!(dropped) {
                b_sums[at] = db_sums[i];
            }
        }
    }
}

/// A layer norm's weights, `[C]` each of one dtype, and what is added to the variance.
pub struct Norm<R: Runtime> {
    pub gamma: Buffer<R>,
    pub beta: Buffer<R>,
    pub eps: f32,
}

/// Writes `out` = `x` + drop(`a`) + drop(`b`), fp32, and its layer norm `y` with the statistics. All matrices are contiguous
/// `[N, C]`; `y` has the branches' dtype.
#[allow(clippy::too_many_arguments)]
pub fn forward<R: Runtime>(
    client: &ComputeClient<R>,
    blueprint: Blueprint,
    sizes: Sizes,
    x: TensorBinding<R>,
    [a, b]: [Buffer<R>; 2],
    sites: Option<[Site; 2]>,
    norm: Norm<R>,
    out: TensorBinding<R>,
    y: Buffer<R>,
    statistics: Statistics<R>,
) {
    let Sizes { rows, cols, seq } = sizes;
    let dtypes = [a.dtype, norm.gamma.dtype];
    // SAFETY: a cube compares its row, a unit its column with their number before it reads or writes.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            cubes(client, rows),
            blueprint.dim(),
            WIDTH,
            array(x),
            a.arg(),
            b.arg(),
            norm.gamma.arg(),
            norm.beta.arg(),
            array(out),
            y.arg(),
            array(statistics.mean),
            array(statistics.rstd),
            rows,
            cols / WIDTH,
            seq,
            norm.eps,
            launch_site(sites.map(|sites| sites[0])),
            launch_site(sites.map(|sites| sites[1])),
            sites.is_some(),
            blueprint,
            dtypes,
        );
    }
}

/// fp32 sums over the rows of a cube each, P cubes: what they add up to are gradients.
pub struct Partials<R: Runtime> {
    /// Rows of a cube.
    pub chunk: usize,
    /// `[2 P, C]`: gamma's, then beta's.
    pub norm: TensorBinding<R>,
    /// `[P, C]` each, of the branches; the second is not written without dropout.
    pub branches: [TensorBinding<R>; 2],
}

/// Writes the gradient `dx` of the norm's input, fp32, or adds it to what is there, and of the branches behind it, given that
/// of the norm's output `dy`, its input `x` and statistics. Without dropout both branches have one gradient, `branches[0]`.
#[allow(clippy::too_many_arguments)]
pub fn backward<R: Runtime>(
    client: &ComputeClient<R>,
    blueprint: Blueprint,
    sizes: Sizes,
    dy: Buffer<R>,
    x: TensorBinding<R>,
    statistics: Statistics<R>,
    gamma: Buffer<R>,
    dx: TensorBinding<R>,
    accumulate: bool,
    [da, db]: [Buffer<R>; 2],
    sites: Option<[Site; 2]>,
    partials: Partials<R>,
) {
    let Sizes { rows, cols, seq } = sizes;
    let dtypes = [dy.dtype, gamma.dtype, da.dtype];
    let [a_sums, b_sums] = partials.branches;
    // SAFETY: a cube's rows end with the last one, a unit compares its column with their number before it reads or writes;
    // there are as many rows of partial sums as cubes.
    unsafe {
        backward_kernel::launch_unchecked(
            client,
            cubes(client, rows.div_ceil(partials.chunk)),
            blueprint.dim(),
            WIDTH,
            dy.arg(),
            array(x),
            array(statistics.mean),
            array(statistics.rstd),
            gamma.arg(),
            array(dx),
            da.arg(),
            db.arg(),
            array(partials.norm),
            array(a_sums),
            array(b_sums),
            rows,
            cols / WIDTH,
            seq,
            partials.chunk,
            launch_site(sites.map(|sites| sites[0])),
            launch_site(sites.map(|sites| sites[1])),
            accumulate,
            sites.is_some(),
            blueprint,
            dtypes,
        );
    }
}
