//! Cross entropy of rows of logits, and the logits' gradient in their place.

use cubecl::prelude::*;

use crate::device::{Buffer, Class, cubes};
use crate::elementwise::width;
use crate::tuning::Choice;

/// What is decided when the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blueprint {
    /// Units that share a row.
    pub units: usize,
    /// Logits that a unit reads at a time.
    pub width: usize,
    pub gradient: Place,
}

/// Where the logits' gradient goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Nowhere,
    /// In place of the logits.
    Logits,
    Apart,
}

/// A row a cube. Each unit keeps a running maximum and a sum of exponentials relative to it over every `units`-th vector of
/// logits; then all units combine all pairs in the same order, so that the result is the same in each and from run to run.
/// loss = lse - x[target]; d logits = scale (softmax(x) - onehot(target)). `vocab` is in vectors.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn cross_entropy_kernel<G: Float, N: Size>(
    logits: &mut Array<Vector<f32, N>>,
    targets: &Array<i32>,
    losses: &mut Array<f32>,
    gradients: &mut Array<Vector<G, N>>,
    rows: usize,
    vocab: usize,
    first_row: usize,
    scale: f32,
    #[comptime] blueprint: Blueprint,
    #[define(G)] _dtype: StorageType,
) {
    let units = comptime!(blueprint.units);
    let width = comptime!(blueprint.width);
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let start = row * vocab;
    let unit = UNIT_POS as usize;
    let target = targets[first_row + row] as usize;
    let target_logits = logits[start + target / width];
    let mut target_logit = target_logits[0];
    #[unroll]
    for e in 1..width {
        target_logit = select(target % width == e, target_logits[e], target_logit);
    }

    let mut high = f32::new(-1.0e30);
    let mut sum = 0.0f32;
    let mut column = unit;
    while column < vocab {
        let x = logits[start + column];
        let mut higher = high;
        #[unroll]
        for e in 0..width {
            higher = max(higher, x[e]);
        }
        sum *= f32::exp(high - higher);
        #[unroll]
        for e in 0..width {
            sum += f32::exp(x[e] - higher);
        }
        high = higher;
        column += units;
    }

    let mut highs = SharedMemory::<f32>::new(units);
    let mut sums = SharedMemory::<f32>::new(units);
    highs[unit] = high;
    sums[unit] = sum;
    sync_cube();
    let mut row_high = highs[0];
    for i in 1..units {
        row_high = max(row_high, highs[i]);
    }
    let mut row_sum = 0.0f32;
    for i in 0..units {
        row_sum += sums[i] * f32::exp(highs[i] - row_high);
    }
    let lse = row_high + f32::ln(row_sum);
    if unit == 0 {
        losses[first_row + row] = lse - target_logit;
    }
    if comptime!(blueprint.gradient != Place::Nowhere) {
        let mut column = unit;
        while column < vocab {
            let mut gradient = logits[start + column];
            #[unroll]
            for e in 0..width {
                let one = select(column * width + e == target, 1.0f32, 0.0f32);
                gradient[e] = scale * (f32::exp(gradient[e] - lse) - one);
            }
            if comptime!(blueprint.gradient == Place::Apart) {
                gradients[start + column] = Vector::cast_from(gradient);
            } else {
                logits[start + column] = gradient;
            }
            column += units;
        }
    }
}

/// Sum of `values` into `total[0]`, by one cube in a fixed order.
#[cube(launch_unchecked)]
fn total_kernel(values: &Array<f32>, total: &mut Array<f32>, len: usize, #[comptime] units: usize) {
    if CUBE_POS > 0 {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let mut sum = 0.0f32;
    let mut at = unit;
    while at < len {
        sum += values[at];
        at += units;
    }
    let mut sums = SharedMemory::<f32>::new(units);
    sums[unit] = sum;
    sync_cube();
    if unit == 0 {
        let mut all = 0.0f32;
        for i in 0..units {
            all += sums[i];
        }
        total[0] = all;
    }
}

fn units<R: Runtime>(client: &ComputeClient<R>) -> usize {
    Choice::LossUnits.one().unwrap_or(match Class::of(client) {
        // Four vectors a row: a vocabulary of a million stays below `NARROW_ITERATIONS`.
        Class::Narrow => 32,
        Class::Wide => 64,
    })
}

/// The rows of logits that are in memory.
pub struct Rows {
    /// Index in `targets` and `losses` of the first.
    pub first: usize,
    pub count: usize,
    pub vocab: usize,
}

/// Writes each row's cross entropy (nats) to `losses`, and `scale` x the gradient of the sum of losses with respect to the
/// `logits` `[count, vocab]` fp32 to where `place` says: `Apart` is into `gradients` `[count, vocab]`, which is any other
/// buffer elsewhere. `targets` are i32 below `vocab`.
#[allow(clippy::too_many_arguments)]
pub fn cross_entropy<R: Runtime>(
    client: &ComputeClient<R>,
    rows: Rows,
    logits: TensorBinding<R>,
    targets: TensorBinding<R>,
    losses: TensorBinding<R>,
    gradients: Buffer<R>,
    place: Place,
    scale: f32,
) {
    let Rows { first, count, vocab } = rows;
    let width = width(&[vocab]);
    let blueprint = Blueprint { units: units(client), width, gradient: place };
    let array = |binding: TensorBinding<R>| binding.into_tensor_arg().into_array_arg();
    let dtype = gradients.dtype;
    // SAFETY: cubes past the last row end at once, columns stay below `vocab`.
    unsafe {
        cross_entropy_kernel::launch_unchecked(
            client,
            cubes(client, count),
            CubeDim::new_1d(blueprint.units as u32),
            width,
            array(logits),
            array(targets),
            array(losses),
            gradients.arg(),
            count,
            vocab / width,
            first,
            scale,
            blueprint,
            dtype,
        );
    }
}

/// Writes the sum of the first `len` of `values` (fp32) to `total` `[1]`.
pub fn total<R: Runtime>(client: &ComputeClient<R>, len: usize, values: TensorBinding<R>, total: TensorBinding<R>) {
    let units = units(client);
    let array = |binding: TensorBinding<R>| binding.into_tensor_arg().into_array_arg();
    // SAFETY: reads stay below `len`; one element is written.
    unsafe {
        let dim = CubeDim::new_1d(units as u32);
        total_kernel::launch_unchecked(client, cubes(client, 1), dim, array(values), array(total), len, units);
    }
}
