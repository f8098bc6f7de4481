//! What forward and dq share: they walk the keys of a head's queries a block at a time.

use cubecl::prelude::*;

use super::tile::{Fragments, Order, Row, stage_rows};
use super::{Blueprint, COLUMNS, DRAWN, KEYS};
use crate::attention::{KernelDropout, Place, Sizes, word};
use crate::philox::{factor, words};

/// Stages the keys from `first` on in rows `to..` of the stage, and their values `KEYS` rows later.
#[cube]
#[allow(clippy::too_many_arguments)]
pub fn stage_keys<T: Float>(
    fused: &Array<Vector<T, Row>>,
    stage: &mut SharedMemory<Vector<T, Row>>,
    here: &Place,
    sizes: &Sizes,
    first: usize,
    to: usize,
    #[comptime] blueprint: Blueprint,
) {
    let (units, stride) = comptime!((blueprint.units(), blueprint.stride()));
    let (width, seq) = (sizes.width, sizes.seq);
    stage_rows(fused, here.k, width, first, seq, stage, to, KEYS, stride, units, Order::Drawn);
    stage_rows(fused, here.v, width, first, seq, stage, to + KEYS, KEYS, stride, units, Order::Drawn);
}

/// Multiplies a lane's part of one query's row, in products `from..` of a block's keys, with its dropout: one Philox call.
#[cube]
#[allow(clippy::too_many_arguments)]
pub fn drop(
    products: &mut Fragments<f32>,
    dropout: &KernelDropout,
    here: &Place,
    query: usize,
    first_key: usize,
    #[comptime] from: usize,
    #[comptime] half: usize,
) {
    let member = UNIT_POS_PLANE as usize % 4;
    let call = (first_key / DRAWN + member) as u32;
    let drawn = words(dropout, here.sequence as u32, here.head as u32, query as u32, call, true);
    #[unroll]
    for j in 0..comptime!(KEYS / COLUMNS) {
        let product = products.index_mut(comptime!(from + j));
        let mut pair = product[half];
        #[unroll]
        for e in 0..2usize {
            pair[e] *= factor(dropout, word(&drawn, j / 2), comptime!(((2 * j + e) % 4) as u32));
        }
        product[half] = pair;
    }
}
