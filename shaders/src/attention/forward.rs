//! O = drop(softmax(Q K^T scale)) V with an online softmax, and the log-sum-exp of each row.

use cubecl::prelude::*;

use super::{Blueprint, DropoutScalars, KEYS, KernelDropout, MASKED, Shape, Sizes, held, place, word_of_half};
use crate::device::{Buffer, cubes};
use crate::philox::{factor, words};

#[cube(launch_unchecked)]
fn forward_kernel<T: Float>(
    fused: &Array<T>,
    o: &mut Array<T>,
    lse: &mut Array<f32>,
    sizes: Sizes,
    dropout: KernelDropout,
    #[comptime] blueprint: Blueprint,
    #[define(T)] _dtype: StorageType,
) {
    let dims = comptime!(blueprint.head_dim);
    let rows = comptime!(blueprint.rows);
    let units = comptime!(blueprint.units);
    let seq = sizes.seq;
    let tiles = seq.div_ceil(rows * units);
    if CUBE_POS >= tiles * sizes.heads * sizes.batch {
        terminate!();
    }
    let here = place(&sizes, tiles);
    let hidden = sizes.heads * dims;
    let first = (here.tile * units + UNIT_POS as usize) * rows;
    let q_base = here.sequence * seq * sizes.width + here.head * dims;
    let k_base = q_base + hidden;
    let v_base = k_base + hidden;

    let mut q_at = Array::<usize>::new(rows);
    let mut high = Array::<f32>::new(rows);
    let mut sum = Array::<f32>::new(rows);
    let mut acc = Array::<f32>::new(rows * dims);
    #[unroll]
    for i in 0..rows {
        q_at[i] = q_base + held(first + i, seq) * sizes.width;
        high[i] = MASKED;
        sum[i] = 0.0f32;
    }
    #[unroll]
    for i in 0..rows * dims {
        acc[i] = 0.0f32;
    }

    // The last key that any row of this cube sees.
    let end = select((here.tile + 1) * units * rows < seq, (here.tile + 1) * units * rows, seq);
    for block in 0..end.div_ceil(KEYS) {
        let first_key = block * KEYS;
        let mut key_row = Array::<usize>::new(KEYS);
        let mut p = Array::<f32>::new(rows * KEYS);
        #[unroll]
        for j in 0..KEYS {
            key_row[j] = held(first_key + j, seq) * sizes.width;
        }
        #[unroll]
        for i in 0..rows * KEYS {
            p[i] = 0.0f32;
        }
        for d in 0..dims {
            let mut q = Array::<f32>::new(rows);
            #[unroll]
            for i in 0..rows {
                q[i] = f32::cast_from(fused[q_at[i] + d]);
            }
            #[unroll]
            for j in 0..KEYS {
                let k = f32::cast_from(fused[k_base + key_row[j] + d]);
                #[unroll]
                for i in 0..rows {
                    p[i * KEYS + j] = fma(q[i], k, p[i * KEYS + j]);
                }
            }
        }

        let mut shrink = Array::<f32>::new(rows);
        #[unroll]
        for i in 0..rows {
            let mut higher = high[i];
            #[unroll]
            for j in 0..KEYS {
                p[i * KEYS + j] = select(first_key + j <= first + i, p[i * KEYS + j] * sizes.scale, MASKED);
                higher = max(higher, p[i * KEYS + j]);
            }
            shrink[i] = f32::exp(high[i] - higher);
            high[i] = higher;
            sum[i] *= shrink[i];
            #[unroll]
            for j in 0..KEYS {
                p[i * KEYS + j] = f32::exp(p[i * KEYS + j] - higher);
                sum[i] += p[i * KEYS + j];
            }
            if comptime!(blueprint.dropout) {
                let position = (first + i) as u32;
                let drawn = words(&dropout, here.sequence as u32, here.head as u32, position, (block / 2) as u32);
                #[unroll]
                for half in 0..2usize {
                    let word = word_of_half(&drawn, block, half);
                    #[unroll]
                    for byte in 0..4u32 {
                        let at = comptime!(i * KEYS + half * 4 + byte as usize);
                        p[at] = p[at] * factor(&dropout, word, byte);
                    }
                }
            }
        }

        #[unroll]
        for d in 0..dims {
            let mut v = Array::<f32>::new(KEYS);
            #[unroll]
            for j in 0..KEYS {
                v[j] = f32::cast_from(fused[v_base + key_row[j] + d]);
            }
            #[unroll]
            for i in 0..rows {
                let mut value = acc[i * dims + d] * shrink[i];
                #[unroll]
                for j in 0..KEYS {
                    value = fma(p[i * KEYS + j], v[j], value);
                }
                acc[i * dims + d] = value;
            }
        }
    }

    #[unroll]
    for i in 0..rows {
        let position = first + i;
        if position < seq {
            let inverse = 1.0f32 / sum[i];
            let out = (here.sequence * seq + position) * hidden + here.head * dims;
            #[unroll]
            for d in 0..dims {
                o[out + d] = T::cast_from(acc[i * dims + d] * inverse);
            }
            lse[(here.sequence * sizes.heads + here.head) * seq + position] = high[i] + f32::ln(sum[i]);
        }
    }
}

/// Attention of the rotated q, k and v in `fused` `[N, W]`: writes `o` `[N, C]` in the same dtype and `lse` `[B * H * T]`
/// fp32 (natural logarithm, of the scaled scores).
pub fn attention_forward<R: Runtime>(
    client: &ComputeClient<R>,
    shape: Shape,
    dropout: Option<DropoutScalars>,
    fused: Buffer<R>,
    o: Buffer<R>,
    lse: TensorBinding<R>,
) {
    let blueprint = Blueprint::new(client, shape.head_dim, dropout.is_some());
    let count = blueprint.tiles(shape.seq) * shape.heads * shape.batch;
    let dtype = fused.dtype;
    // SAFETY: rows past the sequence are held at its last for reading and not stored; columns are those of q, k and v.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            cubes(client, count),
            CubeDim::new_1d(blueprint.units as u32),
            fused.arg(),
            o.arg(),
            lse.into_tensor_arg().into_array_arg(),
            shape.launch(),
            DropoutScalars::launch(dropout),
            blueprint,
            dtype,
        );
    }
}
