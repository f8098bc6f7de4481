//! Matrix product with so few rows that reading the weights is all the work: y = x W^T + b for a handful of tokens.
//!
//! A group of lanes shares some outputs: each lane reads every 32nd vector of their weights, once for all rows of x, which
//! come from the cache; then the lanes' sums are added up. The floor is the bytes of the weights.

use cubecl::ir::features::Plane;
use cubecl::prelude::*;

use crate::attention::{add_dot, held};
use crate::device::{Buffer, Class, cubes};

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
    /// For `rows` rows of `k` elements of `dtype`.
    pub fn of<R: Runtime>(client: &ComputeClient<R>, rows: usize, k: usize, dtype: StorageType) -> Self {
        let (hardware, features) = (&client.properties().hardware, &client.properties().features);
        let (lanes, groups) = match Class::of(client) {
            Class::Narrow => (8, 1),
            Class::Wide => (32, 4),
        };
        let planes = features.plane.contains(Plane::Ops)
            && [hardware.plane_size_min, hardware.plane_size_max] == [lanes as u32; 2];
        // 16 bytes, where a shader has such vectors.
        let widest = if dtype.size() == 2 && !features.matmul.cmma.is_empty() { 8 } else { 4 };
        let width = [widest, 4, 2].into_iter().find(|width| k.is_multiple_of(*width)).unwrap_or(1);
        let rows = rows.next_power_of_two();
        // Enough loads at a time to hide their latency, few enough sums to stay in registers.
        let outputs = if rows <= 2 { 4 } else { 2 };
        Self { lanes, groups, outputs, rows, width, planes }
    }
}

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
    #[comptime] blueprint: Blueprint,
    #[define(T)] _dtype: StorageType,
) {
    let lanes = comptime!(blueprint.lanes);
    let own = comptime!(blueprint.outputs);
    let most = comptime!(blueprint.rows);
    let (lane, group) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let first = (CUBE_POS * comptime!(blueprint.groups) + group) * own;

    let mut at = Array::<usize>::new(own);
    let mut sums = Array::<f32>::new(own * most);
    #[unroll]
    for j in 0..own {
        at[j] = held(first + j, outputs) * vectors;
    }
    #[unroll]
    for i in 0..own * most {
        sums[i] = 0.0f32;
    }
    let mut column = lane;
    while column < vectors {
        let mut w = Array::<Vector<f32, N>>::new(own);
        #[unroll]
        for j in 0..own {
            w[j] = Vector::cast_from(weight[at[j] + column]);
        }
        #[unroll]
        for row in 0..most {
            let value = Vector::<f32, N>::cast_from(x[held(row, rows) * vectors + column]);
            #[unroll]
            for j in 0..own {
                sums[row * own + j] = add_dot(value, w[j], sums[row * own + j], blueprint.width);
            }
        }
        column += lanes;
    }

    if comptime!(blueprint.planes) {
        #[unroll]
        for i in 0..own * most {
            sums[i] = plane_sum(sums[i]);
        }
    } else {
        let count = comptime!(own * most);
        let mut shared = SharedMemory::<f32>::new(comptime!(blueprint.lanes * blueprint.groups * count));
        // Neighbouring lanes lie together, so that they reach different banks.
        let mine = group * comptime!(blueprint.lanes * count) + lane;
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
    if lane == 0 {
        #[unroll]
        for j in 0..own {
            let output = first + j;
            if output < outputs {
                let shift = f32::cast_from(bias[output]);
                #[unroll]
                for row in 0..most {
                    if row < rows {
                        y[row * outputs + output] = T::cast_from(sums[row * own + j] + shift);
                    }
                }
            }
        }
    }
}

/// y `[rows, outputs]` = x `[rows, k]` times weight `[outputs, k]` transposed, plus bias `[outputs]`; all contiguous and of
/// one dtype, with fp32 sums. `sizes` is `[rows, outputs, k]`.
pub fn few_rows<R: Runtime>(
    client: &ComputeClient<R>,
    [rows, outputs, k]: [usize; 3],
    x: Buffer<R>,
    weight: Buffer<R>,
    bias: Buffer<R>,
    y: Buffer<R>,
) {
    if rows == 0 || outputs == 0 {
        return;
    }
    let dtype = x.dtype;
    let blueprint = Blueprint::of(client, rows, k, dtype);
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
            blueprint,
            dtype,
        );
    }
}
