//! What kernels that walk over elements share: how units are spread, how wide they read, sums over a cube's units.

use cubecl::prelude::*;

use crate::device::{Class, cubes};
use crate::tuning::Choice;

/// Elements that a unit reads and writes at a time: 4 where every extent and offset in `sizes` is a multiple of 4.
pub(crate) fn width(sizes: &[usize]) -> usize {
    if sizes.iter().all(|size| size.is_multiple_of(4)) { 4 } else { 1 }
}

/// Cubes and units for `work` pieces of work, a piece a unit; units past the end must return. `choice` may say otherwise how
/// many units a cube has.
pub(crate) fn spread<R: Runtime>(
    client: &ComputeClient<R>,
    work: usize,
    choice: Option<Choice>,
) -> (CubeCount, CubeDim) {
    let units = choice.and_then(Choice::one).unwrap_or(match Class::of(client) {
        Class::Narrow => 32,
        Class::Wide => 256,
    });
    (cubes(client, work.div_ceil(units)), CubeDim::new_1d(units as u32))
}

/// Index of this unit among all, in a cube of one dimension.
#[cube]
pub(crate) fn unit_index() -> usize {
    CUBE_POS * (CUBE_DIM as usize) + UNIT_POS as usize
}

/// Sum of `value` over the cube's `units` (a power of two), the same in every unit: a tree, so always in the same order.
#[cube]
pub(crate) fn sum_units(value: f32, #[comptime] units: usize) -> f32 {
    over_units(value, units, false)
}

/// As `sum_units`: the largest value.
#[cube]
pub(crate) fn max_units(value: f32, #[comptime] units: usize) -> f32 {
    over_units(value, units, true)
}

#[cube]
fn over_units(value: f32, #[comptime] units: usize, #[comptime] largest: bool) -> f32 {
    let mut total = value;
    if comptime!(units > 1) {
        let mut shared = SharedMemory::<f32>::new(units);
        let unit = UNIT_POS as usize;
        shared[unit] = value;
        sync_cube();
        #[unroll]
        for level in 0..comptime!(units.ilog2()) {
            let half = comptime!(units >> (level + 1));
            if unit < half {
                let other = shared[unit + half];
                if comptime!(largest) {
                    shared[unit] = max(shared[unit], other);
                } else {
                    shared[unit] += other;
                }
            }
            sync_cube();
        }
        total = shared[0];
        // The memory may be written again by the next sum.
        sync_cube();
    }
    total
}

#[cube(launch_unchecked)]
fn clear_kernel<N: Size>(out: &mut Array<Vector<f32, N>>, len: usize) {
    let at = unit_index();
    if at < len {
        out[at] = Vector::new(0.0f32);
    }
}

/// Sets the `len` elements of the fp32 `out` to zero.
pub fn clear<R: Runtime>(client: &ComputeClient<R>, out: TensorBinding<R>, len: usize) {
    let width = width(&[len]);
    let (count, dim) = spread(client, len / width, Some(Choice::ClearUnits));
    // SAFETY: each unit compares its index with the length before it writes.
    unsafe { clear_kernel::launch_unchecked(client, count, dim, width, array(out), len / width) }
}

pub(crate) fn array<R: Runtime>(binding: TensorBinding<R>) -> ArrayArg<R> {
    binding.into_tensor_arg().into_array_arg()
}
