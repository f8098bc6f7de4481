use burn_tensor::{DType, Tensor};

use super::{Bench, label};
use crate::cache::{KeyValues, POSITIONS, Places};
use crate::ops::{BlockDims, DecoderBackend};
use crate::reference;

const fn dims(batch: usize, heads: usize, head_dim: usize, mlp: usize) -> BlockDims {
    BlockDims { batch, seq: 1, heads, head_dim, rotary_dim: 0, mlp }
}

/// Every head size that models of this kind have, with the positions of each sequence: the first, on both sides of a
/// vector, at the end of a cache, and on both sides of a chunk of positions on a device.
const CASES: [(BlockDims, &[usize]); 7] = [
    (dims(3, 1, 32, 3), &[0, 7, 8]),
    (dims(2, 3, 10, 37), &[19, 0]),
    (dims(2, 2, 64, 5), &[255, 256]),
    (dims(3, 2, 64, 4), &[700, 3, 511]),
    (dims(1, 1, 80, 2), &[300]),
    (dims(1, 2, 96, 3), &[33]),
    (dims(1, 2, 128, 4), &[519]),
];

pub fn run<B: DecoderBackend>(bench: &mut Bench<B>) {
    for (dims, positions) in CASES {
        case(bench, dims, positions);
    }
}

/// The cache is filled by the backend's own prefill, of the longest sequence's tokens for all: what lies past a
/// sequence's position must not count. It starts as NaN.
fn case<B: DecoderBackend>(bench: &mut Bench<B>, dims: BlockDims, positions: &[usize]) {
    let shape = format!("{}, positions {positions:?}", label(dims));
    let (batch, dtype) = (dims.batch, bench.dtype);
    let longest = positions.iter().max().map_or(1, |position| position + 1);
    // Slots in another order than sequences, one of them left free.
    let slots: Vec<usize> = (0..batch).rev().collect();
    let oracle_device = Default::default();
    let rows = (batch + 1) * dims.heads;
    let capacity = longest.next_multiple_of(POSITIONS);
    let (keys, values) = ([rows, dims.head_dim, capacity], [rows, capacity, dims.head_dim]);
    let mut cache = KeyValues { keys: bench.nan(keys, dtype), values: bench.nan(values, dtype) };
    let nan = |shape| Tensor::full(shape, f32::NAN, (&oracle_device, DType::F32));
    let mut oracle = KeyValues { keys: nan(keys), values: nan(values) };

    let filled = BlockDims { seq: longest, ..dims };
    let (fused, fused_oracle) = bench.draw([filled.tokens(), dims.fused()], dtype);
    let from_start = Places::new(slots.clone(), vec![0; batch], &bench.device);
    B::store_keys_values(&fused, filled, &from_start, &mut cache);
    let from_start = Places::new(slots.clone(), vec![0; batch], &oracle_device);
    reference::store_keys_values(&fused_oracle, filled, &from_start, &mut oracle);

    let (fused, fused_oracle) = bench.draw([batch, dims.fused()], dtype);
    bench.poison([batch, dims.hidden()], dtype);
    bench.poison([batch * dims.heads * dims.head_dim], DType::F32);
    let places = Places::new(slots.clone(), positions.to_vec(), &bench.device);
    let o = B::attention_decode(fused, dims, &places, &mut cache);
    let places = Places::new(slots, positions.to_vec(), &oracle_device);
    let expected = reference::attention_decode(fused_oracle, dims, &places, &mut oracle);
    bench.compare("attention_decode o", &shape, o, expected);
    // The whole slots, what was there before and the new token; the free slot stays as it was, which is NaN.
    let used = batch * dims.heads;
    let keys = [0..used, 0..dims.head_dim, 0..longest];
    bench.compare("attention_decode keys", &shape, cache.keys.slice(keys.clone()), oracle.keys.slice(keys));
    let values = [0..used, 0..longest, 0..dims.head_dim];
    bench.compare("attention_decode values", &shape, cache.values.slice(values.clone()), oracle.values.slice(values));
}
