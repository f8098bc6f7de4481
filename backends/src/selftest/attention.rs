use burn_flex::Flex;
use burn_tensor::{DType, Tensor, TensorData};

use super::{Bench, dropouts, label};
use crate::dropout::Dropout;
use crate::ops::{Attended, BiasGrad, BlockDims, DecoderBackend, RotaryTable, Turn, VectorSlot};
use crate::reference;

const fn dims(batch: usize, seq: usize, heads: usize, head_dim: usize, mlp: usize) -> BlockDims {
    BlockDims { batch, seq, heads, head_dim, rotary_dim: 0, mlp }
}

/// Every head size that models of this kind have, sequences that end inside every block. Sequences of one come several at a
/// time: the only log-sum-exp of a single one may be near zero, and then rounding is large beside it. The last has more
/// tiles than one dimension of a dispatch has cubes.
const DIMS: [BlockDims; 8] = [
    dims(5, 1, 1, 32, 3),
    dims(2, 19, 3, 10, 37),
    dims(2, 19, 3, 32, 7),
    dims(2, 131, 2, 64, 5),
    dims(1, 37, 1, 80, 2),
    dims(1, 80, 2, 96, 3),
    dims(1, 45, 1, 128, 3),
    dims(70_001, 1, 1, 8, 1),
];

/// What kernels on tensor cores want: rows of the fused projection that are whole vectors.
const ON_TENSOR_CORES: [BlockDims; 4] =
    [dims(2, 19, 3, 32, 8), dims(2, 131, 2, 64, 8), dims(1, 80, 2, 96, 8), dims(1, 45, 1, 128, 8)];

/// What CUDA's own kernels want: heads of 64 elements and sequences of whole blocks of 64, with tiles that end inside them.
const BLOCKS: [BlockDims; 2] = [dims(2, 64, 1, 64, 8), dims(1, 320, 2, 64, 16)];

pub fn run<B: DecoderBackend>(bench: &mut Bench<B>) {
    for dims in DIMS {
        for dropout in dropouts() {
            case(bench, dims, dropout);
        }
    }
    for dims in DIMS.into_iter().filter(|dims| dims.seq == 19) {
        rotary(bench, BlockDims { rotary_dim: 6, ..dims }, dropouts()[1]);
    }
    if B::rounds_products(&bench.device) {
        for dims in ON_TENSOR_CORES {
            both(bench, dims);
        }
    }
}

/// The shapes of training.
pub fn blocks<B: DecoderBackend>(bench: &mut Bench<B>) {
    for dims in BLOCKS {
        both(bench, dims);
    }
    rotary(bench, BLOCKS[0], None);
    // Kernels may tell bytes above and below 128 apart.
    case(bench, dims(1, 64, 1, 64, 8), Dropout::new(0.7, 12, 6, 41));
}

/// Without dropout and with it, and backward through the rotation.
fn both<B: DecoderBackend>(bench: &mut Bench<B>, dims: BlockDims) {
    for dropout in dropouts() {
        case(bench, dims, dropout);
    }
    for (dropout, rotary_dim) in dropouts().into_iter().zip([32, 16]) {
        rotary(bench, BlockDims { rotary_dim, ..dims }, dropout);
    }
}

fn case<B: DecoderBackend>(bench: &mut Bench<B>, dims: BlockDims, dropout: Option<Dropout>) {
    let shape = format!("{}{}", label(dims), if dropout.is_some() { ", dropout" } else { "" });
    let (n, c, w, dtype) = (dims.tokens(), dims.hidden(), dims.fused(), bench.dtype);
    let (fused, fused_oracle) = bench.draw([n, w], dtype);
    let (d_o, d_o_oracle) = bench.draw([n, c], dtype);

    bench.poison([n, c], dtype);
    bench.poison([n, c], DType::F32);
    let found = B::attention_forward(fused.clone(), dims, dropout);
    let expected = reference::attention(fused_oracle.clone(), dims, dropout);
    bench.compare("attention_forward o", &shape, found.o, expected.o.clone());
    bench.compare("attention_forward lse", &shape, found.lse, expected.lse.clone());

    let (attended, attended_oracle) = rounded(bench, expected);
    let (into, into_oracle) = into(bench, dims);
    bench.poison([n, c], DType::F32);
    let found = B::attention_backward(d_o, fused, attended, dims, dropout, into);
    let expected = reference::attention_backward(d_o_oracle, fused_oracle, attended_oracle, dims, dropout, into_oracle);
    // At a sequence of one the softmax is 1 and dq and dk are 0 up to rounding: nothing to be relative to.
    let all = [("attention_backward dq", 0), ("attention_backward dk", c), ("attention_backward dv", 2 * c)];
    for (name, start) in all.into_iter().skip(if dims.seq == 1 { 2 } else { 0 }) {
        let of_part = [0..n, start..start + c];
        bench.compare(name, &shape, found.clone().slice(of_part.clone()), expected.clone().slice(of_part));
    }
    let others = [0..n, 3 * c..w];
    bench.compare("attention_backward other columns", &shape, found.slice(others.clone()), expected.slice(others));
}

/// What both backwards start from: the oracle's forward, as rounded as a forward in the bench's dtype leaves it.
fn rounded<B: DecoderBackend>(bench: &Bench<B>, forward: Attended<Flex>) -> (Attended<B>, Attended<Flex>) {
    let o = forward.o.cast(bench.dtype);
    let attended = Attended {
        o: Tensor::from_data(o.to_data(), (&bench.device, bench.dtype)),
        lse: Tensor::from_data(forward.lse.to_data(), (&bench.device, DType::F32)),
    };
    (attended, Attended { o: o.cast(DType::F32), lse: forward.lse })
}

/// What gradients are written into: the columns of q, k and v start as NaN; the others must stay as they are.
fn into<B: DecoderBackend>(bench: &Bench<B>, dims: BlockDims) -> (Tensor<B, 2>, Tensor<Flex, 2>) {
    let (n, c, w) = (dims.tokens(), dims.hidden(), dims.fused());
    let mut before = vec![f32::NAN; n * w];
    before.chunks_exact_mut(w).for_each(|row| row[3 * c..].fill(7.0));
    let before = TensorData::new(before, [n, w]).convert_dtype(bench.dtype);
    let oracle = Tensor::full([n, w], 7.0, (&Default::default(), DType::F32));
    (Tensor::from_data(before, (&bench.device, bench.dtype)), oracle)
}

/// Backward through the rotation, and what adds up to the bias' gradient where kernels have that.
fn rotary<B: DecoderBackend>(bench: &mut Bench<B>, dims: BlockDims, dropout: Option<Dropout>) {
    let shape = format!("{}{}", label(dims), if dropout.is_some() { ", dropout" } else { "" });
    let (n, c, w, dtype) = (dims.tokens(), dims.hidden(), dims.fused(), bench.dtype);
    let (fused, fused_oracle) = bench.draw([n, w], dtype);
    let (d_o, d_o_oracle) = bench.draw([n, c], dtype);
    // The table is longer than the sequence.
    let angles = [dims.seq + 3, (dims.rotary_dim / 2).max(1)];
    let ((cos, cos_oracle), (sin, sin_oracle)) = (bench.draw(angles, DType::F32), bench.draw(angles, DType::F32));
    let (table, oracle) = (RotaryTable { cos, sin }, RotaryTable { cos: cos_oracle, sin: sin_oracle });
    let (attended, attended_oracle) = rounded(bench, reference::attention(fused_oracle.clone(), dims, dropout));
    let (into, into_oracle) = into(bench, dims);
    bench.poison([n, c], DType::F32);
    bench.poison([n.div_ceil(16), 3 * c], DType::F32);
    let (found, sums) = B::attention_rotary_backward(d_o, fused, attended, &table, dims, dropout, into);
    let expected = reference::attention_backward(d_o_oracle, fused_oracle, attended_oracle, dims, dropout, into_oracle);
    let expected = reference::rotary(expected, &oracle, dims, Turn::Back);
    let names = ["attention_rotary_backward dq", "attention_rotary_backward dk", "attention_rotary_backward dv"];
    for (name, start) in names.into_iter().zip([0, c, 2 * c]) {
        let of_part = [0..n, start..start + c];
        bench.compare(name, &shape, found.clone().slice(of_part.clone()), expected.clone().slice(of_part));
    }
    let others = [0..n, 3 * c..w];
    let unchanged = (found.slice(others.clone()), expected.clone().slice(others));
    bench.compare("attention_rotary_backward other columns", &shape, unchanged.0, unchanged.1);
    if let Some(sums) = sums {
        let bias = VectorSlot { offset: 5, len: 3 * c };
        let (mut grads, mut grads_oracle) = bench.draw([3 * c + 8], DType::F32);
        B::bias_grad(sums, BiasGrad { flat: &mut grads, bias });
        reference::bias_grad(expected.slice([0..n, 0..3 * c]), BiasGrad { flat: &mut grads_oracle, bias });
        // Of values that are made of rounded probabilities.
        bench.compare_rounded("attention_rotary_backward dbias", &shape, dtype, grads, grads_oracle);
    }
}
