use burn_tensor::DType;

use super::Bench;
use crate::ops::{DecoderBackend, MatrixSlot, VectorSlot, WeightGrads};
use crate::reference;

/// [tokens, inputs, outputs]: multiples of nothing, an odd number of every tile, and so few tokens that a kernel of their
/// own takes them.
const SIZES: [[usize; 3]; 8] =
    [[1, 1, 1], [1, 2048, 77], [5, 96, 515], [16, 40, 9], [37, 53, 129], [128, 64, 64], [70, 301, 17], [259, 96, 515]];

/// More tiles than one dimension of a dispatch has. Only its products, not its sums over a million rows: in fp32 those
/// differ by more than a tolerance that means something, whatever the order.
const MANY: [usize; 3] = [1_050_001, 3, 1];

/// What tensor copies can address, in all three products or in some: tiles that leave the matrix on every side, sums of many
/// slices, several tiles a block, outputs whose rows are no whole vectors.
const COPIED: [[usize; 3]; 5] = [[128, 64, 64], [259, 328, 520], [259, 96, 515], [17, 1032, 8], [300, 64, 264]];

/// Layers of matrices that suit the devices' own copies.
pub fn products<B: DecoderBackend>(bench: &mut Bench<B>) {
    for sizes in COPIED {
        case(bench, sizes, true);
    }
}

pub fn run<B: DecoderBackend>(bench: &mut Bench<B>) {
    for sizes in SIZES {
        case(bench, sizes, true);
    }
    case(bench, MANY, false);
}

fn case<B: DecoderBackend>(bench: &mut Bench<B>, [n, k, o]: [usize; 3], sums: bool) {
    let (shape, dtype) = (format!("[{n}, {k}] x [{o}, {k}]^T"), bench.dtype);
    let (x, x_oracle) = bench.draw([n, k], dtype);
    let (weight, weight_oracle) = bench.draw([o, k], dtype);
    let (bias, bias_oracle) = bench.draw([o], dtype);
    bench.poison([n, o], dtype);
    let y = B::linear_forward(x.clone(), weight.clone(), bias);
    let expected = reference::linear(x_oracle.clone(), weight_oracle.clone(), bias_oracle);
    bench.compare("linear_forward", &shape, y, expected);

    // One slot that a device can bind as it is, one that starts between its alignments.
    let weight_slot = MatrixSlot { offset: 256, rows: o, cols: k };
    // The bias' last elements belong to another operation: their gradients must stay as they are.
    let bias_slot = VectorSlot { offset: 256 + o * k + 5, len: o.div_ceil(2) };
    let (mut grads, mut grads_oracle) = bench.draw([bias_slot.offset + o + 3], DType::F32);
    let (dy, dy_oracle) = bench.draw([n, o], dtype);
    bench.poison([n, k], dtype);
    let slots = WeightGrads { flat: &mut grads, weight: weight_slot, bias: bias_slot };
    let dx = B::linear_backward(dy, x, weight, slots);
    let slots = WeightGrads { flat: &mut grads_oracle, weight: weight_slot, bias: bias_slot };
    let expected = reference::linear_backward(dy_oracle, x_oracle, weight_oracle, slots);
    bench.compare("linear_backward dx", &shape, dx, expected);
    if sums {
        bench.compare("linear_backward dweight, dbias", &shape, grads, grads_oracle);
    }
}
