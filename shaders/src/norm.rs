//! Layer norm (Ba et al., "Layer normalization") with fp32 statistics, forward and backward.
//!
//! N rows of C columns. A row belongs to all units of a cube on a GPU, to one unit on a processor's SIMD lanes, where
//! a barrier costs more than the sum.

use cubecl::prelude::*;

use crate::column_sums::add_partials;
use crate::device::{Buffer, Class, cubes, plane_lanes};
use crate::elementwise::{array, spread, sum_pair_of_units, sum_units, unit_index, width};
use crate::tuning::Choice;

/// What is decided when the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blueprint {
    /// Units that share a row; a power of two.
    pub units: usize,
    /// Rows of a cube; more than one only where `units` is 1.
    pub rows: usize,
    /// `device::plane_lanes`.
    pub plane: usize,
}

impl Blueprint {
    /// For rows of `cols` elements.
    pub fn of<R: Runtime>(client: &ComputeClient<R>, cols: usize) -> Self {
        let [units, rows] = Choice::NormUnits.two().unwrap_or(match Class::of(client) {
            Class::Narrow => [1, 8],
            // A row of 2048 is four vectors a unit: fewer, and adding up among units takes longer than the row.
            // Longer rows have more: residual_norm.rs, whose sums have to be the same bits, holds four vectors a unit.
            Class::Wide => {
                let (vectors, device) =
                    (cols / width(&[cols]), client.properties().hardware.max_units_per_cube as usize);
                // As many as hold four vectors each, where a cube can have them; no device has fewer than 128.
                let most = vectors.div_ceil(4).next_power_of_two().min(device);
                [vectors.next_power_of_two().clamp(32, if most.is_power_of_two() { most.max(128) } else { 128 }), 1]
            }
        });
        Self { units, rows, plane: plane_lanes(client) }
    }

    fn dim(self) -> CubeDim {
        CubeDim::new_1d((self.units * self.rows) as u32)
    }
}

/// This unit's row and its place among those that share it.
#[derive(CubeType, Clone, Copy)]
struct Place {
    row: usize,
    /// Past the last row: computes what the last row's unit does and stores nothing, so that barriers stay uniform.
    idle: bool,
    unit: usize,
}

#[cube]
fn place(rows: usize, #[comptime] blueprint: Blueprint) -> Place {
    let units = comptime!(blueprint.units);
    let unit = UNIT_POS as usize;
    let row = CUBE_POS * comptime!(blueprint.rows) + unit / units;
    let idle = row >= rows;
    Place { row: select(idle, rows - 1, row), idle, unit: unit % units }
}

/// Sum of a vector's elements.
#[cube]
pub(crate) fn across<N: Size>(vector: Vector<f32, N>, #[comptime] width: usize) -> f32 {
    let mut sum = vector[0];
    #[unroll]
    for e in 1..width {
        sum += vector[e];
    }
    sum
}

/// The most vectors of a row that a unit holds in registers. residual_norm.rs' backward has nine times 4 for each.
pub(crate) const HELD: usize = 4;

/// The norm of a cube's row, of which every unit holds the vectors UNIT_POS, UNIT_POS + units, ... , zeros past its end.
/// `cols` in vectors of `width`.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(crate) fn of_held<W: Float, T: Float, N: Size>(
    held_row: &Array<Vector<f32, N>>,
    gamma: &Array<Vector<W, N>>,
    beta: &Array<Vector<W, N>>,
    y: &mut Array<Vector<T, N>>,
    mean_out: &mut Array<f32>,
    rstd_out: &mut Array<f32>,
    row: usize,
    cols: usize,
    eps: f32,
    #[comptime] held: usize,
    #[comptime] units: usize,
    #[comptime] plane: usize,
    #[comptime] width: usize,
) {
    let unit = UNIT_POS as usize;
    let count = f32::cast_from(cols * width);
    // Asked for ahead of the sums, whose barriers a load does not pass: it is here when they are.
    let mut gammas = Array::<Vector<W, N>>::new(held);
    let mut betas = Array::<Vector<W, N>>::new(held);
    #[unroll]
    for i in 0..held {
        let column = unit + i * units;
        if column < cols {
            gammas[i] = gamma[column];
            betas[i] = beta[column];
        }
    }

    let mut sum = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for i in 0..held {
        sum += held_row[i];
    }
    let mean = sum_units(across(sum, width), units, plane) / count;
    let mut squares = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for i in 0..held {
        if unit + i * units < cols {
            let centred = held_row[i] - Vector::new(mean);
            squares += centred * centred;
        }
    }
    let variance = sum_units(across(squares, width), units, plane) / count;
    let rstd = 1.0f32 / (variance + eps).sqrt();
    #[unroll]
    for i in 0..held {
        let column = unit + i * units;
        if column < cols {
            let xhat = (held_row[i] - Vector::new(mean)) * Vector::new(rstd);
            let scaled = xhat * Vector::cast_from(gammas[i]) + Vector::cast_from(betas[i]);
            y[row * cols + column] = Vector::cast_from(scaled);
        }
    }
    if unit == 0 {
        mean_out[row] = mean;
        rstd_out[row] = rstd;
    }
}

/// `cols` in vectors of `width`; a unit holds `held` of its row's, or reads the row once a pass where that is 0.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn forward_kernel<W: Float, T: Float, N: Size>(
    x: &Array<Vector<f32, N>>,
    gamma: &Array<Vector<W, N>>,
    beta: &Array<Vector<W, N>>,
    y: &mut Array<Vector<T, N>>,
    mean_out: &mut Array<f32>,
    rstd_out: &mut Array<f32>,
    rows: usize,
    cols: usize,
    eps: f32,
    #[comptime] blueprint: Blueprint,
    #[comptime] held: usize,
    #[comptime] width: usize,
    #[define(W, T)] _dtypes: [StorageType; 2],
) {
    let (units, plane) = (comptime!(blueprint.units), comptime!(blueprint.plane));
    if comptime!(held > 0) {
        // The whole cube: barriers stay uniform.
        if CUBE_POS >= rows {
            terminate!();
        }
        let mut row = Array::<Vector<f32, N>>::new(held);
        #[unroll]
        for i in 0..held {
            let column = UNIT_POS as usize + i * units;
            row[i] = Vector::new(0.0f32);
            if column < cols {
                row[i] = x[CUBE_POS * cols + column];
            }
        }
        of_held(&row, gamma, beta, y, mean_out, rstd_out, CUBE_POS, cols, eps, held, units, plane, width);
    } else {
        let place = place(rows, blueprint);
        let start = place.row * cols;
        let count = f32::cast_from(cols * width);

        let mut sum = Vector::<f32, N>::new(0.0f32);
        let mut column = place.unit;
        while column < cols {
            sum += x[start + column];
            column += units;
        }
        let mean = sum_units(across(sum, width), units, plane) / count;

        let mut squares = Vector::<f32, N>::new(0.0f32);
        let mut column = place.unit;
        while column < cols {
            let centred = x[start + column] - Vector::new(mean);
            squares += centred * centred;
            column += units;
        }
        let variance = sum_units(across(squares, width), units, plane) / count;
        let rstd = 1.0f32 / (variance + eps).sqrt();

        if !place.idle {
            let mut column = place.unit;
            while column < cols {
                let xhat = (x[start + column] - Vector::new(mean)) * Vector::new(rstd);
                let scaled = xhat * Vector::cast_from(gamma[column]) + Vector::cast_from(beta[column]);
                y[start + column] = Vector::cast_from(scaled);
                column += units;
            }
            if place.unit == 0 {
                mean_out[place.row] = mean;
                rstd_out[place.row] = rstd;
            }
        }
    }
}

/// With xhat = (x - mean) rstd and g = dy gamma: dx (+)= rstd (g - mean(g) - xhat mean(g xhat)). `cols` in vectors of `width`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn input_gradient_kernel<T: Float, W: Float, N: Size>(
    dy: &Array<Vector<T, N>>,
    x: &Array<Vector<f32, N>>,
    mean: &Array<f32>,
    rstd: &Array<f32>,
    gamma: &Array<Vector<W, N>>,
    dx: &mut Array<Vector<f32, N>>,
    rows: usize,
    cols: usize,
    #[comptime] accumulate: bool,
    #[comptime] blueprint: Blueprint,
    #[comptime] width: usize,
    #[define(T, W)] _dtypes: [StorageType; 2],
) {
    let units = comptime!(blueprint.units);
    let place = place(rows, blueprint);
    let start = place.row * cols;
    let mean = Vector::new(mean[place.row]);
    let rstd = Vector::new(rstd[place.row]);
    let count = f32::cast_from(cols * width);

    let mut sum = Vector::<f32, N>::new(0.0f32);
    let mut along = Vector::<f32, N>::new(0.0f32);
    let mut column = place.unit;
    while column < cols {
        let g = Vector::<f32, N>::cast_from(dy[start + column]) * Vector::cast_from(gamma[column]);
        sum += g;
        along += g * ((x[start + column] - mean) * rstd);
        column += units;
    }
    let sums = sum_pair_of_units(across(sum, width), across(along, width), units, comptime!(blueprint.plane));
    let (sum, along) = (Vector::new(sums[0] / count), Vector::new(sums[1] / count));

    if !place.idle {
        let mut column = place.unit;
        while column < cols {
            let g = Vector::<f32, N>::cast_from(dy[start + column]) * Vector::cast_from(gamma[column]);
            let xhat = (x[start + column] - mean) * rstd;
            let value = (g - sum - xhat * along) * rstd;
            if comptime!(accumulate) {
                dx[start + column] += value;
            } else {
                dx[start + column] = value;
            }
            column += units;
        }
    }
}

/// Rows that one unit sums in the first stage of the gradients of gamma and beta.
fn chunk() -> usize {
    Choice::NormRows.one().unwrap_or(64)
}

/// First stage: partial[0, chunk, column] = sum of dy xhat over up to `chunk` rows, partial[1, chunk, column] of dy.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn weight_gradient_chunks<T: Float>(
    dy: &Array<T>,
    x: &Array<f32>,
    mean: &Array<f32>,
    rstd: &Array<f32>,
    partial: &mut Array<f32>,
    rows: usize,
    cols: usize,
    #[comptime] chunk: usize,
    #[define(T)] _dtype: StorageType,
) {
    let at = unit_index();
    let len = rows.div_ceil(chunk) * cols;
    if at >= len {
        terminate!();
    }
    let first = at / cols * chunk;
    let column = at % cols;
    let end = select(first + chunk < rows, first + chunk, rows);
    let mut gamma = 0.0f32;
    let mut beta = 0.0f32;
    for row in first..end {
        let dy = f32::cast_from(dy[row * cols + column]);
        gamma += dy * ((x[row * cols + column] - mean[row]) * rstd[row]);
        beta += dy;
    }
    partial[at] = gamma;
    partial[len + at] = beta;
}

/// The fp32 buffers of a row's statistics, `[N]` each.
pub struct Statistics<R: Runtime> {
    pub mean: TensorBinding<R>,
    pub rstd: TensorBinding<R>,
}

/// Writes `y` `[N, C]` and the statistics, given `x` `[N, C]` fp32 and `gamma`, `beta` `[C]` of one dtype. Everything is
/// contiguous; neither N nor C is 0.
#[allow(clippy::too_many_arguments)]
pub fn forward<R: Runtime>(
    client: &ComputeClient<R>,
    blueprint: Blueprint,
    [rows, cols]: [usize; 2],
    x: TensorBinding<R>,
    [gamma, beta]: [Buffer<R>; 2],
    eps: f32,
    y: Buffer<R>,
    statistics: Statistics<R>,
) {
    let (width, dtypes) = (width(&[cols]), [gamma.dtype, y.dtype]);
    let held = (cols / width).div_ceil(blueprint.units);
    let held = if blueprint.units > 1 && blueprint.rows == 1 && held <= HELD { held } else { 0 };
    // SAFETY: a unit's row is clamped to the last one, its column compared with their number.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            cubes(client, rows.div_ceil(blueprint.rows)),
            blueprint.dim(),
            width,
            array(x),
            gamma.arg(),
            beta.arg(),
            y.arg(),
            array(statistics.mean),
            array(statistics.rstd),
            rows,
            cols / width,
            eps,
            blueprint,
            held,
            width,
            dtypes,
        );
    }
}

/// Writes `dx` `[N, C]` fp32, or adds to what it holds, given `dy` `[N, C]` of any float dtype, the forward's `x`, statistics and `gamma`.
#[allow(clippy::too_many_arguments)]
pub fn input_gradient<R: Runtime>(
    client: &ComputeClient<R>,
    blueprint: Blueprint,
    [rows, cols]: [usize; 2],
    dy: Buffer<R>,
    x: TensorBinding<R>,
    statistics: Statistics<R>,
    gamma: Buffer<R>,
    dx: TensorBinding<R>,
    accumulate: bool,
) {
    let (width, dtypes) = (width(&[cols]), [dy.dtype, gamma.dtype]);
    // SAFETY: as in `forward`.
    unsafe {
        input_gradient_kernel::launch_unchecked(
            client,
            cubes(client, rows.div_ceil(blueprint.rows)),
            blueprint.dim(),
            width,
            dy.arg(),
            array(x),
            array(statistics.mean),
            array(statistics.rstd),
            gamma.arg(),
            array(dx),
            rows,
            cols / width,
            accumulate,
            blueprint,
            width,
            dtypes,
        );
    }
}

/// fp32 elements of the scratch that `weight_gradients` needs.
pub fn scratch_len([rows, cols]: [usize; 2]) -> usize {
    2 * rows.div_ceil(chunk()) * cols
}

/// Adds the gradients of gamma and beta to fp32 buffers, each from an element on; `partial` is scratch.
pub fn weight_gradients<R: Runtime>(
    client: &ComputeClient<R>,
    [rows, cols]: [usize; 2],
    dy: Buffer<R>,
    x: TensorBinding<R>,
    statistics: Statistics<R>,
    partial: TensorBinding<R>,
    [dgamma, dbeta]: [(TensorBinding<R>, usize); 2],
) {
    let chunk = chunk();
    let chunks = rows.div_ceil(chunk);
    let dtype = dy.dtype;
    // SAFETY: each unit compares its index with the number of columns (and chunks) before it reads or writes.
    unsafe {
        let (count, dim) = spread(client, chunks * cols, None);
        weight_gradient_chunks::launch_unchecked(
            client,
            count,
            dim,
            dy.arg(),
            array(x),
            array(statistics.mean),
            array(statistics.rstd),
            array(partial.clone()),
            rows,
            cols,
            chunk,
            dtype,
        );
    }
    for (first, out) in [(0, dgamma), (chunks, dbeta)] {
        add_partials(client, partial.clone(), first, [chunks, cols], out);
    }
}
