//! O = drop(softmax(Q K^T scale)) V with an online softmax, and the log-sum-exp of each row.

use cubecl::prelude::*;

use super::keys::{drop, stage_keys};
use super::tile::{
    Extents, Fragments, Order, Pair, Row, add_times_columns, add_times_rows, narrowed, push_left, stage_rows, zeros,
};
use super::{BLOCK, Blueprint, COLUMNS, DRAWN, KEYS, LANES, ROWS};
use crate::attention::{KernelDropout, MASKED, Sizes, place};

/// `sizes` in vectors of 8. A cube owns `forward_rows` queries of a head.
#[cube(launch_unchecked, fast_math = FastMath::ReducedPrecision | FastMath::NotNaN | FastMath::NotInf)]
pub(crate) fn forward_kernel<T: Float>(
    fused: &Array<Vector<T, Row>>,
    o: &mut Array<Vector<T, Pair>>,
    lse: &mut Array<f32>,
    sizes: Sizes,
    dropout: KernelDropout,
    #[comptime] blueprint: Blueprint,
    #[define(T)] _dtype: StorageType,
) {
    let units = comptime!(blueprint.units());
    let stride = comptime!(blueprint.stride());
    let fragments = comptime!(blueprint.fragments);
    let rows = comptime!(blueprint.forward_rows());
    let steps = comptime!(blueprint.head_dim / ROWS);
    let scores = comptime!(KEYS / COLUMNS);
    let columns = comptime!(blueprint.head_dim / COLUMNS);
    let (seq, width) = (sizes.seq, sizes.width);
    let tiles = seq.div_ceil(rows);
    if CUBE_POS >= tiles * sizes.heads * sizes.batch {
        terminate!();
    }
    let here = place(&sizes, tiles);
    // The last queries have the most keys: they begin first, so that short ones fill the end.
    let first = (tiles - 1 - here.tile) * rows;
    let lane = UNIT_POS_PLANE as usize;
    let (quad, member) = (lane / 4, lane % 4);
    let own = UNIT_POS as usize / LANES * comptime!(fragments * ROWS);

    let mut stage = SharedMemory::<Vector<T, Row>>::new(comptime!(blueprint.stage()));
    stage_rows(fused, here.q, width, first, seq, &mut stage, BLOCK, rows, stride, units, Order::Plain);
    stage_keys(fused, &mut stage, &here, &sizes, 0usize, 0usize, blueprint);
    sync_cube();
    let mut q = Fragments::<T>::new();
    #[unroll]
    for m in 0..fragments {
        push_left(&mut q, &stage, BLOCK + own + comptime!(m * ROWS), steps, stride);
    }

    let mut sums = zeros(comptime!(fragments * columns));
    let mut high = Array::<f32>::new(comptime!(2 * fragments));
    let mut total = Array::<f32>::new(comptime!(2 * fragments));
    #[unroll]
    for i in 0..comptime!(2 * fragments) {
        high[i] = MASKED;
        total[i] = 0.0f32;
    }

    let last = first + rows;
    let end = select(last < seq, last, seq);
    let blocks = end.div_ceil(KEYS);
    for block in 0..blocks {
        let first_key = block * KEYS;
        let staged = block % 2 * BLOCK;
        // This block is there, and nobody reads the other half any more.
        sync_cube();
        if block + 1 < blocks {
            stage_keys(fused, &mut stage, &here, &sizes, first_key + KEYS, BLOCK - staged, blueprint);
        }
        // A plane whose queries all come before the block sees none of its keys.
        if first_key < first + own + comptime!(fragments * ROWS) {
            let mut p = zeros(comptime!(fragments * scores));
            let extents = comptime!(Extents { m: fragments, n: scores, steps, stride });
            add_times_rows(&q, &stage, &mut p, staged, extents);
            #[unroll]
            for m in 0..fragments {
                #[unroll]
                for half in 0..2usize {
                    let row = comptime!(2 * m + half);
                    let query = first + own + comptime!(m * ROWS + half * COLUMNS) + quad;
                    let mut higher = high[row];
                    #[unroll]
                    for j in 0..scores {
                        let product = p.index_mut(comptime!(m * scores + j));
                        let mut pair = product[half];
                        #[unroll]
                        for e in 0..2usize {
                            let seen = first_key + member * DRAWN + comptime!(2 * j + e) <= query;
                            pair[e] = select(seen, pair[e] * sizes.scale, MASKED);
                            higher = max(higher, pair[e]);
                        }
                        product[half] = pair;
                    }
                    higher = max(higher, plane_shuffle_xor(higher, 1));
                    higher = max(higher, plane_shuffle_xor(higher, 2));
                    let shrink = f32::exp(high[row] - higher);
                    high[row] = higher;
                    let mut sum = total[row] * shrink;
                    #[unroll]
                    for n in 0..columns {
                        let acc = sums.index_mut(comptime!(m * columns + n));
                        acc[half] *= Vector::new(shrink);
                    }
                    #[unroll]
                    for j in 0..scores {
                        let product = p.index_mut(comptime!(m * scores + j));
                        let mut pair = product[half];
                        #[unroll]
                        for e in 0..2usize {
                            pair[e] = f32::exp(pair[e] - higher);
                            sum += pair[e];
                        }
                        product[half] = pair;
                    }
                    total[row] = sum;
                    if comptime!(blueprint.dropout) {
                        drop(&mut p, &dropout, &here, query, first_key, comptime!(m * scores), half);
                    }
                }
            }
            let p = narrowed::<T>(&p, comptime!(fragments * scores));
            let extents = comptime!(Extents { m: fragments, n: columns, steps: KEYS / ROWS, stride });
            add_times_columns(&p, &stage, &mut sums, staged + KEYS, extents);
        }
    }

    let hidden = sizes.heads * sizes.dims;
    #[unroll]
    for m in 0..fragments {
        #[unroll]
        for half in 0..2usize {
            let row = comptime!(2 * m + half);
            let query = first + own + comptime!(m * ROWS + half * COLUMNS) + quad;
            let mut sum = total[row];
            sum += plane_shuffle_xor(sum, 1);
            sum += plane_shuffle_xor(sum, 2);
            if query < seq {
                let inverse = Vector::new(1.0f32 / sum);
                #[unroll]
                for n in 0..columns {
                    let acc = sums.index(comptime!(m * columns + n));
                    o[(here.o + query * hidden) * 4 + comptime!(4 * n) + member] =
                        Vector::cast_from(acc[half] * inverse);
                }
                if member == 0 {
                    lse[here.row * seq + query] = high[row] + f32::ln(sum);
                }
            }
        }
    }
}
