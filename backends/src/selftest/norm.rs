use burn_tensor::DType;

use super::Bench;
use crate::ops::{DecoderBackend, NormGrads, VectorSlot};
use crate::reference;

/// Rows x columns; the last has more rows than one dimension of a dispatch has cubes of eight.
const SHAPES: [[usize; 2]; 4] = [[1, 1], [70, 37], [129, 256], [525_001, 3]];
const EPS: f32 = 1e-5;

pub fn run<B: DecoderBackend>(bench: &mut Bench<B>) {
    let dtype = bench.dtype;
    for [rows, cols] in SHAPES {
        let shape = format!("{rows} x {cols}");
        let (x, x_oracle) = bench.draw([rows, cols], DType::F32);
        // Far from zero: a variance taken as a difference of squares would lose its digits.
        let (x, x_oracle) = (x + 10.0, x_oracle + 10.0);
        let (gamma, gamma_oracle) = bench.draw([cols], dtype);
        let (beta, beta_oracle) = bench.draw([cols], dtype);
        bench.poison([rows, cols], dtype);
        bench.poison([rows], DType::F32);
        let found = B::layer_norm_forward(x.clone(), gamma.clone(), beta, EPS, dtype);
        let expected = reference::layer_norm(x_oracle.clone(), gamma_oracle.clone(), beta_oracle, EPS, DType::F32);
        bench.compare("layer_norm_forward y", &shape, found.y, expected.y);
        bench.compare("layer_norm_forward mean", &shape, found.mean.clone(), expected.mean.clone());
        bench.compare("layer_norm_forward rstd", &shape, found.rstd.clone(), expected.rstd.clone());

        // One slot that a device can bind as it is, one that starts between its alignments.
        let gamma_slot = VectorSlot { offset: 256, len: cols };
        let beta_slot = VectorSlot { offset: 256 + cols + 5, len: cols };
        let (mut grads, mut grads_oracle) = bench.draw([beta_slot.offset + cols + 3], DType::F32);
        let (dy, dy_oracle) = bench.draw([rows, cols], dtype);
        bench.poison([rows, cols], DType::F32);
        let slots = NormGrads { flat: &mut grads, gamma: gamma_slot, beta: beta_slot };
        // The oracle's statistics for both: the gradient is compared, not the statistics again.
        let [mean, rstd] = [&expected.mean, &expected.rstd]
            .map(|statistic| burn_tensor::Tensor::from_data(statistic.to_data(), (&bench.device, DType::F32)));
        let dx = B::layer_norm_backward(dy, x, mean, rstd, gamma, slots);
        let slots = NormGrads { flat: &mut grads_oracle, gamma: gamma_slot, beta: beta_slot };
        let dx_oracle =
            reference::layer_norm_backward(dy_oracle, x_oracle, expected.mean, expected.rstd, gamma_oracle, slots);
        // A single column's gradient is 0 up to rounding: nothing to be relative to.
        if cols > 1 {
            bench.compare("layer_norm_backward dx", &shape, dx, dx_oracle);
        }
        bench.compare("layer_norm_backward dgamma, dbeta", &shape, grads, grads_oracle);
    }
}
