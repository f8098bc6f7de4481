//! dQ = dS K by query, with dS = P . (M . dO V^T - delta) scale.

use cubecl::prelude::*;

use super::keys::{drop, stage_keys};
use super::tile::{
    Extents, Fragments, Order, Pair, Row, add_times_columns, add_times_rows, narrowed, push_left, stage_rows, zeros,
};
use super::{BLOCK, Blueprint, COLUMNS, DRAWN, KEYS, LANES, ROWS};
use crate::attention::{KernelDropout, Sizes, place};
use crate::elementwise::within;

/// `sizes` in vectors of 8. A cube owns `backward_rows` queries of a head.
#[cube(launch_unchecked, fast_math = FastMath::ReducedPrecision | FastMath::NotNaN | FastMath::NotInf)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn dq_kernel<T: Float>(
    fused: &Array<Vector<T, Row>>,
    d_o: &Array<Vector<T, Row>>,
    lse: &Array<f32>,
    delta: &Array<f32>,
    into: &mut Array<Vector<T, Pair>>,
    sizes: Sizes,
    dropout: KernelDropout,
    #[comptime] blueprint: Blueprint,
    #[define(T)] _dtype: StorageType,
) {
    let units = comptime!(blueprint.units());
    let stride = comptime!(blueprint.stride());
    let rows = comptime!(blueprint.backward_rows());
    let steps = comptime!(blueprint.head_dim / ROWS);
    let scores = comptime!(KEYS / COLUMNS);
    let columns = comptime!(blueprint.head_dim / COLUMNS);
    let (seq, width) = (sizes.seq, sizes.width);
    let hidden = sizes.heads * sizes.dims;
    let tiles = seq.div_ceil(rows);
    if CUBE_POS >= tiles * sizes.heads * sizes.batch {
        terminate!();
    }
    let here = place(&sizes, tiles);
    // As in forward, the longest begin first.
    let first = (tiles - 1 - here.tile) * rows;
    let lane = UNIT_POS_PLANE as usize;
    let (quad, member) = (lane / 4, lane % 4);
    let own = UNIT_POS as usize / LANES * ROWS;

    let mut stage = SharedMemory::<Vector<T, Row>>::new(comptime!(blueprint.stage()));
    stage_rows(fused, here.q, width, first, seq, &mut stage, BLOCK, rows, stride, units, Order::Plain);
    stage_rows(d_o, here.o, hidden, first, seq, &mut stage, BLOCK + KEYS, rows, stride, units, Order::Plain);
    stage_keys(fused, &mut stage, &here, &sizes, 0usize, 0usize, blueprint);
    sync_cube();
    let mut q = Fragments::<T>::new();
    let mut g = Fragments::<T>::new();
    push_left(&mut q, &stage, BLOCK + own, steps, stride);
    push_left(&mut g, &stage, BLOCK + KEYS + own, steps, stride);
    let mut row_lse = Array::<f32>::new(2usize);
    let mut row_delta = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        let at = here.row * seq + within(first + own + comptime!(half * COLUMNS) + quad, seq);
        row_lse[half] = lse[at];
        row_delta[half] = delta[at];
    }

    let mut dq = zeros(columns);
    let last = first + rows;
    let end = select(last < seq, last, seq);
    let blocks = end.div_ceil(KEYS);
    for block in 0..blocks {
        let first_key = block * KEYS;
        let staged = block % 2 * BLOCK;
        sync_cube();
        if block + 1 < blocks {
            stage_keys(fused, &mut stage, &here, &sizes, first_key + KEYS, BLOCK - staged, blueprint);
        }
        if first_key < first + own + ROWS {
            let extents = comptime!(Extents { m: 1, n: scores, steps, stride });
            let mut ds = zeros(scores);
            let mut dp = zeros(scores);
            add_times_rows(&q, &stage, &mut ds, staged, extents);
            add_times_rows(&g, &stage, &mut dp, staged + KEYS, extents);
            #[unroll]
            for half in 0..2usize {
                let query = first + own + comptime!(half * COLUMNS) + quad;
                if comptime!(blueprint.dropout) {
                    drop(&mut dp, &dropout, &here, query, first_key, 0usize, half);
                }
                #[unroll]
                for j in 0..scores {
                    let gradient = dp.index(j);
                    let product = ds.index_mut(j);
                    let d = gradient[half];
                    let mut pair = product[half];
                    #[unroll]
                    for e in 0..2usize {
                        let seen = first_key + member * DRAWN + comptime!(2 * j + e) <= query;
                        let p = f32::exp(pair[e] * sizes.scale - row_lse[half]);
                        pair[e] = select(seen, p * (d[e] - row_delta[half]) * sizes.scale, 0.0f32);
                    }
                    product[half] = pair;
                }
            }
            let ds = narrowed::<T>(&ds, scores);
            let extents = comptime!(Extents { m: 1, n: columns, steps: KEYS / ROWS, stride });
            add_times_columns(&ds, &stage, &mut dq, staged, extents);
        }
    }

    #[unroll]
    for half in 0..2usize {
        let query = first + own + comptime!(half * COLUMNS) + quad;
        if query < seq {
            #[unroll]
            for n in 0..columns {
                let sum = dq.index(n);
                into[(here.q + query * width) * 4 + comptime!(4 * n) + member] = Vector::cast_from(sum[half]);
            }
        }
    }
}
