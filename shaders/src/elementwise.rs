//! What kernels that walk over elements share: how units are spread, how wide they read, sums over a cube's units.

use cubecl::prelude::*;

use crate::device::{Class, cubes};
use crate::tuning::Choice;

/// Elements that a unit reads and writes at a time: 4 where every extent and offset in `sizes` is a multiple of 4.
pub(crate) fn width(sizes: &[usize]) -> usize {
    if sizes.iter().all(|size| size.is_multiple_of(4)) { 4 } else { 1 }
}

/// As `width`, up to 16 bytes of `dtype` where a shader has such vectors.
pub(crate) fn widest<R: Runtime>(client: &ComputeClient<R>, dtype: StorageType, sizes: &[usize]) -> usize {
    let most = if dtype.size() == 2 && !client.properties().features.matmul.cmma.is_empty() { 8 } else { 4 };
    [most, 4, 2].into_iter().find(|width| sizes.iter().all(|size| size.is_multiple_of(*width))).unwrap_or(1)
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

/// `x` held below `limit`, so that what is past the end reads the last one again.
#[cube]
pub(crate) fn within(x: usize, limit: usize) -> usize {
    select(x < limit, x, limit - 1)
}

/// Sum of `value` over the cube's `units` (a power of two), the same in every unit: always in the same order. `plane` is
/// `device::plane_lanes`. What units wrote to shared memory before is seen by all of them after it.
#[cube]
pub(crate) fn sum_units(value: f32, #[comptime] units: usize, #[comptime] plane: usize) -> f32 {
    one_over_units(value, units, plane, false)
}

/// As `sum_units`: the largest value.
#[cube]
pub(crate) fn max_units(value: f32, #[comptime] units: usize, #[comptime] plane: usize) -> f32 {
    one_over_units(value, units, plane, true)
}

#[cube]
fn one_over_units(value: f32, #[comptime] units: usize, #[comptime] plane: usize, #[comptime] largest: bool) -> f32 {
    let mut values = Array::<f32>::new(1usize);
    values[0] = value;
    over_units(&mut values, 1usize, units, plane, largest);
    values[0]
}

/// As `sum_units`, for two sums between the same barriers.
#[cube]
pub(crate) fn sum_pair_of_units(
    first: f32,
    second: f32,
    #[comptime] units: usize,
    #[comptime] plane: usize,
) -> Array<f32> {
    let mut values = Array::<f32>::new(2usize);
    values[0] = first;
    values[1] = second;
    over_units(&mut values, 2usize, units, plane, false);
    values
}

/// Each of `count` values over the lanes of a plane: a butterfly, after which every lane has the same bits.
#[cube]
pub(crate) fn over_lanes(
    values: &mut Array<f32>,
    #[comptime] count: usize,
    #[comptime] plane: usize,
    #[comptime] largest: bool,
) {
    #[unroll]
    for level in 0..comptime!(plane.ilog2()) {
        #[unroll]
        for i in 0..count {
            let other = plane_shuffle_xor(values[i], comptime!(1u32 << level));
            values[i] = either(values[i], other, largest);
        }
    }
}

#[cube]
fn either(value: f32, other: f32, #[comptime] largest: bool) -> f32 {
    if comptime!(largest) { max(value, other) } else { value + other }
}

#[cube]
fn over_units(
    values: &mut Array<f32>,
    #[comptime] count: usize,
    #[comptime] units: usize,
    #[comptime] plane: usize,
    #[comptime] largest: bool,
) {
    let unit = UNIT_POS as usize;
    if comptime!(plane > 0 && units.is_multiple_of(plane)) {
        // Planes first, then a sum of each: two barriers, where a tree has one a level.
        over_lanes(values, count, plane, largest);
        let planes = comptime!(units / plane);
        if comptime!(planes > 1) {
            let mut shared = SharedMemory::<f32>::new(comptime!(planes * count));
            let lane = unit % plane;
            if lane == 0 {
                #[unroll]
                for i in 0..count {
                    shared[i * planes + unit / plane] = values[i];
                }
            }
            sync_cube();
            #[unroll]
            for i in 0..count {
                values[i] = shared[i * planes];
                #[unroll]
                for other in 1..planes {
                    values[i] = either(values[i], shared[i * planes + other], largest);
                }
            }
        }
        // The memory may be written again by the next sum.
        sync_cube();
    } else if comptime!(units > 1) {
        let mut shared = SharedMemory::<f32>::new(comptime!(units * count));
        #[unroll]
        for i in 0..count {
            shared[i * units + unit] = values[i];
        }
        sync_cube();
        #[unroll]
        for level in 0..comptime!(units.ilog2()) {
            let half = comptime!(units >> (level + 1));
            if unit < half {
                #[unroll]
                for i in 0..count {
                    let at = i * units + unit;
                    shared[at] = either(shared[at], shared[at + half], largest);
                }
            }
            sync_cube();
        }
        #[unroll]
        for i in 0..count {
            values[i] = shared[i * units];
        }
        sync_cube();
    }
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
