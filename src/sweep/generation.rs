//! A block of generation: one new token in the middle of a sequence.

use burn_tensor::DType;
use trainer_backends::DecoderBackend;
use trainer_backends::cache::{KeyValues, POSITIONS, Places};
use trainer_backends::ops::{BlockDims, BlockWeights, NewTokens, NormWeights, RotaryTable};

use super::inputs::Inputs;
use super::operation::{Shape, Work};
use super::prepared::{EPS, Prepared, WEIGHT, row};

/// Of the new token.
pub(super) fn position(shape: &Shape) -> usize {
    shape.dims.seq / 2
}

/// Weights, and the keys and values so far, are read once.
pub(super) fn work(shape: &Shape) -> Work {
    let [c, w, f] = [shape.hidden(), shape.dims.fused(), shape.dims.mlp].map(|size| size as u64);
    let weights = w * c + c * c + f * c;
    let cached = 2 * c * (position(shape) as u64 + 1);
    Work { flops: 2 * (weights + cached), bytes: (weights + cached) * shape.dtype.size() as u64, products: false }
}

/// The new token is written to the same place each time.
pub(super) fn prepare<B: DecoderBackend>(shape: &Shape, dtype: DType, inputs: &mut Inputs<B>) -> Prepared<B> {
    let dims = BlockDims { batch: 1, seq: 1, ..shape.dims };
    let [c, w, f] = [dims.hidden(), dims.fused(), dims.mlp];
    let capacity = (position(shape) + 1).next_multiple_of(POSITIONS);
    let (x, normed) = (inputs.normal([1, c], 1.0, DType::F32), inputs.normal([1, c], 1.0, dtype));
    let mut layer = |outputs: usize, k: usize| {
        (inputs.normal([outputs, k], WEIGHT, dtype), inputs.normal([outputs], WEIGHT, dtype))
    };
    let weights = BlockWeights { fused: layer(w, c), dense: layer(c, c), fc2: layer(c, f) };
    let (gamma, beta) = (inputs.normal([c], 1.0, dtype), inputs.normal([c], 1.0, dtype));
    // What it turns by need not be an angle's.
    let half = (dims.rotary_dim / 2).max(1);
    let (cos, sin) = (inputs.normal([1, half], 1.0, DType::F32), inputs.normal([1, half], 1.0, DType::F32));
    let table = RotaryTable { cos, sin };
    let mut cache = KeyValues {
        keys: inputs.normal([dims.heads, dims.head_dim, capacity], 1.0, dtype),
        values: inputs.normal([dims.heads, capacity, dims.head_dim], 1.0, dtype),
    };
    let places = Places::new(vec![0], vec![position(shape)], inputs.device());
    Prepared::new(move |_| {
        let next = NormWeights { gamma: gamma.clone(), beta: beta.clone(), eps: EPS };
        let tokens = NewTokens { x: x.clone(), normed: normed.clone() };
        let NewTokens { x, normed } = B::block_decode(tokens, weights.clone(), next, &table, dims, &places, &mut cache);
        vec![row(x), row(normed)]
    })
}
