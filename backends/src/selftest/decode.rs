use burn_tensor::{DType, Tensor};

use super::{Bench, label};
use crate::cache::{KeyValues, POSITIONS, Places};
use crate::ops::{BlockDims, BlockWeights, DecoderBackend, NewTokens, NormWeights, RotaryTable, Turn};
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

/// Whole blocks, with widths that suit vectors and others, few tokens and many, without a rotation and with ones of both kinds.
const BLOCKS: [(BlockDims, &[usize]); 5] = [
    (BlockDims { rotary_dim: 32, ..dims(1, 2, 64, 512) }, &[40]),
    (BlockDims { rotary_dim: 16, ..dims(3, 4, 32, 72) }, &[300, 0, 255]),
    (BlockDims { rotary_dim: 10, ..dims(2, 3, 10, 37) }, &[5, 19]),
    (dims(1, 1, 96, 100), &[8]),
    (BlockDims { rotary_dim: 8, ..dims(18, 1, 16, 24) }, &[3; 18]),
];

pub fn run<B: DecoderBackend>(bench: &mut Bench<B>) {
    for (dims, positions) in CASES {
        case(bench, dims, positions);
    }
    for (dims, positions) in BLOCKS {
        block(bench, dims, positions);
    }
}

fn block<B: DecoderBackend>(bench: &mut Bench<B>, dims: BlockDims, positions: &[usize]) {
    let shape = format!("{}, positions {positions:?}", label(dims));
    let (batch, c, w, f, dtype) = (dims.batch, dims.hidden(), dims.fused(), dims.mlp, bench.dtype);
    let longest = positions.iter().max().map_or(1, |position| position + 1);
    let (rows, capacity) = (batch * dims.heads, longest.next_multiple_of(POSITIONS));
    let slots: Vec<usize> = (0..batch).rev().collect();
    let (keys, keys_oracle) = bench.draw([rows, dims.head_dim, capacity], dtype);
    let (values, values_oracle) = bench.draw([rows, capacity, dims.head_dim], dtype);
    let mut cache = KeyValues { keys, values };
    let mut oracle = KeyValues { keys: keys_oracle, values: values_oracle };

    let ((x, x_oracle), (normed, normed_oracle)) = (bench.draw([batch, c], DType::F32), bench.draw([batch, c], dtype));
    // Sums of k products of a deviation of 1, so that GELU sees both of its ends.
    let mut layer = |outputs: usize, k: usize| {
        let ((_, oracle), bias) = (bench.draw([outputs, k], DType::F32), bench.draw([outputs], dtype));
        let scale = (k as f32).sqrt().recip();
        let data = (oracle * scale).into_data().convert_dtype(dtype);
        let oracle = Tensor::from_data(data.clone().convert_dtype(DType::F32), (&Default::default(), DType::F32));
        ((Tensor::from_data(data, (&bench.device, dtype)), bias.0), (oracle, bias.1))
    };
    let (fused, dense, fc2) = (layer(w, c), layer(c, c), layer(c, f));
    let ((gamma, gamma_oracle), (beta, beta_oracle)) = (bench.draw([c], dtype), bench.draw([c], dtype));
    // A row a sequence.
    let angles = [batch, (dims.rotary_dim / 2).max(1)];
    let ((cos, cos_oracle), (sin, sin_oracle)) = (bench.draw(angles, DType::F32), bench.draw(angles, DType::F32));
    let (table, table_oracle) = (RotaryTable { cos, sin }, RotaryTable { cos: cos_oracle, sin: sin_oracle });

    bench.poison([batch, w], dtype);
    bench.poison([batch, c], DType::F32);
    let weights = BlockWeights { fused: fused.0, dense: dense.0, fc2: fc2.0 };
    let places = Places::new(slots.clone(), positions.to_vec(), &bench.device);
    let next = NormWeights { gamma, beta, eps: 1e-5 };
    let found = B::block_decode(NewTokens { x, normed }, weights, next, &table, dims, &places, &mut cache);

    let (fused, dense, fc2) = (fused.1, dense.1, fc2.1);
    let places = Places::new(slots, positions.to_vec(), &Default::default());
    let as_positions = BlockDims { batch: 1, seq: batch, ..dims };
    let fused = reference::linear(normed_oracle, fused.0, fused.1);
    let fused = match dims.rotary_dim {
        0 => fused,
        _ => reference::rotary(fused, &table_oracle, as_positions, Turn::Forward),
    };
    let o = reference::attention_decode(fused.clone(), dims, &places, &mut oracle);
    let mlp = reference::linear(reference::gelu(fused, dims), fc2.0, fc2.1);
    let attention = reference::linear(o, dense.0, dense.1);
    let x = reference::residual(x_oracle, attention, mlp, dims, None);
    let normed = reference::layer_norm(x.clone(), gamma_oracle, beta_oracle, 1e-5, DType::F32);

    // Of values that were rounded on their way.
    bench.compare_rounded("block_decode x", &shape, dtype, found.x, x);
    bench.compare("block_decode norm", &shape, found.normed, normed.y);
    bench.compare("block_decode keys", &shape, cache.keys, oracle.keys);
    bench.compare("block_decode values", &shape, cache.values, oracle.values);
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
