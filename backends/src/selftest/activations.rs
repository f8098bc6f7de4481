//! GELU, rotary embedding, residual and dropout.

use burn_tensor::DType;

use super::{Bench, DIMS, dropouts, host, label};
use crate::ops::{BiasGrad, BlockDims, DecoderBackend, RotaryTable, Turn, VectorSlot};
use crate::reference;

pub fn run<B: DecoderBackend>(bench: &mut Bench<B>) {
    for dims in DIMS {
        gelu(bench, dims);
        rotary(bench, dims);
        residual(bench, dims);
    }
    // Past 65,535 cubes of 32 units, an element a unit.
    gelu(bench, BlockDims { batch: 1, seq: 4201, heads: 1, head_dim: 2, rotary_dim: 2, mlp: 501 });
}

fn gelu<B: DecoderBackend>(bench: &mut Bench<B>, dims: BlockDims) {
    let (dtype, shape) = (bench.dtype, label(dims));
    let (tokens, start) = (dims.tokens(), 3 * dims.hidden());
    let (fused, fused_oracle) = bench.draw([tokens, dims.fused()], dtype);
    bench.poison([tokens, dims.mlp], dtype);
    let found = B::gelu_tanh(fused.clone(), dims);
    bench.compare("gelu_tanh", &shape, found, reference::gelu(fused_oracle.clone(), dims));

    let (dh, dh_oracle) = bench.draw([tokens, dims.mlp], dtype);
    // The columns of q, k and v keep what they hold; those of fc1 are overwritten.
    let (qkv, qkv_oracle) = bench.draw([tokens, start], dtype);
    let into = bench.nan([tokens, dims.fused()], dtype).slice_assign([0..tokens, 0..start], qkv);
    let into_oracle = fused_oracle.clone().slice_assign([0..tokens, 0..start], qkv_oracle);
    let bias = VectorSlot { offset: 5, len: dims.mlp };
    let (mut grads, mut grads_oracle) = bench.draw([dims.mlp + 8], DType::F32);
    // As large as the sums of 64 rows each.
    bench.poison([tokens.div_ceil(64) * dims.mlp], DType::F32);
    let grad = BiasGrad { flat: &mut grads, bias };
    let found = B::gelu_tanh_backward(dh, fused, dims, into, grad);
    let grad = BiasGrad { flat: &mut grads_oracle, bias };
    let expected = reference::gelu_backward(dh_oracle, fused_oracle, dims, into_oracle, grad);
    bench.compare("gelu_tanh_backward", &shape, found, expected);
    bench.compare("gelu_tanh_backward dbias", &shape, grads, grads_oracle);
}

fn rotary<B: DecoderBackend>(bench: &mut Bench<B>, dims: BlockDims) {
    let (dtype, shape) = (bench.dtype, label(dims));
    // The table is longer than the sequence.
    let (cos, cos_oracle) = bench.draw([dims.seq + 3, dims.rotary_dim / 2], DType::F32);
    let (sin, sin_oracle) = bench.draw([dims.seq + 3, dims.rotary_dim / 2], DType::F32);
    let (table, oracle) = (RotaryTable { cos, sin }, RotaryTable { cos: cos_oracle, sin: sin_oracle });
    for (op, turn) in [("rotary", Turn::Forward), ("rotary back", Turn::Back)] {
        let (fused, fused_oracle) = bench.draw([dims.tokens(), dims.fused()], dtype);
        let found = B::rotary(fused, &table, dims, turn);
        bench.compare(op, &shape, found, reference::rotary(fused_oracle, &oracle, dims, turn));
    }
}

fn residual<B: DecoderBackend>(bench: &mut Bench<B>, dims: BlockDims) {
    let dtype = bench.dtype;
    let size = [dims.tokens(), dims.hidden()];
    for dropout in dropouts() {
        let shape = format!("{}{}", label(dims), if dropout.is_some() { ", dropout" } else { "" });
        let (x, x_oracle) = bench.draw(size, DType::F32);
        let (attention, attention_oracle) = bench.draw(size, dtype);
        let (mlp, mlp_oracle) = bench.draw(size, dtype);
        bench.poison(size, DType::F32);
        let found = B::residual(x.clone(), attention, mlp, dims, dropout);
        let expected = reference::residual(x_oracle.clone(), attention_oracle, mlp_oracle, dims, dropout);
        bench.compare("residual", &shape, found, expected);

        bench.poison(size, dtype);
        let found = B::residual_backward(x.clone(), dims, dropout, dtype);
        let expected = reference::residual_backward(x_oracle.clone(), dims, dropout, DType::F32);
        masks_agree(bench, "residual_backward mask", &shape, (host(found.0.clone()), host(expected.0.clone())));
        masks_agree(bench, "residual_backward mask", &shape, (host(found.1.clone()), host(expected.1.clone())));
        bench.compare("residual_backward attention", &shape, found.0, expected.0);
        bench.compare("residual_backward mlp", &shape, found.1, expected.1);

        let found = B::embedding_dropout(x, dims.seq, dropout);
        bench.compare("embedding_dropout", &shape, found, reference::embedding_dropout(x_oracle, dims.seq, dropout));
    }
}

/// fp16 makes a 0 of what is below 2^-25, which some gradient among a million is. No other dtype does.
const SEEN: f32 = 1.0 / (1 << 20) as f32;

/// Masks are the same bits everywhere: the error is the share of elements that one side drops and the other keeps, and
/// none is tolerated. Elements that fp16 could have made 0 say nothing of a mask.
pub(super) fn masks_agree<B: DecoderBackend>(
    bench: &mut Bench<B>,
    op: &'static str,
    shape: &str,
    (found, expected): (Vec<f32>, Vec<f32>),
) {
    let seen = if bench.dtype == DType::F16 { SEEN } else { 0.0 };
    let differs = |(a, b): &(&f32, &f32)| (**a == 0.0) != (**b == 0.0) && a.abs().max(b.abs()) > seen;
    let differing = found.iter().zip(&expected).filter(differs).count();
    let error = differing as f64 / expected.len() as f64;
    bench.cases.push(super::Case { op, dtype: bench.dtype, shape: shape.into(), error, tolerance: 0.0 });
}
