//! FlashAttention-2's backward (Dao 2023, algorithm 2) in three launches: delta, then dq by query, then dk and dv by key.
//!
//! With M the dropout factors and P the probabilities: delta = rowsum(dO . O), dS = P . (M . dO V^T - delta) scale,
//! dQ = dS K, dK = dS^T Q, dV = (P . M)^T dO. The scores are computed once for dq and once for dk and dv: two passes
//! cost a third more products than one that adds to dq with atomics, whose sums would differ from run to run.

use cubecl::prelude::*;

use super::{
    Blueprint, DropoutScalars, KEYS, KernelDropout, QUERIES, Shape, Sizes, held, place, word_of_half, word_of_key,
};
use crate::device::{Buffer, cubes};
use crate::philox::{factor, words};

const DELTA_UNITS: usize = 32;

/// delta[sequence, head, position] = rowsum(dO . O).
#[cube(launch_unchecked)]
fn delta_kernel<G: Float, T: Float>(
    d_o: &Array<G>,
    o: &Array<T>,
    delta: &mut Array<f32>,
    sizes: Sizes,
    #[comptime] dims: usize,
    #[define(G, T)] _dtypes: [StorageType; 2],
) {
    let at = CUBE_POS * (CUBE_DIM as usize) + UNIT_POS as usize;
    if at >= sizes.batch * sizes.heads * sizes.seq {
        terminate!();
    }
    let position = at % sizes.seq;
    let head = at / sizes.seq % sizes.heads;
    let sequence = at / sizes.seq / sizes.heads;
    let start = ((sequence * sizes.seq + position) * sizes.heads + head) * dims;
    let mut sum = 0.0f32;
    for d in 0..dims {
        sum += f32::cast_from(d_o[start + d]) * f32::cast_from(o[start + d]);
    }
    delta[at] = sum;
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn dq_kernel<T: Float, G: Float, O: Float>(
    fused: &Array<T>,
    d_o: &Array<G>,
    lse: &Array<f32>,
    delta: &Array<f32>,
    into: &mut Array<O>,
    sizes: Sizes,
    dropout: KernelDropout,
    #[comptime] blueprint: Blueprint,
    #[define(T, G, O)] _dtypes: [StorageType; 3],
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
    let o_base = here.sequence * seq * hidden + here.head * dims;
    let row_base = (here.sequence * sizes.heads + here.head) * seq;

    let mut q_at = Array::<usize>::new(rows);
    let mut o_at = Array::<usize>::new(rows);
    let mut row_lse = Array::<f32>::new(rows);
    let mut row_delta = Array::<f32>::new(rows);
    let mut acc = Array::<f32>::new(rows * dims);
    #[unroll]
    for i in 0..rows {
        let row = held(first + i, seq);
        q_at[i] = q_base + row * sizes.width;
        o_at[i] = o_base + row * hidden;
        row_lse[i] = lse[row_base + row];
        row_delta[i] = delta[row_base + row];
    }
    #[unroll]
    for i in 0..rows * dims {
        acc[i] = 0.0f32;
    }

    let end = select((here.tile + 1) * units * rows < seq, (here.tile + 1) * units * rows, seq);
    for block in 0..end.div_ceil(KEYS) {
        let first_key = block * KEYS;
        let mut key_row = Array::<usize>::new(KEYS);
        let mut ds = Array::<f32>::new(rows * KEYS);
        let mut dp = Array::<f32>::new(rows * KEYS);
        #[unroll]
        for j in 0..KEYS {
            key_row[j] = held(first_key + j, seq) * sizes.width;
        }
        #[unroll]
        for i in 0..rows * KEYS {
            ds[i] = 0.0f32;
            dp[i] = 0.0f32;
        }
        for d in 0..dims {
            let mut q = Array::<f32>::new(rows);
            let mut g = Array::<f32>::new(rows);
            #[unroll]
            for i in 0..rows {
                q[i] = f32::cast_from(fused[q_at[i] + d]);
                g[i] = f32::cast_from(d_o[o_at[i] + d]);
            }
            #[unroll]
            for j in 0..KEYS {
                let k = f32::cast_from(fused[k_base + key_row[j] + d]);
                let v = f32::cast_from(fused[v_base + key_row[j] + d]);
                #[unroll]
                for i in 0..rows {
                    ds[i * KEYS + j] = fma(q[i], k, ds[i * KEYS + j]);
                    dp[i * KEYS + j] = fma(g[i], v, dp[i * KEYS + j]);
                }
            }
        }

        #[unroll]
        for i in 0..rows {
            if comptime!(blueprint.dropout) {
                let position = (first + i) as u32;
                let drawn = words(&dropout, here.sequence as u32, here.head as u32, position, (block / 2) as u32);
                #[unroll]
                for half in 0..2usize {
                    let word = word_of_half(&drawn, block, half);
                    #[unroll]
                    for byte in 0..4u32 {
                        let at = comptime!(i * KEYS + half * 4 + byte as usize);
                        dp[at] = dp[at] * factor(&dropout, word, byte);
                    }
                }
            }
            #[unroll]
            for j in 0..KEYS {
                let at = comptime!(i * KEYS + j);
                let p = f32::exp(ds[at] * sizes.scale - row_lse[i]);
                ds[at] = select(first_key + j <= first + i, p * (dp[at] - row_delta[i]) * sizes.scale, 0.0f32);
            }
        }

        #[unroll]
        for d in 0..dims {
            let mut k = Array::<f32>::new(KEYS);
            #[unroll]
            for j in 0..KEYS {
                k[j] = f32::cast_from(fused[k_base + key_row[j] + d]);
            }
            #[unroll]
            for i in 0..rows {
                let mut value = acc[i * dims + d];
                #[unroll]
                for j in 0..KEYS {
                    value = fma(ds[i * KEYS + j], k[j], value);
                }
                acc[i * dims + d] = value;
            }
        }
    }

    #[unroll]
    for i in 0..rows {
        if first + i < seq {
            #[unroll]
            for d in 0..dims {
                into[q_at[i] + d] = O::cast_from(acc[i * dims + d]);
            }
        }
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn dk_dv_kernel<T: Float, G: Float, O: Float>(
    fused: &Array<T>,
    d_o: &Array<G>,
    lse: &Array<f32>,
    delta: &Array<f32>,
    into: &mut Array<O>,
    sizes: Sizes,
    dropout: KernelDropout,
    #[comptime] blueprint: Blueprint,
    #[define(T, G, O)] _dtypes: [StorageType; 3],
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
    // The first of this unit's keys.
    let first = (here.tile * units + UNIT_POS as usize) * rows;
    let q_base = here.sequence * seq * sizes.width + here.head * dims;
    let o_base = here.sequence * seq * hidden + here.head * dims;
    let row_base = (here.sequence * sizes.heads + here.head) * seq;

    let mut k_at = Array::<usize>::new(rows);
    let mut dk = Array::<f32>::new(rows * dims);
    let mut dv = Array::<f32>::new(rows * dims);
    #[unroll]
    for j in 0..rows {
        k_at[j] = q_base + hidden + held(first + j, seq) * sizes.width;
    }
    #[unroll]
    for i in 0..rows * dims {
        dk[i] = 0.0f32;
        dv[i] = 0.0f32;
    }

    // Queries before the cube's first key see none of its keys.
    let first_block = here.tile * units * rows / QUERIES;
    for block in first_block..seq.div_ceil(QUERIES) {
        let first_query = block * QUERIES;
        let mut q_at = Array::<usize>::new(QUERIES);
        let mut o_at = Array::<usize>::new(QUERIES);
        let mut ds = Array::<f32>::new(QUERIES * rows);
        let mut dp = Array::<f32>::new(QUERIES * rows);
        #[unroll]
        for i in 0..QUERIES {
            let row = held(first_query + i, seq);
            q_at[i] = q_base + row * sizes.width;
            o_at[i] = o_base + row * hidden;
        }
        #[unroll]
        for i in 0..QUERIES * rows {
            ds[i] = 0.0f32;
            dp[i] = 0.0f32;
        }
        for d in 0..dims {
            let mut k = Array::<f32>::new(rows);
            let mut v = Array::<f32>::new(rows);
            #[unroll]
            for j in 0..rows {
                k[j] = f32::cast_from(fused[k_at[j] + d]);
                v[j] = f32::cast_from(fused[k_at[j] + hidden + d]);
            }
            #[unroll]
            for i in 0..QUERIES {
                let q = f32::cast_from(fused[q_at[i] + d]);
                let g = f32::cast_from(d_o[o_at[i] + d]);
                #[unroll]
                for j in 0..rows {
                    ds[i * rows + j] = fma(q, k[j], ds[i * rows + j]);
                    dp[i * rows + j] = fma(g, v[j], dp[i * rows + j]);
                }
            }
        }

        // dp becomes P . M (what multiplies dO), ds the gradient of the scores.
        #[unroll]
        for i in 0..QUERIES {
            let query = first_query + i;
            let row = row_base + held(query, seq);
            let query_lse = lse[row];
            let query_delta = delta[row];
            let mut word = 0u32;
            if comptime!(blueprint.dropout) {
                let drawn = words(&dropout, here.sequence as u32, here.head as u32, query as u32, (first / 16) as u32);
                word = word_of_key(&drawn, first);
            }
            #[unroll]
            for j in 0..rows {
                let at = comptime!(i * rows + j);
                let seen = query < seq && first + j <= query;
                let p = select(seen, f32::exp(ds[at] * sizes.scale - query_lse), 0.0f32);
                let mut kept = 1.0f32;
                if comptime!(blueprint.dropout) {
                    kept = factor(&dropout, word, (first % 4 + j) as u32);
                }
                ds[at] = p * (dp[at] * kept - query_delta) * sizes.scale;
                dp[at] = p * kept;
            }
        }

        #[unroll]
        for d in 0..dims {
            #[unroll]
            for i in 0..QUERIES {
                let q = f32::cast_from(fused[q_at[i] + d]);
                let g = f32::cast_from(d_o[o_at[i] + d]);
                #[unroll]
                for j in 0..rows {
                    dk[j * dims + d] = fma(ds[i * rows + j], q, dk[j * dims + d]);
                    dv[j * dims + d] = fma(dp[i * rows + j], g, dv[j * dims + d]);
                }
            }
        }
    }

    #[unroll]
    for j in 0..rows {
        if first + j < seq {
            #[unroll]
            for d in 0..dims {
                into[k_at[j] + d] = O::cast_from(dk[j * dims + d]);
                into[k_at[j] + hidden + d] = O::cast_from(dv[j * dims + d]);
            }
        }
    }
}

/// What backward reads and writes.
pub struct Gradients<R: Runtime> {
    /// `[N, C]`.
    pub d_o: Buffer<R>,
    /// `[N, W]`.
    pub fused: Buffer<R>,
    /// `[N, C]`: forward's output.
    pub o: Buffer<R>,
    /// `[B * H * T]` fp32: forward's log-sum-exp.
    pub lse: TensorBinding<R>,
    /// `[B * H * T]` fp32, scratch.
    pub delta: TensorBinding<R>,
    /// `[N, W]`: columns `..3C` are written.
    pub into: Buffer<R>,
}

/// Writes the gradients of q, k and v into columns `..3C` of `into`.
pub fn attention_backward<R: Runtime>(
    client: &ComputeClient<R>,
    shape: Shape,
    dropout: Option<DropoutScalars>,
    gradients: Gradients<R>,
) {
    let Gradients { d_o, fused, o, lse, delta, into } = gradients;
    let blueprint = Blueprint::new(client, shape.head_dim, dropout.is_some());
    let array = |binding: &TensorBinding<R>| binding.clone().into_tensor_arg().into_array_arg();
    let rows = shape.batch * shape.heads * shape.seq;
    let count = cubes(client, blueprint.tiles(shape.seq) * shape.heads * shape.batch);
    let dim = CubeDim::new_1d(blueprint.units as u32);
    let dtypes = [fused.dtype, d_o.dtype, into.dtype];
    // SAFETY: as in forward; `into` has the shape of `fused`, and each unit writes its own rows and head only.
    unsafe {
        delta_kernel::launch_unchecked(
            client,
            cubes(client, rows.div_ceil(DELTA_UNITS)),
            CubeDim::new_1d(DELTA_UNITS as u32),
            array(&d_o.binding),
            array(&o.binding),
            array(&delta),
            shape.launch(),
            shape.head_dim,
            [d_o.dtype, o.dtype],
        );
        dq_kernel::launch_unchecked(
            client,
            count.clone(),
            dim,
            array(&fused.binding),
            array(&d_o.binding),
            array(&lse),
            array(&delta),
            array(&into.binding),
            shape.launch(),
            DropoutScalars::launch(dropout),
            blueprint,
            dtypes,
        );
        dk_dv_kernel::launch_unchecked(
            client,
            count,
            dim,
            array(&fused.binding),
            array(&d_o.binding),
            array(&lse),
            array(&delta),
            array(&into.binding),
            shape.launch(),
            DropoutScalars::launch(dropout),
            blueprint,
            dtypes,
        );
    }
}
