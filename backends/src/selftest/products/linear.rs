//! Linear layers: y, dx, and the gradients added to their slots.

use super::{Bench, Pair};
use crate::ops::{DecoderBackend, MatrixSlot, VectorSlot, WeightGrads};
use crate::reference;
use burn_tensor::DType;

/// [tokens, inputs, outputs]; multiples of nothing, with an odd number of every tile. The last has more tiles than a grid's
/// dimension holds.
const SIZES: [[usize; 3]; 6] =
    [[1, 1, 1], [37, 53, 129], [128, 64, 64], [70, 301, 17], [259, 96, 515], [1_050_001, 3, 1]];

pub fn run<B: DecoderBackend>(bench: &mut Bench<B>) {
    for size in SIZES {
        case(bench, size);
    }
}

fn case<B: DecoderBackend>(bench: &mut Bench<B>, [n, k, o]: [usize; 3]) {
    let shape = format!("[{n}, {k}] x [{o}, {k}]^T");
    let (x, weight) = (bench.random([n, k]), bench.random([o, k]));
    // Gradients of a thousand equal signs would hide in the norm of a bias of millions: they are centred.
    let (bias, dy) = (bench.random([o]), bench.random([n, o]));
    let dtype = bench.dtype;

    bench.poison(&[n * o, n * k], dtype);
    let y = B::linear_forward(x.tested.clone(), weight.tested.clone(), bias.tested);
    let expected = reference::linear(x.reference.clone(), weight.reference.clone(), bias.reference);
    bench.compare("linear", &shape, y, expected);

    // The slots lie as the parameter table lays them, with room between and around them that must stay as it is.
    let weight_slot = MatrixSlot { offset: 256, rows: o, cols: k };
    let bias_slot = VectorSlot { offset: (256 + o * k + 1).next_multiple_of(256), len: o };
    let Pair { tested: mut flat, reference: mut expected_flat } =
        bench.random_as([(bias_slot.offset + o + 1).next_multiple_of(256)], DType::F32);
    let grads = WeightGrads { flat: &mut flat, weight: weight_slot, bias: bias_slot };
    let dx = B::linear_backward(dy.tested, x.tested, weight.tested, grads);
    let grads = WeightGrads { flat: &mut expected_flat, weight: weight_slot, bias: bias_slot };
    let expected = reference::linear_backward(dy.reference, x.reference, weight.reference, grads);
    bench.compare("linear backward: dx", &shape, dx, expected);
    bench.compare("linear backward: dweight, dbias", &shape, flat, expected_flat);
}
