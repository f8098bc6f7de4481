//! Both branches of a block and the residual sum for a handful of tokens: out = x + o Wd^T + bd + h Wf^T + bf, with x and out in
//! fp32.
//!
//! A cube shares some outputs among all its units, so that even a narrow model's weights are read by a whole GPU at a time.

use cubecl::prelude::*;

use super::{Blueprint, add_products, add_up, none};
use crate::device::{Buffer, cubes};
use crate::elementwise::array;
use crate::tuning::Choice;

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn branches_kernel<T: Float, N: Size>(
    x: &Array<f32>,
    attention: &Array<Vector<T, N>>,
    mlp: &Array<Vector<T, N>>,
    dense: &Array<Vector<T, N>>,
    fc2: &Array<Vector<T, N>>,
    dense_bias: &Array<T>,
    fc2_bias: &Array<T>,
    out: &mut Array<f32>,
    rows: usize,
    outputs: usize,
    attention_vectors: usize,
    mlp_vectors: usize,
    mlp_row: usize,
    #[comptime] blueprint: Blueprint,
    #[define(T)] _dtype: StorageType,
) {
    let (lanes, groups) = comptime!((blueprint.lanes, blueprint.groups));
    let (own, count) = comptime!((blueprint.outputs, blueprint.outputs * blueprint.rows));
    let units = comptime!(lanes * groups);
    let (lane, group) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let unit = group * lanes + lane;
    let first = CUBE_POS * own;
    let mut sums = none(blueprint);
    let (whole, from, step) = (attention_vectors, mlp_row - mlp_vectors, units.runtime());
    add_products(&mut sums, attention, whole, 0usize, dense, first, rows, outputs, whole, unit, step, blueprint);
    add_products(&mut sums, mlp, mlp_row, from, fc2, first, rows, outputs, mlp_vectors, unit, step, blueprint);
    add_up(&mut sums, blueprint);

    let mut of_groups = SharedMemory::<f32>::new(comptime!(groups * count));
    if lane == 0 {
        #[unroll]
        for i in 0..count {
            of_groups[group * count + i] = sums[i];
        }
    }
    sync_cube();
    #[unroll]
    for round in 0..comptime!(count.div_ceil(units)) {
        let i = unit + round * units;
        let (row, output) = (i / own, first + i % own);
        if i < count && row < rows && output < outputs {
            let mut sum = f32::cast_from(dense_bias[output]) + f32::cast_from(fc2_bias[output]);
            #[unroll]
            for of in 0..groups {
                sum += of_groups[of * count + i];
            }
            let at = row * outputs + output;
            out[at] = x[at] + sum;
        }
    }
}

/// A branch's last product: its input, weight and bias.
pub struct Branch<R: Runtime> {
    pub input: Buffer<R>,
    /// `[C, K]`.
    pub weight: Buffer<R>,
    /// `[C]`.
    pub bias: Buffer<R>,
}

/// out `[rows, C]` = x `[rows, C]`, both fp32, and both branches. The attention's input is `[rows, C]`; the MLP's is the last F
/// columns of rows of W. All else is contiguous and of one dtype. `sizes` is `[rows, C, F, W]`.
pub fn add_branches<R: Runtime>(
    client: &ComputeClient<R>,
    [rows, hidden, inner, row]: [usize; 4],
    x: TensorBinding<R>,
    attention: Branch<R>,
    mlp: Branch<R>,
    out: TensorBinding<R>,
) {
    if rows == 0 || hidden == 0 {
        return;
    }
    let dtype = attention.input.dtype;
    let blueprint = Blueprint::of(client, rows, &[hidden, inner, row], dtype, Choice::FewRowsBranches);
    let Blueprint { lanes, groups, outputs, width, .. } = blueprint;
    // SAFETY: rows and outputs past the last are held at it for reading and compared before writing.
    unsafe {
        branches_kernel::launch_unchecked(
            client,
            cubes(client, hidden.div_ceil(outputs)),
            CubeDim::new_2d(lanes as u32, groups as u32),
            width,
            array(x),
            attention.input.arg(),
            mlp.input.arg(),
            attention.weight.arg(),
            mlp.weight.arg(),
            attention.bias.arg(),
            mlp.bias.arg(),
            array(out),
            rows,
            hidden,
            hidden / width,
            inner / width,
            row / width,
            blueprint,
            dtype,
        );
    }
}
