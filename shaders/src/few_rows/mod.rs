//! Matrix product with so few rows that reading the weights is all the work: y = x W^T + b for a handful of tokens.
//!
//! A group of lanes shares some outputs: each lane reads every 32nd vector of their weights, once for all rows of x, which
//! come from the cache; then the lanes' sums are added up. The floor is the bytes of the weights.

mod branches;

use cubecl::prelude::*;

pub use self::branches::{Branch, add_branches};
use crate::attention::add_dot;
use crate::device::{Buffer, Class, cubes, plane_lanes};
use crate::elementwise::{over_lanes, widest, within};
use crate::gelu::gelu;
use crate::tuning::Choice;

/// Rows of x that this is good for: beyond, tensor cores multiply what is read once faster.
pub const FEW_ROWS: usize = 16;

/// What is decided when the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blueprint {
    /// Units that share outputs: a power of two.
    pub lanes: usize,
    /// Groups of lanes in a cube.
    pub groups: usize,
    /// Outputs of a group.
    pub outputs: usize,
    /// Rows of x, or a power of two above them.
    pub rows: usize,
    /// Elements that a lane reads at a time.
    pub width: usize,
    /// A plane is a group, and adds up its lanes' sums itself; elsewhere they go through shared memory.
    pub planes: bool,
}

impl Blueprint {
    /// For `rows` rows of `dtype`, and sums of each of `k` products; outputs and groups are `choice`'s.
    pub fn of<R: Runtime>(
        client: &ComputeClient<R>,
        rows: usize,
        k: &[usize],
        dtype: StorageType,
        choice: Choice,
    ) -> Self {
        let (lanes, groups) = match Class::of(client) {
            Class::Narrow => (8, 1),
            Class::Wide => (32, 4),
        };
        let planes = plane_lanes(client) == lanes;
        let width = widest(client, dtype, k);
        let rows = rows.next_power_of_two();
        // Enough loads at a time to hide their latency, few enough sums to stay in registers.
        let [outputs, groups] = choice.two().unwrap_or([if rows <= 2 { 4 } else { 2 }, groups]);
        Self { lanes, groups, outputs, rows, width, planes }
    }
}

/// Adds to sums[row, output] the products of x's rows with the weights of outputs `first` and on, over this unit's vectors:
/// every `step`th of `vectors` from `start` on. A row of x has `x_row` vectors, of which those from `x_from` on count.
#[cube]
#[allow(clippy::too_many_arguments)]
fn add_products<T: Float, N: Size>(
    sums: &mut Array<f32>,
    x: &Array<Vector<T, N>>,
    x_row: usize,
    x_from: usize,
    weight: &Array<Vector<T, N>>,
    first: usize,
    rows: usize,
    outputs: usize,
    vectors: usize,
    start: usize,
    step: usize,
    #[comptime] blueprint: Blueprint,
) {
    let own = comptime!(blueprint.outputs);
    let mut at = Array::<usize>::new(own);
    #[unroll]
    for j in 0..own {
        at[j] = within(first + j, outputs) * vectors;
    }
    let mut column = start;
    while column < vectors {
        // As they are in memory: to convert one waits for it.
        let mut fetched = Array::<Vector<T, N>>::new(own);
        #[unroll]
        for j in 0..own {
            fetched[j] = weight[at[j] + column];
        }
        let mut w = Array::<Vector<f32, N>>::new(own);
        #[unroll]
        for j in 0..own {
            w[j] = Vector::cast_from(fetched[j]);
        }
        #[unroll]
        for row in 0..comptime!(blueprint.rows) {
            let value = Vector::<f32, N>::cast_from(x[within(row, rows) * x_row + x_from + column]);
            #[unroll]
            for j in 0..own {
                sums[row * own + j] = add_dot(value, w[j], sums[row * own + j], blueprint.width);
            }
        }
        column += step;
    }
}

/// Adds up what a group's lanes have of each sum: every lane then has the whole of each.
#[cube]
fn add_up(sums: &mut Array<f32>, #[comptime] blueprint: Blueprint) {
    let count = comptime!(blueprint.outputs * blueprint.rows);
    let lanes = comptime!(blueprint.lanes);
    if comptime!(blueprint.planes) {
        over_lanes(sums, count, lanes, false);
    } else {
        let lane = UNIT_POS_X as usize;
        let mut shared = SharedMemory::<f32>::new(comptime!(blueprint.lanes * blueprint.groups * count));
        // Neighbouring lanes lie together, so that they reach different banks.
        let mine = UNIT_POS_Y as usize * comptime!(blueprint.lanes * count) + lane;
        #[unroll]
        for i in 0..count {
            shared[mine + i * lanes] = sums[i];
        }
        sync_cube();
        #[unroll]
        for level in 0..comptime!(blueprint.lanes.ilog2()) {
            let half = comptime!(blueprint.lanes >> (level + 1));
            if lane < half {
                #[unroll]
                for i in 0..count {
                    let other = shared[mine + i * lanes + half];
                    shared[mine + i * lanes] += other;
                }
            }
            sync_cube();
        }
        #[unroll]
        for i in 0..count {
            sums[i] = shared[mine - lane + i * lanes];
        }
    }
}

/// Sums of zero.
#[cube]
fn none(#[comptime] blueprint: Blueprint) -> Array<f32> {
    let mut sums = Array::<f32>::new(comptime!(blueprint.outputs * blueprint.rows));
    #[unroll]
    for i in 0..comptime!(blueprint.outputs * blueprint.rows) {
        sums[i] = 0.0f32;
    }
    sums
}

/// Outputs from `plain` on go through GELU.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn few_rows_kernel<T: Float, N: Size>(
    x: &Array<Vector<T, N>>,
    weight: &Array<Vector<T, N>>,
    bias: &Array<T>,
    y: &mut Array<T>,
    rows: usize,
    outputs: usize,
    vectors: usize,
    plain: usize,
    #[comptime] with_gelu: bool,
    #[comptime] blueprint: Blueprint,
    #[define(T)] _dtype: StorageType,
) {
    let own = comptime!(blueprint.outputs);
    let lane = UNIT_POS_X as usize;
    let first = (CUBE_POS * comptime!(blueprint.groups) + UNIT_POS_Y as usize) * own;
    let mut sums = none(blueprint);
    let step = comptime!(blueprint.lanes).runtime();
    add_products(&mut sums, x, vectors, 0usize, weight, first, rows, outputs, vectors, lane, step, blueprint);
    add_up(&mut sums, blueprint);
    if lane == 0 {
        #[unroll]
        for j in 0..own {
            let output = first + j;
            if output < outputs {
                let shift = f32::cast_from(bias[output]);
                #[unroll]
                for row in 0..comptime!(blueprint.rows) {
                    if row < rows {
                        let mut value = sums[row * own + j] + shift;
                        if comptime!(with_gelu) && output >= plain {
                            value = gelu(value);
                        }
                        y[row * outputs + output] = T::cast_from(value);
                    }
                }
            }
        }
    }
}

/// y `[rows, outputs]` = x `[rows, k]` times weight `[outputs, k]` transposed, plus bias `[outputs]`; all contiguous and of
/// one dtype, with fp32 sums; outputs from `plain` on go through GELU, if that is given. `sizes` is `[rows, outputs, k]`.
pub fn few_rows<R: Runtime>(
    client: &ComputeClient<R>,
    [rows, outputs, k]: [usize; 3],
    x: Buffer<R>,
    weight: Buffer<R>,
    bias: Buffer<R>,
    y: Buffer<R>,
    plain: Option<usize>,
) {
    if rows == 0 || outputs == 0 {
        return;
    }
    let dtype = x.dtype;
    let blueprint = Blueprint::of(client, rows, &[k], dtype, Choice::FewRows);
    let count = outputs.div_ceil(blueprint.outputs * blueprint.groups);
    // SAFETY: rows and outputs past the last are held at it for reading and compared before writing.
    unsafe {
        few_rows_kernel::launch_unchecked(
            client,
            cubes(client, count),
            CubeDim::new_2d(blueprint.lanes as u32, blueprint.groups as u32),
            blueprint.width,
            x.arg(),
            weight.arg(),
            bias.arg(),
            y.arg(),
            rows,
            outputs,
            k / blueprint.width,
            plain.unwrap_or(outputs),
            plain.is_some(),
            blueprint,
            dtype,
        );
    }
}
