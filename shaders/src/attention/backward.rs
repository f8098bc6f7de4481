//! FlashAttention-2's backward (Dao 2023, algorithm 2) in three launches: delta, then dq by query, then dk and dv by key.
//!
//! With M the dropout factors and P the probabilities: delta = rowsum(dO . O), dS = P . (M . dO V^T - delta) scale,
//! dQ = dS K, dK = dS^T Q, dV = (P . M)^T dO. The scores are computed once for dq and once for dk and dv: two passes
//! cost a third more products than one that adds to dq with atomics, whose sums would differ from run to run.

use cubecl::prelude::*;

#[cfg(all(feature = "cuda", not(target_os = "macos")))]
use super::cuda;
use super::{
    Blueprint, DRAWN, DropoutScalars, Gradients, KernelDropout, Pass, Shape, Sizes, add_dot, drop_row, place,
    tensor_cores, word,
};
use crate::device::cubes;
use crate::elementwise::{width, within};
use crate::packed::{packed, unpacked};
use crate::philox::{factor, words};

const DELTA_UNITS: usize = 32;

/// delta[sequence, head, position] = rowsum(dO . O).
#[cube(launch_unchecked)]
fn delta_kernel<G: Float, T: Float, N: Size>(
    d_o: &Array<Vector<G, N>>,
    o: &Array<Vector<T, N>>,
    delta: &mut Array<f32>,
    sizes: Sizes,
    #[comptime] width: usize,
    #[define(G, T)] _dtypes: [StorageType; 2],
) {
    let at = CUBE_POS * (CUBE_DIM as usize) + UNIT_POS as usize;
    if at >= sizes.batch * sizes.heads * sizes.seq {
        terminate!();
    }
    let dims = sizes.dims;
    let position = at % sizes.seq;
    let head = at / sizes.seq % sizes.heads;
    let sequence = at / sizes.seq / sizes.heads;
    let start = ((sequence * sizes.seq + position) * sizes.heads + head) * dims;
    let mut sum = 0.0f32;
    for d in 0..dims {
        sum = add_dot(Vector::<f32, N>::cast_from(d_o[start + d]), Vector::cast_from(o[start + d]), sum, width);
    }
    delta[at] = sum;
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn dq_kernel<T: Numeric, NT: Size, G: Numeric, NG: Size, S: Numeric, NS: Size, O: Float, N: Size>(
    fused: &Array<Vector<T, NT>>,
    d_o: &Array<Vector<G, NG>>,
    lse: &Array<f32>,
    delta: &Array<f32>,
    scratch: &mut Array<Vector<S, NS>>,
    into: &mut Array<Vector<O, N>>,
    sizes: Sizes,
    dropout: KernelDropout,
    #[comptime] blueprint: Blueprint,
    #[define(T, G, S, O)] _dtypes: [StorageType; 4],
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
    let mut o_at = Array::<usize>::new(rows);
    let mut row_lse = Array::<f32>::new(rows);
    let mut row_delta = Array::<f32>::new(rows);
    #[unroll]
    for i in 0..rows {
        own[i] = within(first + i, seq);
        q_at[i] = here.q + own[i] * width;
        o_at[i] = here.o + own[i] * hidden;
        row_lse[i] = lse[here.row * seq + own[i]];
        row_delta[i] = delta[here.row * seq + own[i]];
    }

    let last = (here.tile + 1) * units * rows;
    let end = select(last < seq, last, seq);
    for block in 0..end.div_ceil(span) {
        let first_key = block * span;
        let mut key_row = Array::<usize>::new(span);
        let mut ds = Array::<f32>::new(rows * span);
        let mut dp = Array::<f32>::new(rows * span);
        #[unroll]
        for j in 0..span {
            key_row[j] = within(first_key + j, seq) * width;
        }
        #[unroll]
        for i in 0..rows * span {
            ds[i] = 0.0f32;
            dp[i] = 0.0f32;
        }
        for d in 0..dims {
            let mut q = Array::<Vector<f32, N>>::new(rows);
            let mut g = Array::<Vector<f32, N>>::new(rows);
            #[unroll]
            for i in 0..rows {
                q[i] = unpacked::<T, NT, N>(fused[q_at[i] + d], blueprint.fused.packed);
                g[i] = unpacked::<G, NG, N>(d_o[o_at[i] + d], blueprint.gradient.packed);
            }
            #[unroll]
            for j in 0..span {
                let k = unpacked::<T, NT, N>(fused[here.k + key_row[j] + d], blueprint.fused.packed);
                let v = unpacked::<T, NT, N>(fused[here.v + key_row[j] + d], blueprint.fused.packed);
                #[unroll]
                for i in 0..rows {
                    ds[i * span + j] = add_dot(q[i], k, ds[i * span + j], blueprint.width);
                    dp[i * span + j] = add_dot(g[i], v, dp[i * span + j], blueprint.width);
                }
            }
        }

        #[unroll]
        for i in 0..rows {
            if comptime!(blueprint.dropout) {
                drop_row(&mut dp, &dropout, &here, first + i, first_key, comptime!(i * span), span);
            }
            #[unroll]
            for j in 0..span {
                let at = comptime!(i * span + j);
                let p = f32::exp(ds[at] * sizes.scale - row_lse[i]);
                ds[at] = select(first_key + j <= first + i, p * (dp[at] - row_delta[i]) * sizes.scale, 0.0f32);
            }
        }

        for d in 0..dims {
            let column = here.scratch + d * seq;
            let mut acc = Array::<Vector<f32, N>>::new(rows);
            #[unroll]
            for i in 0..rows {
                let before = unpacked::<S, NS, N>(scratch[column + own[i]], blueprint.scratch.packed);
                acc[i] = select(block == 0, Vector::new(0.0f32), before);
            }
            #[unroll]
            for j in 0..span {
                let k = unpacked::<T, NT, N>(fused[here.k + key_row[j] + d], blueprint.fused.packed);
                #[unroll]
                for i in 0..rows {
                    acc[i] = fma(Vector::new(ds[i * span + j]), k, acc[i]);
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
        if first + i < seq {
            for d in 0..dims {
                let at = here.scratch + d * seq + own[i];
                into[q_at[i] + d] = Vector::cast_from(unpacked::<S, NS, N>(scratch[at], blueprint.scratch.packed));
            }
        }
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn dk_dv_kernel<T: Numeric, NT: Size, G: Numeric, NG: Size, S: Numeric, NS: Size, O: Float, N: Size>(
    fused: &Array<Vector<T, NT>>,
    d_o: &Array<Vector<G, NG>>,
    lse: &Array<f32>,
    delta: &Array<f32>,
    dk_scratch: &mut Array<Vector<S, NS>>,
    dv_scratch: &mut Array<Vector<S, NS>>,
    into: &mut Array<Vector<O, N>>,
    sizes: Sizes,
    dropout: KernelDropout,
    #[comptime] blueprint: Blueprint,
    #[define(T, G, S, O)] _dtypes: [StorageType; 4],
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
    // The first of this unit's keys.
    let first = (here.tile * units + UNIT_POS as usize) * rows;
    let row_base = here.row * seq;

    let mut own = Array::<usize>::new(rows);
    let mut k_at = Array::<usize>::new(rows);
    #[unroll]
    for j in 0..rows {
        own[j] = within(first + j, seq);
        k_at[j] = here.k + own[j] * width;
    }

    // Queries before the cube's first key see none of its keys.
    let first_block = here.tile * units * rows / span;
    for block in first_block..seq.div_ceil(span) {
        let first_query = block * span;
        let mut q_at = Array::<usize>::new(span);
        let mut o_at = Array::<usize>::new(span);
        let mut ds = Array::<f32>::new(span * rows);
        let mut dp = Array::<f32>::new(span * rows);
        #[unroll]
        for i in 0..span {
            let row = within(first_query + i, seq);
            q_at[i] = here.q + row * width;
            o_at[i] = here.o + row * hidden;
        }
        #[unroll]
        for i in 0..span * rows {
            ds[i] = 0.0f32;
            dp[i] = 0.0f32;
        }
        for d in 0..dims {
            let mut k = Array::<Vector<f32, N>>::new(rows);
            let mut v = Array::<Vector<f32, N>>::new(rows);
            #[unroll]
            for j in 0..rows {
                k[j] = unpacked::<T, NT, N>(fused[k_at[j] + d], blueprint.fused.packed);
                v[j] = unpacked::<T, NT, N>(fused[k_at[j] + hidden + d], blueprint.fused.packed);
            }
            #[unroll]
            for i in 0..span {
                let q = unpacked::<T, NT, N>(fused[q_at[i] + d], blueprint.fused.packed);
                let g = unpacked::<G, NG, N>(d_o[o_at[i] + d], blueprint.gradient.packed);
                #[unroll]
                for j in 0..rows {
                    ds[i * rows + j] = add_dot(q, k[j], ds[i * rows + j], blueprint.width);
                    dp[i * rows + j] = add_dot(g, v[j], dp[i * rows + j], blueprint.width);
                }
            }
        }

        // dp becomes P . M, which multiplies dO; ds the gradient of the scores.
        #[unroll]
        for i in 0..span {
            let query = first_query + i;
            let row = row_base + within(query, seq);
            let query_lse = lse[row];
            let query_delta = delta[row];
            if comptime!(blueprint.dropout) {
                let drawn = words(
                    &dropout,
                    here.sequence as u32,
                    here.head as u32,
                    query as u32,
                    (first / DRAWN) as u32,
                    false,
                );
                #[unroll]
                for j in 0..rows {
                    let at = comptime!(i * rows + j);
                    // Neighbouring keys that start at a multiple of their number are in one call's 16.
                    let key = first % DRAWN + j;
                    let kept = factor(&dropout, word(&drawn, key / 4), (key % 4) as u32);
                    let seen = query < seq && first + j <= query;
                    let p = select(seen, f32::exp(ds[at] * sizes.scale - query_lse), 0.0f32);
                    ds[at] = p * (dp[at] * kept - query_delta) * sizes.scale;
                    dp[at] = p * kept;
                }
            } else {
                #[unroll]
                for j in 0..rows {
                    let at = comptime!(i * rows + j);
                    let seen = query < seq && first + j <= query;
                    let p = select(seen, f32::exp(ds[at] * sizes.scale - query_lse), 0.0f32);
                    ds[at] = p * (dp[at] - query_delta) * sizes.scale;
                    dp[at] = p;
                }
            }
        }

        for d in 0..dims {
            let column = here.scratch + d * seq;
            let mut dk = Array::<Vector<f32, N>>::new(rows);
            let mut dv = Array::<Vector<f32, N>>::new(rows);
            #[unroll]
            for j in 0..rows {
                let dk_before = unpacked::<S, NS, N>(dk_scratch[column + own[j]], blueprint.scratch.packed);
                let dv_before = unpacked::<S, NS, N>(dv_scratch[column + own[j]], blueprint.scratch.packed);
                dk[j] = select(block == first_block, Vector::new(0.0f32), dk_before);
                dv[j] = select(block == first_block, Vector::new(0.0f32), dv_before);
            }
            #[unroll]
            for i in 0..span {
                let q = unpacked::<T, NT, N>(fused[q_at[i] + d], blueprint.fused.packed);
                let g = unpacked::<G, NG, N>(d_o[o_at[i] + d], blueprint.gradient.packed);
                #[unroll]
                for j in 0..rows {
                    dk[j] = fma(Vector::new(ds[i * rows + j]), q, dk[j]);
                    dv[j] = fma(Vector::new(dp[i * rows + j]), g, dv[j]);
                }
            }
            #[unroll]
            for j in 0..rows {
                if first + j < seq {
                    dk_scratch[column + own[j]] = packed::<S, NS, N>(dk[j], blueprint.scratch.packed);
                    dv_scratch[column + own[j]] = packed::<S, NS, N>(dv[j], blueprint.scratch.packed);
                }
            }
        }
    }

    #[unroll]
    for j in 0..rows {
        if first + j < seq {
            for d in 0..dims {
                let at = here.scratch + d * seq + own[j];
                let dk = unpacked::<S, NS, N>(dk_scratch[at], blueprint.scratch.packed);
                let dv = unpacked::<S, NS, N>(dv_scratch[at], blueprint.scratch.packed);
                into[k_at[j] + d] = Vector::cast_from(dk);
                into[k_at[j] + hidden + d] = Vector::cast_from(dv);
            }
        }
    }
}

/// Writes the gradients of q, k and v into columns `..3C` of `into`. Returns whether they were taken through the projection.
pub fn attention_backward<R: Runtime>(
    client: &ComputeClient<R>,
    shape: Shape,
    dropout: Option<DropoutScalars>,
    gradients: Gradients<R>,
) -> bool {
    #[cfg(all(feature = "cuda", not(target_os = "macos")))]
    if cuda::backward(client, shape, dropout, &gradients) {
        return gradients.projection.is_some();
    }
    let array = |binding: &TensorBinding<R>| binding.clone().into_tensor_arg().into_array_arg();
    let Gradients { d_o, o, delta, .. } = &gradients;
    let by = width(&[shape.head_dim]);
    // SAFETY: a unit past the last row ends before it reads or writes.
    unsafe {
        delta_kernel::launch_unchecked(
            client,
            cubes(client, (shape.batch * shape.heads * shape.seq).div_ceil(DELTA_UNITS)),
            CubeDim::new_1d(DELTA_UNITS as u32),
            by,
            array(&d_o.binding),
            array(&o.binding),
            array(delta),
            shape.launch(by),
            by,
            [d_o.dtype, o.dtype],
        );
    }
    let dtypes = [gradients.fused.dtype, gradients.d_o.dtype, gradients.into.dtype];
    match tensor_cores::Blueprint::new(client, &shape, dropout.is_some(), Pass::Backward, &dtypes) {
        Some(blueprint) => on_tensor_cores(client, shape, dropout, gradients, blueprint),
        None => on_units(client, shape, dropout, gradients),
    }
    false
}

fn on_tensor_cores<R: Runtime>(
    client: &ComputeClient<R>,
    shape: Shape,
    dropout: Option<DropoutScalars>,
    gradients: Gradients<R>,
    blueprint: tensor_cores::Blueprint,
) {
    let Gradients { d_o, fused, lse, delta, into, .. } = gradients;
    let array = |binding: &TensorBinding<R>| binding.clone().into_tensor_arg().into_array_arg();
    let count = cubes(client, shape.seq.div_ceil(blueprint.backward_rows()) * shape.heads * shape.batch);
    let dim = CubeDim::new_1d(blueprint.units() as u32);
    // SAFETY: as in forward; `into` has the shape of `fused`, and each unit writes its own rows and head only.
    unsafe {
        tensor_cores::dq_kernel::launch_unchecked(
            client,
            count.clone(),
            dim,
            array(&fused.binding),
            array(&d_o.binding),
            array(&lse),
            array(&delta),
            array(&into.binding),
            shape.launch(8),
            DropoutScalars::launch(dropout),
            blueprint,
            fused.dtype,
        );
        tensor_cores::dk_dv_kernel::launch_unchecked(
            client,
            count,
            dim,
            array(&fused.binding),
            array(&d_o.binding),
            array(&lse),
            array(&delta),
            array(&into.binding),
            shape.launch(8),
            DropoutScalars::launch(dropout),
            blueprint,
            fused.dtype,
        );
    }
}

fn on_units<R: Runtime>(
    client: &ComputeClient<R>,
    shape: Shape,
    dropout: Option<DropoutScalars>,
    gradients: Gradients<R>,
) {
    let Gradients { d_o, fused, lse, delta, scratch, into, .. } = gradients;
    let blueprint = Blueprint::new(client, &shape, dropout.is_some(), Pass::Backward, [fused.dtype, d_o.dtype]);
    let array = |binding: &TensorBinding<R>| binding.clone().into_tensor_arg().into_array_arg();
    let count = cubes(client, blueprint.tiles(shape.seq) * shape.heads * shape.batch);
    let dim = CubeDim::new_1d(blueprint.units as u32);
    let dtypes = [blueprint.fused.dtype, blueprint.gradient.dtype, blueprint.scratch.dtype, into.dtype];
    // SAFETY: as in forward; `into` has the shape of `fused`, and each unit writes its own rows and head only.
    unsafe {
        dq_kernel::launch_unchecked(
            client,
            count.clone(),
            dim,
            blueprint.fused.components,
            blueprint.gradient.components,
            blueprint.scratch.components,
            blueprint.width,
            array(&fused.binding),
            array(&d_o.binding),
            array(&lse),
            array(&delta),
            array(&scratch[0]),
            array(&into.binding),
            shape.launch(blueprint.width),
            DropoutScalars::launch(dropout),
            blueprint,
            dtypes,
        );
        dk_dv_kernel::launch_unchecked(
            client,
            count,
            dim,
            blueprint.fused.components,
            blueprint.gradient.components,
            blueprint.scratch.components,
            blueprint.width,
            array(&fused.binding),
            array(&d_o.binding),
            array(&lse),
            array(&delta),
            array(&scratch[0]),
            array(&scratch[1]),
            array(&into.binding),
            shape.launch(blueprint.width),
            DropoutScalars::launch(dropout),
            blueprint,
            dtypes,
        );
    }
}
