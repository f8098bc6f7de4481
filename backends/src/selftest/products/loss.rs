//! Linear + cross entropy: the loss alone, and the loss with the gradients of the hidden state and the head.

use burn_tensor::DType;

use super::{Bench, Pair};
use crate::ops::{DecoderBackend, MatrixSlot, VectorSlot, WeightGrads};
use crate::reference;

/// [tokens, hidden, vocabulary]. The third takes several chunks of logits on CUDA and WGPU, the fourth has more rows than a
/// grid's dimension holds.
const SIZES: [[usize; 3]; 4] = [[1, 5, 2], [67, 48, 515], [41, 3, 300_001], [70_001, 2, 3]];

pub fn run<B: DecoderBackend>(bench: &mut Bench<B>) {
    for size in SIZES {
        case(bench, size);
    }
}

fn case<B: DecoderBackend>(bench: &mut Bench<B>, [n, c, v]: [usize; 3]) {
    let shape = format!("[{n}, {c}] x [{v}, {c}]^T");
    let (h, weight, bias) = (bench.random([n, c]), bench.random([v, c]), bench.random([v]));
    let (targets, expected_targets) = bench.ids(n, v);
    let dtype = bench.dtype;

    bench.poison(&[n * c, n.min(4096) * v.min(4096), n], dtype);
    let loss = B::linear_cross_entropy(h.tested.clone(), weight.tested.clone(), bias.tested.clone(), targets.clone());
    let [h_r, weight_r] = [h.reference, weight.reference];
    let expected = reference::linear_cross_entropy(
        h_r.clone(),
        weight_r.clone(),
        bias.reference.clone(),
        expected_targets.clone(),
    );
    bench.compare("linear + cross entropy: loss", &shape, loss, expected);

    let weight_slot = MatrixSlot { offset: 256, rows: v, cols: c };
    let bias_slot = VectorSlot { offset: (256 + v * c + 1).next_multiple_of(256), len: v };
    let Pair { tested: mut flat, reference: mut expected_flat } =
        bench.random_as([(bias_slot.offset + v + 1).next_multiple_of(256)], DType::F32);
    // Large enough that fp16 gradients are not subnormal, as a loss scale has it.
    let scale = 64.0;
    let grads = WeightGrads { flat: &mut flat, weight: weight_slot, bias: bias_slot };
    let (loss, dh) = B::linear_cross_entropy_backward(h.tested, weight.tested, bias.tested, targets, scale, grads);
    let grads = WeightGrads { flat: &mut expected_flat, weight: weight_slot, bias: bias_slot };
    let (expected_loss, expected_dh) =
        reference::linear_cross_entropy_backward(h_r, weight_r, bias.reference, expected_targets, scale, grads);
    bench.compare("linear + cross entropy backward: loss", &shape, loss, expected_loss);
    bench.compare("linear + cross entropy backward: dh", &shape, dh, expected_dh);
    bench.compare("linear + cross entropy backward: dweight, dbias", &shape, flat, expected_flat);
}
