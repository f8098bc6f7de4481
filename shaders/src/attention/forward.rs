//! O = drop(softmax(Q K^T scale)) V with an online softmax, and the log-sum-exp of each row.

use cubecl::prelude::*;

use super::{BLOCK, Blueprint, DropoutScalars, KernelDropout, MASKED, Shape, Sizes, add_dot, held, place, word};
use crate::device::{Buffer, cubes};
use crate::philox::{factor, words};

#[cube(launch_unchecked)]
fn forward_kernel<T: Float, N: Size>(
    fused: &Array<Vector<T, N>>,
    o: &mut Array<Vector<T, N>>,
    lse: &mut Array<f32>,
    scratch: &mut Array<Vector<f32, N>>,
    sizes: Sizes,
    dropout: KernelDropout,
    #[comptime] blueprint: Blueprint,
    #[define(T)] _dtype: StorageType,
) {
    let rows = comptime!(blueprint.rows);
    let units = comptime!(blueprint.units);
    let (seq, dims, width) = (sizes.seq, sizes.dims, sizes.width);
    let tiles = seq.div_ceil(rows * units);
    if CUBE_POS >= tiles * sizes.heads * sizes.batch {
        terminate!();
    }
    let here = place(&sizes, tiles);
    let hidden = sizes.heads * dims;
    let first = (here.tile * units + UNIT_POS as usize) * rows;

    let mut own = Array::<usize>::new(rows);
    let mut q_at = Array::<usize>::new(rows);
    let mut high = Array::<f32>::new(rows);
    let mut sum = Array::<f32>::new(rows);
    #[unroll]
    for i in 0..rows {
        own[i] = held(first + i, seq);
        q_at[i] = here.q + own[i] * width;
        high[i] = MASKED;
        sum[i] = 0.0f32;
    }

    // Keys past the last row of this cube are seen by none of them.
    let last = (here.tile + 1) * units * rows;
    let end = select(last < seq, last, seq);
    for block in 0..end.div_ceil(BLOCK) {
        let first_key = block * BLOCK;
        let mut key_row = Array::<usize>::new(BLOCK);
        let mut p = Array::<f32>::new(rows * BLOCK);
        #[unroll]
        for j in 0..BLOCK {
            key_row[j] = held(first_key + j, seq) * width;
        }
        #[unroll]
        for i in 0..rows * BLOCK {
            p[i] = 0.0f32;
        }
        for d in 0..dims {
            let mut q = Array::<Vector<f32, N>>::new(rows);
            #[unroll]
            for i in 0..rows {
                q[i] = Vector::cast_from(fused[q_at[i] + d]);
            }
            #[unroll]
            for j in 0..BLOCK {
                let k = Vector::<f32, N>::cast_from(fused[here.k + key_row[j] + d]);
                #[unroll]
                for i in 0..rows {
                    p[i * BLOCK + j] = add_dot(q[i], k, p[i * BLOCK + j], blueprint.width);
                }
            }
        }

        let mut shrink = Array::<f32>::new(rows);
        #[unroll]
        for i in 0..rows {
            let mut higher = high[i];
            #[unroll]
            for j in 0..BLOCK {
                let at = comptime!(i * BLOCK + j);
                p[at] = select(first_key + j <= first + i, p[at] * sizes.scale, MASKED);
                higher = max(higher, p[at]);
            }
            shrink[i] = f32::exp(high[i] - higher);
            high[i] = higher;
            sum[i] *= shrink[i];
            #[unroll]
            for j in 0..BLOCK {
                let at = comptime!(i * BLOCK + j);
                p[at] = f32::exp(p[at] - higher);
                sum[i] += p[at];
            }
            if comptime!(blueprint.dropout) {
                let position = (first + i) as u32;
                let drawn = words(&dropout, here.sequence as u32, here.head as u32, position, block as u32);
                #[unroll]
                for j in 0..BLOCK {
                    let at = comptime!(i * BLOCK + j);
                    p[at] = p[at] * factor(&dropout, word(&drawn, j / 4), (j % 4) as u32);
                }
            }
        }

        for d in 0..dims {
            let column = here.scratch + d * seq;
            let mut acc = Array::<Vector<f32, N>>::new(rows);
            #[unroll]
            for i in 0..rows {
                // The first block finds nothing there: whatever the memory holds, infinities included, must not count.
                acc[i] = select(block == 0, Vector::new(0.0f32), scratch[column + own[i]] * Vector::new(shrink[i]));
            }
            #[unroll]
            for j in 0..BLOCK {
                let v = Vector::<f32, N>::cast_from(fused[here.v + key_row[j] + d]);
                #[unroll]
                for i in 0..rows {
                    acc[i] = fma(Vector::new(p[i * BLOCK + j]), v, acc[i]);
                }
            }
            #[unroll]
            for i in 0..rows {
                if first + i < seq {
                    scratch[column + own[i]] = acc[i];
                }
            }
        }
    }

    #[unroll]
    for i in 0..rows {
        let position = first + i;
        if position < seq {
            let inverse = 1.0f32 / sum[i];
            for d in 0..dims {
                let value = scratch[here.scratch + d * seq + position] * Vector::new(inverse);
                o[here.o + position * hidden + d] = Vector::cast_from(value);
            }
            lse[here.row * seq + position] = high[i] + f32::ln(sum[i]);
        }
    }
}

/// Attention of the rotated q, k and v in `fused` `[N, W]`: writes `o` `[N, C]` in the same dtype and `lse` `[B * H * T]`
/// fp32 (natural logarithm, of the scaled scores). `scratch` holds N x C fp32 values.
pub fn attention_forward<R: Runtime>(
    client: &ComputeClient<R>,
    shape: Shape,
    dropout: Option<DropoutScalars>,
    fused: Buffer<R>,
    o: Buffer<R>,
    [lse, scratch]: [TensorBinding<R>; 2],
) {
    let blueprint = Blueprint::new(client, &shape, dropout.is_some());
    let count = blueprint.tiles(shape.seq) * shape.heads * shape.batch;
    let dtype = fused.dtype;
    // SAFETY: rows past the sequence are held at its last for reading and not stored; columns are those of q, k and v.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            cubes(client, count),
            CubeDim::new_1d(blueprint.units as u32),
            blueprint.width,
            fused.arg(),
            o.arg(),
            lse.into_tensor_arg().into_array_arg(),
            scratch.into_tensor_arg().into_array_arg(),
            shape.launch(blueprint.width),
            DropoutScalars::launch(dropout),
            blueprint,
            dtype,
        );
    }
}
