//! dK = dS^T Q and dV = (P . M)^T dO by key.
//!
//! The products are those of the transposed scores, K Q^T, so that P^T and dS^T are left sides as they stand. A lane then
//! has two keys of many queries, and eight lanes share a query's Philox call: the plane's lanes make them, one or two
//! each, and pass the words on through shared memory.

use cubecl::prelude::*;

use super::tile::{
    Extents, Fragments, Order, Pair, Row, add_times_columns, add_times_rows, narrowed, push_left, stage_rows, zeros,
};
use super::{BLOCK, Blueprint, COLUMNS, DRAWN, KEYS, LANES, ROWS};
use crate::attention::{KernelDropout, Place, Sizes, place};
use crate::elementwise::within;
use crate::philox::{factor, words};

/// Stages the `blueprint.queries` queries from `first` on, with their gradients, log-sum-exps and deltas, in half `half`.
#[cube]
#[allow(clippy::too_many_arguments)]
fn stage_queries<T: Float>(
    fused: &Array<Vector<T, Row>>,
    d_o: &Array<Vector<T, Row>>,
    lse: &Array<f32>,
    delta: &Array<f32>,
    stage: &mut SharedMemory<Vector<T, Row>>,
    sums: &mut SharedMemory<f32>,
    here: &Place,
    sizes: &Sizes,
    first: usize,
    half: usize,
    #[comptime] blueprint: Blueprint,
) {
    let (units, stride, queries) = comptime!((blueprint.units(), blueprint.stride(), blueprint.queries));
    let (seq, hidden, to) = (sizes.seq, sizes.heads * sizes.dims, half * BLOCK);
    stage_rows(fused, here.q, sizes.width, first, seq, stage, to, queries, stride, units, Order::Plain);
    stage_rows(d_o, here.o, hidden, first, seq, stage, to + KEYS, queries, stride, units, Order::Plain);
    let unit = UNIT_POS as usize;
    if unit < queries {
        let from = here.row * seq + within(first + unit, seq);
        let at = half * comptime!(2 * queries) + unit;
        sums[at] = lse[from];
        sums[at + queries] = delta[from];
    }
}

/// `sizes` in vectors of 8. A cube owns `backward_rows` keys of a head.
#[cube(launch_unchecked, fast_math = FastMath::ReducedPrecision | FastMath::NotNaN | FastMath::NotInf)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn dk_dv_kernel<T: Float>(
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
    let queries = comptime!(blueprint.queries);
    let steps = comptime!(blueprint.head_dim / ROWS);
    let scores = comptime!(queries / COLUMNS);
    let columns = comptime!(blueprint.head_dim / COLUMNS);
    let (seq, width) = (sizes.seq, sizes.width);
    let tiles = seq.div_ceil(rows);
    if CUBE_POS >= tiles * sizes.heads * sizes.batch {
        terminate!();
    }
    let here = place(&sizes, tiles);
    // The first keys are seen by the most queries, and begin first as they are.
    let first = here.tile * rows;
    let lane = UNIT_POS_PLANE as usize;
    let (quad, member) = (lane / 4, lane % 4);
    let plane = UNIT_POS as usize / LANES;
    let own = plane * ROWS;

    let mut stage = SharedMemory::<Vector<T, Row>>::new(comptime!(blueprint.stage()));
    // Of each of the stage's two blocks: its queries' log-sum-exp, then their deltas.
    let mut sums = SharedMemory::<f32>::new(4 * queries);
    // Of each plane: word w of its queries' calls at w * apart. Eight more than the queries keep a quad's words in banks of
    // their own.
    let apart = comptime!(queries + 8);
    let mut drawn =
        SharedMemory::<u32>::new(comptime!(if blueprint.dropout { blueprint.planes * 4 * apart } else { 1 }));
    let passed = plane * comptime!(4 * apart);

    stage_queries(
        fused,
        d_o,
        lse,
        delta,
        &mut stage,
        &mut sums,
        &here,
        &sizes,
        first / queries * queries,
        0usize,
        blueprint,
    );
    stage_rows(fused, here.k, width, first, seq, &mut stage, BLOCK, rows, stride, units, Order::Paired);
    stage_rows(fused, here.v, width, first, seq, &mut stage, BLOCK + KEYS, rows, stride, units, Order::Paired);
    sync_cube();
    let mut k = Fragments::<T>::new();
    let mut v = Fragments::<T>::new();
    push_left(&mut k, &stage, BLOCK + own, steps, stride);
    push_left(&mut v, &stage, BLOCK + KEYS + own, steps, stride);
    let mut dk = zeros(columns);
    let mut dv = zeros(columns);

    // Queries before the cube's first key see none of its keys.
    let from = first / queries;
    let blocks = seq.div_ceil(queries);
    for block in from..blocks {
        let first_query = block * queries;
        let turn = (block - from) % 2;
        let (staged, row_sums) = (turn * BLOCK, turn * comptime!(2 * queries));
        sync_cube();
        if block + 1 < blocks {
            let next = first_query + queries;
            stage_queries(fused, d_o, lse, delta, &mut stage, &mut sums, &here, &sizes, next, 1 - turn, blueprint);
        }
        // A plane whose keys all come after the block is seen by none of it.
        if first + own < first_query + queries {
            if comptime!(blueprint.dropout) {
                #[unroll]
                for part in 0..comptime!(queries.div_ceil(LANES)) {
                    let query = lane + comptime!(part * LANES);
                    let (sequence, head) = (here.sequence as u32, here.head as u32);
                    let key_block = ((first + own) / DRAWN) as u32;
                    let call = words(&dropout, sequence, head, (first_query + query) as u32, key_block, true);
                    drawn[passed + query] = call.w0;
                    drawn[passed + query + apart] = call.w1;
                    drawn[passed + query + comptime!(2 * apart)] = call.w2;
                    drawn[passed + query + comptime!(3 * apart)] = call.w3;
                }
                sync_plane();
            }
            let extents = comptime!(Extents { m: 1, n: scores, steps, stride });
            let mut ds = zeros(scores);
            let mut dp = zeros(scores);
            add_times_rows(&k, &stage, &mut ds, staged, extents);
            add_times_rows(&v, &stage, &mut dp, staged + KEYS, extents);
            #[unroll]
            for j in 0..scores {
                let product = ds.index_mut(j);
                let gradient = dp.index_mut(j);
                #[unroll]
                for half in 0..2usize {
                    let key = first + own + 2 * quad + half;
                    let mut pair = product[half];
                    let mut d = gradient[half];
                    #[unroll]
                    for e in 0..2usize {
                        let column = comptime!(j * COLUMNS + e) + 2 * member;
                        let query = first_query + column;
                        let seen = query < seq && key <= query;
                        let p = select(seen, f32::exp(pair[e] * sizes.scale - sums[row_sums + column]), 0.0f32);
                        if comptime!(blueprint.dropout) {
                            // Key 2 * quad + half of the plane's sixteen.
                            let word = drawn[passed + quad / 2 * apart + column];
                            let kept = factor(&dropout, word, (quad % 2 * 2) as u32 + comptime!(half as u32));
                            pair[e] = p * (d[e] * kept - sums[row_sums + queries + column]) * sizes.scale;
                            d[e] = p * kept;
                        } else {
                            pair[e] = p * (d[e] - sums[row_sums + queries + column]) * sizes.scale;
                            d[e] = p;
                        }
                    }
                    product[half] = pair;
                    gradient[half] = d;
                }
            }
            let extents = comptime!(Extents { m: 1, n: columns, steps: queries / ROWS, stride });
            add_times_columns(&narrowed::<T>(&dp, scores), &stage, &mut dv, staged + KEYS, extents);
            add_times_columns(&narrowed::<T>(&ds, scores), &stage, &mut dk, staged, extents);
        }
    }

    #[unroll]
    for half in 0..2usize {
        let key = first + own + 2 * quad + half;
        if key < seq {
            #[unroll]
            for n in 0..columns {
                let (dk, dv) = (dk.index(n), dv.index(n));
                let at = key * width;
                into[(here.k + at) * 4 + comptime!(4 * n) + member] = Vector::cast_from(dk[half]);
                into[(here.v + at) * 4 + comptime!(4 * n) + member] = Vector::cast_from(dv[half]);
            }
        }
    }
}
