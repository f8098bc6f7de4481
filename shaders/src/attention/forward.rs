//! O = drop(softmax(Q K^T scale)) V with an online softmax, and the log-sum-exp of each row.

use cubecl::prelude::*;

#[cfg(all(feature = "cuda", not(target_os = "macos")))]
use super::cuda;
use super::{
    Blueprint, DropoutScalars, KernelDropout, MASKED, Pass, Shape, Sizes, add_dot, drop_row, place, tensor_cores,
};
use crate::device::{Buffer, cubes};
use crate::elementwise::within;
use crate::packed::{packed, unpacked};

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn forward_kernel<T: Numeric, NT: Size, O: Float, N: Size, S: Numeric, NS: Size>(
    fused: &Array<Vector<T, NT>>,
    o: &mut Array<Vector<O, N>>,
    lse: &mut Array<f32>,
    scratch: &mut Array<Vector<S, NS>>,
    sizes: Sizes,
    dropout: KernelDropout,
    #[comptime] blueprint: Blueprint,
    #[define(T, O, S)] _dtypes: [StorageType; 3],
) {
    let rows = comptime!(blueprint.rows);
    let units = comptime!(blueprint.units);
    let span = comptime!(blueprint.block);
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
        own[i] = within(first + i, seq);
        q_at[i] = here.q + own[i] * width;
        high[i] = MASKED;
        sum[i] = 0.0f32;
    }

    // Keys past the last row of this cube are seen by none of them.
    let last = (here.tile + 1) * units * rows;
    let end = select(last < seq, last, seq);
    for block in 0..end.div_ceil(span) {
        let first_key = block * span;
        let mut key_row = Array::<usize>::new(span);
        let mut p = Array::<f32>::new(rows * span);
        #[unroll]
        for j in 0..span {
            key_row[j] = within(first_key + j, seq) * width;
        }
        #[unroll]
        for i in 0..rows * span {
            p[i] = 0.0f32;
        }
        for d in 0..dims {
            let mut q = Array::<Vector<f32, N>>::new(rows);
            #[unroll]
            for i in 0..rows {
                q[i] = unpacked::<T, NT, N>(fused[q_at[i] + d], blueprint.fused.packed);
            }
            #[unroll]
            for j in 0..span {
                let k = unpacked::<T, NT, N>(fused[here.k + key_row[j] + d], blueprint.fused.packed);
                #[unroll]
                for i in 0..rows {
                    p[i * span + j] = add_dot(q[i], k, p[i * span + j], blueprint.width);
                }
            }
        }

        let mut shrink = Array::<f32>::new(rows);
        #[unroll]
        for i in 0..rows {
            let mut higher = high[i];
            #[unroll]
            for j in 0..span {
                let at = comptime!(i * span + j);
                p[at] = select(first_key + j <= first + i, p[at] * sizes.scale, MASKED);
                higher = max(higher, p[at]);
            }
            shrink[i] = f32::exp(high[i] - higher);
            high[i] = higher;
            sum[i] *= shrink[i];
            #[unroll]
            for j in 0..span {
                let at = comptime!(i * span + j);
                p[at] = f32::exp(p[at] - higher);
                sum[i] += p[at];
            }
            if comptime!(blueprint.dropout) {
                drop_row(&mut p, &dropout, &here, first + i, first_key, comptime!(i * span), span);
            }
        }

        for d in 0..dims {
            let column = here.scratch + d * seq;
            let mut acc = Array::<Vector<f32, N>>::new(rows);
            #[unroll]
            for i in 0..rows {
                // The first block finds nothing there: whatever the memory holds, infinities included, must not count.
                let before = unpacked::<S, NS, N>(scratch[column + own[i]], blueprint.scratch.packed);
                acc[i] = select(block == 0, Vector::new(0.0f32), before * Vector::new(shrink[i]));
            }
            #[unroll]
            for j in 0..span {
                let v = unpacked::<T, NT, N>(fused[here.v + key_row[j] + d], blueprint.fused.packed);
                #[unroll]
                for i in 0..rows {
                    acc[i] = fma(Vector::new(p[i * span + j]), v, acc[i]);
                }
            }
            #[unroll]
            for i in 0..rows {
                if first + i < seq {
                    scratch[column + own[i]] = packed::<S, NS, N>(acc[i], blueprint.scratch.packed);
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
                let at = here.scratch + d * seq + position;
                let value = unpacked::<S, NS, N>(scratch[at], blueprint.scratch.packed);
                o[here.o + position * hidden + d] = Vector::cast_from(value * Vector::new(inverse));
            }
            lse[here.row * seq + position] = high[i] + f32::ln(sum[i]);
        }
    }
}

/// Attention of the rotated q, k and v in `fused` `[N, W]`: writes `o` `[N, C]` in the same dtype and `lse` `[B * H * T]`
/// fp32 (natural logarithm, of the scaled scores). `scratch` holds `scratch_len` values.
pub fn attention_forward<R: Runtime>(
    client: &ComputeClient<R>,
    shape: Shape,
    dropout: Option<DropoutScalars>,
    fused: Buffer<R>,
    o: Buffer<R>,
    [lse, scratch]: [TensorBinding<R>; 2],
) {
    let array = |binding: TensorBinding<R>| binding.into_tensor_arg().into_array_arg();
    #[cfg(all(feature = "cuda", not(target_os = "macos")))]
    if cuda::forward(client, shape, dropout, &fused, &o, &lse) {
        return;
    }
    if let Some(blueprint) =
        tensor_cores::Blueprint::new(client, &shape, dropout.is_some(), Pass::Forward, &[fused.dtype, o.dtype])
    {
        let count = shape.seq.div_ceil(blueprint.forward_rows()) * shape.heads * shape.batch;
        // SAFETY: as below.
        return unsafe {
            tensor_cores::forward_kernel::launch_unchecked(
                client,
                cubes(client, count),
                CubeDim::new_1d(blueprint.units() as u32),
                array(fused.binding),
                array(o.binding),
                array(lse),
                shape.launch(8),
                DropoutScalars::launch(dropout),
                blueprint,
                fused.dtype,
            )
        };
    }
    let blueprint = Blueprint::new(client, &shape, dropout.is_some(), Pass::Forward, [fused.dtype, o.dtype]);
    let count = blueprint.tiles(shape.seq) * shape.heads * shape.batch;
    let dtypes = [blueprint.fused.dtype, o.dtype, blueprint.scratch.dtype];
    // SAFETY: rows past the sequence are held at its last for reading and not stored; columns are those of q, k and v.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            cubes(client, count),
            CubeDim::new_1d(blueprint.units as u32),
            blueprint.fused.components,
            blueprint.width,
            blueprint.scratch.components,
            fused.arg(),
            o.arg(),
            array(lse),
            array(scratch),
            shape.launch(blueprint.width),
            DropoutScalars::launch(dropout),
            blueprint,
            dtypes,
        );
    }
}
