use burn_tensor::DType;

use super::{Bench, label};
use crate::ops::{BlockDims, DecoderBackend, MatrixSlot, RotaryTable, Turn, VectorSlot, WeightGrads};
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

/// Of the layer whose q and k turn: what a product's own kernel turns, in tiles that end among columns that turn and rows of
/// another sequence, and what it does not.
const TURNED: [BlockDims; 4] = [
    BlockDims { batch: 2, seq: 19, heads: 3, head_dim: 10, rotary_dim: 6, mlp: 37 },
    BlockDims { batch: 3, seq: 67, heads: 5, head_dim: 64, rotary_dim: 32, mlp: 40 },
    BlockDims { batch: 1, seq: 130, heads: 3, head_dim: 32, rotary_dim: 16, mlp: 72 },
    BlockDims { batch: 1, seq: 40, heads: 1, head_dim: 64, rotary_dim: 64, mlp: 8 },
];

/// Layers of matrices that suit the devices' own copies.
pub fn products<B: DecoderBackend>(bench: &mut Bench<B>) {
    for sizes in COPIED {
        case(bench, sizes, true);
    }
    for dims in TURNED {
        turned(bench, dims);
    }
    if let Some(blocks) = B::sharing_blocks(&bench.device).filter(|_| bench.dtype != DType::F32) {
        case(bench, several_tiles(blocks), true);
    }
}

/// A layer with more tiles of 256 rows (two blocks' together) by 256 columns, the largest, than blocks: some make two of
/// them, and sums have more slices than are fetched ahead.
fn several_tiles(blocks: usize) -> [usize; 3] {
    let side = (blocks as f64 * 0.75).sqrt().ceil() as usize * 256;
    [side - 40, 264, side - 24]
}

fn turned<B: DecoderBackend>(bench: &mut Bench<B>, dims: BlockDims) {
    let (shape, dtype) = (label(dims), bench.dtype);
    let (n, c, w) = (dims.tokens(), dims.hidden(), dims.fused());
    let (x, x_oracle) = bench.draw([n, c], dtype);
    let (weight, weight_oracle) = bench.draw([w, c], dtype);
    let (bias, bias_oracle) = bench.draw([w], dtype);
    // The table is longer than the sequence.
    let angles = [dims.seq + 3, dims.rotary_dim / 2];
    let ((cos, cos_oracle), (sin, sin_oracle)) = (bench.draw(angles, DType::F32), bench.draw(angles, DType::F32));
    let (table, oracle) = (RotaryTable { cos, sin }, RotaryTable { cos: cos_oracle, sin: sin_oracle });
    bench.poison([n, w], dtype);
    let found = B::linear_rotary_forward(x, weight, bias, &table, dims);
    let expected = reference::linear(x_oracle, weight_oracle, bias_oracle);
    let expected = reference::rotary(expected, &oracle, dims, Turn::Forward);
    for (name, part) in [("linear_rotary_forward q, k", 0..2 * c), ("linear_rotary_forward others", 2 * c..w)] {
        let part = [0..n, part];
        bench.compare(name, &shape, found.clone().slice(part.clone()), expected.clone().slice(part));
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
