//! The residual sum and the layer norm behind it.

use burn_flex::Flex;
use burn_tensor::{DType, Tensor};

use super::activations::masks_agree;
use super::{Bench, DIMS, dropouts, host, label};
use crate::dropout::Dropout;
use crate::ops::{
    BiasGrad, BlockDims, BranchGrads, DecoderBackend, NormGrads, NormInputs, NormWeights, Normed, VectorSlot,
};
use crate::reference;

const EPS: f32 = 1e-5;
/// Four vectors a unit, the last of them not there for some; more rows than a large GPU has cubes at work.
const ROWS: BlockDims = BlockDims { batch: 5, seq: 167, heads: 9, head_dim: 52, rotary_dim: 8, mlp: 8 };

pub fn run<B: DecoderBackend>(bench: &mut Bench<B>) {
    for dims in DIMS.into_iter().chain([ROWS]) {
        for (dropout, with_around) in dropouts().into_iter().zip([true, false]) {
            forward(bench, dims, dropout);
            backward(bench, dims, dropout, with_around);
        }
        backward(bench, dims, None, false);
        backward(bench, dims, dropouts()[1], true);
    }
}

fn shape(dims: BlockDims, dropped: bool) -> String {
    format!("{}{}", label(dims), if dropped { ", dropout" } else { "" })
}

fn forward<B: DecoderBackend>(bench: &mut Bench<B>, dims: BlockDims, dropout: Option<Dropout>) {
    let (dtype, shape) = (bench.dtype, shape(dims, dropout.is_some()));
    let (tokens, c) = (dims.tokens(), dims.hidden());
    let (x, x_oracle) = bench.draw([tokens, c], DType::F32);
    // Far from zero: a variance taken as a difference of squares would lose its digits.
    let (x, x_oracle) = (x + 10.0, x_oracle + 10.0);
    let (attention, attention_oracle) = bench.draw([tokens, c], dtype);
    let (mlp, mlp_oracle) = bench.draw([tokens, c], dtype);
    let (gamma, gamma_oracle) = bench.draw([c], dtype);
    let (beta, beta_oracle) = bench.draw([c], dtype);
    bench.poison([tokens, c], DType::F32);
    bench.poison([tokens, c], dtype);
    bench.poison([tokens], DType::F32);
    let (sum, Normed { y, mean, rstd }) =
        B::residual_norm(x, attention, mlp, dims, dropout, NormWeights { gamma, beta, eps: EPS });
    let expected = reference::residual(x_oracle, attention_oracle, mlp_oracle, dims, dropout);
    bench.compare("residual_norm sum", &shape, sum, expected.clone());
    let expected = reference::layer_norm(expected, gamma_oracle, beta_oracle, EPS, DType::F32);
    assert_eq!(y.dtype(), dtype);
    bench.compare("residual_norm y", &shape, y, expected.y);
    bench.compare("residual_norm mean", &shape, mean, expected.mean);
    bench.compare("residual_norm rstd", &shape, rstd, expected.rstd);
}

fn backward<B: DecoderBackend>(bench: &mut Bench<B>, dims: BlockDims, dropout: Option<Dropout>, with_around: bool) {
    let (dtype, shape) = (bench.dtype, shape(dims, dropout.is_some()));
    let (tokens, c) = (dims.tokens(), dims.hidden());
    let (x, x_oracle) = bench.draw([tokens, c], DType::F32);
    let (dy, dy_oracle) = bench.draw([tokens, c], dtype);
    let (gamma, gamma_oracle) = bench.draw([c], dtype);
    let (around, around_oracle) = bench.draw([tokens, c], DType::F32);
    let slots = [3, c + 7].map(|offset| VectorSlot { offset, len: c });
    let (mut flat, mut flat_oracle) = bench.draw([2 * c + 9], DType::F32);
    let beta = Tensor::zeros([c], &Default::default());
    let Normed { mean, rstd, .. } =
        reference::layer_norm(x_oracle.clone(), gamma_oracle.clone(), beta, EPS, DType::F32);
    let [mean_found, rstd_found] =
        [&mean, &rstd].map(|statistic| Tensor::from_data(statistic.to_data(), (&bench.device, DType::F32)));
    bench.poison([tokens, c], DType::F32);
    bench.poison([tokens, c], dtype);
    let inputs = NormInputs { x, mean: mean_found, rstd: rstd_found, gamma };
    let grads = NormGrads { flat: &mut flat, gamma: slots[0], beta: slots[1] };
    let around = with_around.then_some(around);
    let (dx, branches) = B::residual_norm_backward(dy, inputs, grads, around, dims, dropout);

    let grads = NormGrads { flat: &mut flat_oracle, gamma: slots[0], beta: slots[1] };
    let around = with_around.then_some(around_oracle);
    let dx_oracle = reference::layer_norm_backward(dy_oracle, x_oracle, mean, rstd, gamma_oracle, grads, around);
    let (attention_oracle, mlp_oracle) = reference::residual_backward(dx_oracle.clone(), dims, dropout, DType::F32);
    let BranchGrads { attention, mlp, attention_sums, mlp_sums } = branches;
    bench.compare("residual_norm_backward dx", &shape, dx, dx_oracle);
    bench.compare("residual_norm_backward dgamma, dbeta", &shape, flat, flat_oracle);
    for (gradient, oracle, sums) in [(attention, attention_oracle, attention_sums), (mlp, mlp_oracle, mlp_sums)] {
        assert_eq!(gradient.dtype(), dtype);
        let both = (host(gradient.clone()), host(oracle.clone()));
        masks_agree(bench, "residual_norm_backward mask", &shape, both);
        bench.compare("residual_norm_backward branch", &shape, gradient, oracle.clone());

        let bias = VectorSlot { offset: 5, len: c };
        let (mut grads, mut grads_oracle) = bench.draw([c + 8], DType::F32);
        B::bias_grad(sums, BiasGrad { flat: &mut grads, bias });
        reference::bias_grad::<Flex>(oracle, BiasGrad { flat: &mut grads_oracle, bias });
        // Sums of a column's values, which are rounded first where no kernel adds them up before.
        bench.compare_rounded("bias_grad", &shape, dtype, grads, grads_oracle);
    }
}
