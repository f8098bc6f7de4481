use burn_tensor::DType;

use super::Bench;
use crate::ops::{DecoderBackend, MatrixSlot};
use crate::reference;

/// Tokens, vocabulary, columns; the last is past 65,535 cubes of 32 units.
const SHAPES: [[usize; 3]; 4] = [[1, 5, 3], [90, 17, 37], [257, 1000, 128], [4201, 91, 503]];

pub fn run<B: DecoderBackend>(bench: &mut Bench<B>) {
    let dtype = bench.dtype;
    for [tokens, vocab, cols] in SHAPES {
        let shape = format!("{tokens} tokens of {vocab}, {cols}");
        // Half of them one token, as spaces are in code: long runs beside short ones.
        let ids =
            (0..tokens).map(|_| if bench.below(2) == 0 { vocab / 2 } else { bench.below(vocab) } as i32).collect();
        let (ids, ids_oracle) = bench.ints(ids);
        let (table, table_oracle) = bench.random_wide([vocab, cols], dtype);
        bench.poison(&[tokens * cols], DType::F32);
        let found = B::token_embedding(table, ids.clone());
        bench.compare("token_embedding", &shape, found, reference::embedding(table_oracle, ids_oracle.clone()));

        for offset in [0, 256, 261] {
            let slot = MatrixSlot { offset, rows: vocab, cols };
            let (mut grads, mut grads_oracle) = bench.random_wide([offset + vocab * cols + 7], DType::F32);
            let (dx, dx_oracle) = bench.random_wide([tokens, cols], DType::F32);
            B::token_embedding_backward(dx, ids.clone(), &mut grads, slot);
            reference::embedding_backward(dx_oracle, ids_oracle.clone(), &mut grads_oracle, slot);
            let shape = format!("{shape}, at {offset}");
            bench.compare("token_embedding_backward", &shape, grads, grads_oracle);
        }
    }
}
