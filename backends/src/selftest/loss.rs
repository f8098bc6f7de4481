use burn_tensor::DType;

use super::Bench;
use crate::ops::{DecoderBackend, MatrixSlot, VectorSlot, WeightGrads};
use crate::reference;

/// [tokens, hidden, vocabulary]. The gradient p - 1 of one token that is sure of its word is all rounding; of as many words
/// as the first has, it is never sure of a random one. The third takes several chunks of logits on a processor's adapter,
/// with rows of h and dh that start between a device's alignments; the fourth has more rows than one dimension of a
/// dispatch has cubes.
const SIZES: [[usize; 3]; 4] = [[1, 5, 515], [67, 48, 515], [41, 3, 300_001], [70_001, 2, 3]];

/// Large enough that fp16 gradients are not subnormal, as a loss scale has it.
const SCALE: f32 = 64.0;

pub fn run<B: DecoderBackend>(bench: &mut Bench<B>) {
    for sizes in SIZES {
        case(bench, sizes);
    }
}

fn case<B: DecoderBackend>(bench: &mut Bench<B>, [n, c, v]: [usize; 3]) {
    let (shape, dtype) = (format!("[{n}, {c}] x [{v}, {c}]^T"), bench.dtype);
    let (h, h_oracle) = bench.draw([n, c], dtype);
    let (weight, weight_oracle) = bench.draw([v, c], dtype);
    let (bias, bias_oracle) = bench.draw([v], dtype);
    let ids = (0..n).map(|_| (bench.uniform() * v as f64) as i32).collect();
    let (targets, targets_oracle) = bench.ints(ids);

    bench.poison([n], DType::F32);
    let loss = B::linear_cross_entropy(h.clone(), weight.clone(), bias.clone(), targets.clone());
    let expected = reference::linear_cross_entropy(
        h_oracle.clone(),
        weight_oracle.clone(),
        bias_oracle.clone(),
        targets_oracle.clone(),
    );
    bench.compare("linear_cross_entropy", &shape, loss, expected);

    let weight_slot = MatrixSlot { offset: 256, rows: v, cols: c };
    let bias_slot = VectorSlot { offset: 256 + v * c + 5, len: v };
    let (mut grads, mut grads_oracle) = bench.draw([bias_slot.offset + v + 3], DType::F32);
    bench.poison([n, c], dtype);
    let slots = WeightGrads { flat: &mut grads, weight: weight_slot, bias: bias_slot };
    let (loss, dh) = B::linear_cross_entropy_backward(h, weight, bias, targets, SCALE, slots);
    let slots = WeightGrads { flat: &mut grads_oracle, weight: weight_slot, bias: bias_slot };
    let (loss_oracle, dh_oracle) =
        reference::linear_cross_entropy_backward(h_oracle, weight_oracle, bias_oracle, targets_oracle, SCALE, slots);
    bench.compare("linear_cross_entropy_backward loss", &shape, loss, loss_oracle);
    bench.compare("linear_cross_entropy_backward dh", &shape, dh, dh_oracle);
    // There, as in PyTorch's autocast, the fp32 gradient of the logits is rounded to the weights' dtype before the head's
    // gradients are summed.
    let rounded = if B::rounds_products(&bench.device) { dtype } else { DType::F32 };
    bench.compare_rounded("linear_cross_entropy_backward dweight, dbias", &shape, rounded, grads, grads_oracle);
}
