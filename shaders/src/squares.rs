//! The sum of squares of a flat buffer, in two stages of a fixed order.

use cubecl::prelude::*;

use crate::device::{Class, plane_lanes};
use crate::elementwise::{array, spread, sum_units, unit_index, width, within};
use crate::tuning::Choice;

/// What is decided when the kernels are compiled, and how many sums the first stage leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blueprint {
    /// Units of the first stage, each of which leaves one sum.
    pub partials: usize,
    /// Units of the second stage's one cube.
    pub units: usize,
}

impl Blueprint {
    pub fn of<R: Runtime>(client: &ComputeClient<R>) -> Self {
        let [partials, units] = Choice::Squares.two().unwrap_or(match Class::of(client) {
            Class::Narrow => [512, 8],
            Class::Wide => [65_536, 256],
        });
        Self { partials, units }
    }
}

/// Vectors that a unit reads before it squares the first, on a GPU: few units are at work, and each would wait for one at a
/// time.
const AHEAD: usize = 8;

/// partial[i] = sum of the squares of every `partials`-th vector from the i-th on.
#[cube(launch_unchecked)]
fn partial_kernel<N: Size>(
    x: &Array<Vector<f32, N>>,
    partial: &mut Array<f32>,
    len: usize,
    partials: usize,
    #[comptime] width: usize,
    #[comptime] ahead: usize,
) {
    let first = unit_index();
    if first < partials {
        let mut sums = Vector::<f32, N>::new(0.0f32);
        let mut at = first;
        while at < len {
            let mut values = Array::<Vector<f32, N>>::new(ahead);
            #[unroll]
            for i in 0..ahead {
                values[i] = x[within(at + i * partials, len)];
            }
            #[unroll]
            for i in 0..ahead {
                if at + i * partials < len {
                    sums += values[i] * values[i];
                }
            }
            at += comptime!(ahead) * partials;
        }
        let mut sum = 0.0f32;
        #[unroll]
        for i in 0..width {
            sum += sums[i];
        }
        partial[first] = sum;
    }
}

#[cube(launch_unchecked)]
fn total_kernel(
    partial: &Array<f32>,
    total: &mut Array<f32>,
    partials: usize,
    #[comptime] units: usize,
    #[comptime] plane: usize,
) {
    let mut sum = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < partials {
        sum += partial[at];
        at += units;
    }
    let sum = sum_units(sum, units, plane);
    if UNIT_POS == 0 {
        total[0] = sum;
    }
}

/// Writes the sum of squares of the `len` fp32 elements of `x` to `total[0]`; not finite where an element is not.
/// `partial` is fp32 scratch of `blueprint.partials` elements.
pub fn sum<R: Runtime>(
    client: &ComputeClient<R>,
    blueprint: Blueprint,
    len: usize,
    x: TensorBinding<R>,
    partial: TensorBinding<R>,
    total: TensorBinding<R>,
) {
    let Blueprint { partials, units } = blueprint;
    let n = width(&[len]);
    let (count, dim) = spread(client, partials, None);
    let ahead = if Class::of(client) == Class::Wide { AHEAD } else { 1 };
    // SAFETY: each unit compares its index with the lengths before it reads or writes.
    unsafe {
        partial_kernel::launch_unchecked(
            client,
            count,
            dim,
            n,
            array(x),
            array(partial.clone()),
            len / n,
            partials,
            n,
            ahead,
        );
        let dim = CubeDim::new_1d(units as u32);
        total_kernel::launch_unchecked(
            client,
            CubeCount::Static(1, 1, 1),
            dim,
            array(partial),
            array(total),
            partials,
            units,
            plane_lanes(client),
        );
    }
}
