//! A block of generation, an operation after the other.

use crate::DecoderBackend;
use crate::cache::{KeyValues, Places};
use crate::ops::{BlockDims, BlockWeights, NewTokens, NormWeights, RotaryTable};

/// `DecoderBackend::block_decode` where no kernel does more than one operation.
pub(crate) fn block<B: DecoderBackend>(
    tokens: NewTokens<B>,
    weights: BlockWeights<B>,
    next: NormWeights<B>,
    table: &RotaryTable<B>,
    dims: BlockDims,
    places: &Places<B>,
    cache: &mut KeyValues<B>,
) -> NewTokens<B> {
    let BlockWeights { fused: (weight, bias), dense, fc2 } = weights;
    // Row i of the table is what the i-th position of one sequence of B turns by.
    let as_positions = BlockDims { batch: 1, seq: dims.batch, ..dims };
    let fused = B::linear_rotary_forward(tokens.normed, weight, bias, table, as_positions);
    let o = B::attention_decode(fused.clone(), dims, places, cache);
    let mlp = B::linear_forward(B::gelu_tanh(fused, dims), fc2.0, fc2.1);
    let attention = B::linear_forward(o, dense.0, dense.1);
    let (x, normed) = B::residual_norm(tokens.x, attention, mlp, dims, None, next);
    NewTokens { x, normed: normed.y }
}
