//! Causal attention inside the fused projection: O and the log-sum-exp, then the gradients of q, k and v.

use burn_tensor::{DType, Tensor, TensorData};

use super::Bench;
use crate::dropout::Dropout;
use crate::ops::{Attended, BlockDims, DecoderBackend};
use crate::reference;

/// [batch, seq, heads, head_dim, mlp], and whether with dropout. The last has more tiles than a grid's dimension holds.
const SIZES: [([usize; 5], bool); 8] = [
    ([1, 1, 1, 32, 3], false),
    ([2, 19, 3, 32, 7], true),
    ([2, 131, 2, 64, 5], true),
    ([1, 70, 2, 64, 1], false),
    ([1, 37, 1, 80, 2], true),
    ([1, 50, 2, 96, 3], false),
    ([1, 45, 1, 128, 3], true),
    ([70_001, 1, 1, 32, 1], false),
];

pub fn run<B: DecoderBackend>(bench: &mut Bench<B>) {
    for ([batch, seq, heads, head_dim, mlp], drop) in SIZES {
        let dims = BlockDims { batch, seq, heads, head_dim, rotary_dim: 0, mlp };
        // Seed, step, first sequence and layer all differ from zero, so that none can be forgotten.
        let dropout = drop.then(|| Dropout::new(0.3, 11, 5, 40).expect("0.3 is not 0").at_layer(2));
        case(bench, dims, dropout);
    }
}

fn case<B: DecoderBackend>(bench: &mut Bench<B>, dims: BlockDims, dropout: Option<Dropout>) {
    let BlockDims { batch, seq, heads, head_dim, .. } = dims;
    let with = if dropout.is_some() { ", dropout" } else { "" };
    let shape = format!("[{batch}, {seq}, {heads}, {head_dim}]{with}");
    let (n, c, w, dtype) = (dims.tokens(), dims.hidden(), dims.fused(), bench.dtype);
    let fused = bench.random([n, w]);
    let d_o = bench.random([n, c]);

    bench.poison(&[n * c, n * w, n * heads], dtype);
    let attended = B::attention_forward(fused.tested.clone(), dims, dropout);
    let expected = reference::attention(fused.reference.clone(), dims, dropout);
    bench.compare("attention: o", &shape, attended.o.clone(), expected.o.clone());
    bench.compare("attention: lse", &shape, attended.lse.clone(), expected.lse.clone());

    // Both backwards start from the reference's forward. q, k and v's columns start as NaN; the others must stay.
    let mut before = vec![f32::NAN; n * w];
    before.chunks_mut(w).for_each(|row| row[3 * c..].fill(7.0));
    let into: Tensor<B, 2> = Tensor::from_data(TensorData::new(before, [n, w]), (&bench.device, dtype));
    let of_reference = Attended {
        o: Tensor::from_data(expected.o.clone().into_data(), (&bench.device, dtype)),
        lse: Tensor::from_data(expected.lse.clone().into_data(), (&bench.device, DType::F32)),
    };
    let found = B::attention_backward(d_o.tested, fused.tested, of_reference, dims, dropout, into);
    let into = Tensor::full([n, w], 7.0, (&Default::default(), dtype));
    let expected = reference::attention_backward(d_o.reference, fused.reference, expected, dims, dropout, into);
    let columns = [("dq", 0..c), ("dk", c..2 * c), ("dv", 2 * c..3 * c), ("other columns", 3 * c..w)];
    for (name, range) in columns {
        let (found, expected) = (found.clone().slice([0..n, range.clone()]), expected.clone().slice([0..n, range]));
        bench.compare(&format!("attention backward: {name}"), &shape, found, expected);
    }
}
