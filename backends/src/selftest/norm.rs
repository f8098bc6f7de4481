use burn_flex::Flex;
use burn_tensor::{DType, Tensor, TensorData};

use super::{Bench, host};
use crate::ops::{DecoderBackend, NormGrads, VectorSlot};
use crate::reference;

/// Rows x columns; the last has more rows than one dimension of a dispatch has cubes of eight.
const SHAPES: [[usize; 2]; 4] = [[1, 1], [70, 37], [129, 256], [525_001, 3]];
const EPS: f32 = 1e-5;
/// Rows that the reference sums in fp32.
const PIECE: usize = 4096;

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
        let len = beta_slot.offset + cols + 3;
        let (mut grads, grads_oracle) = bench.draw([len], DType::F32);
        let (dy, dy_oracle) = bench.draw([rows, cols], dtype);
        bench.poison([rows, cols], DType::F32);
        let slots = NormGrads { flat: &mut grads, gamma: gamma_slot, beta: beta_slot };
        // The reference's statistics for both: the gradient is compared, not the statistics again.
        let [mean, rstd] = [&expected.mean, &expected.rstd]
            .map(|statistic| Tensor::from_data(statistic.to_data(), (&bench.device, DType::F32)));
        let (around, around_oracle) = bench.draw([rows, cols], DType::F32);
        let with_around = rows.is_multiple_of(2);
        let dx = B::layer_norm_backward(dy, x, mean, rstd, gamma, slots, with_around.then_some(around));

        // The reference in pieces of rows whose weight gradients are added up in fp64: over half a million rows one
        // running fp32 sum is itself off by 1e-5.
        let mut sums: Vec<f64> = host(grads_oracle).into_iter().map(f64::from).collect();
        let mut dx_oracle = Vec::new();
        for first in (0..rows).step_by(PIECE) {
            let piece = first..(first + PIECE).min(rows);
            let mut flat = Tensor::<Flex, 1>::zeros([len], &Default::default());
            dx_oracle.push(reference::layer_norm_backward(
                dy_oracle.clone().slice([piece.clone()]),
                x_oracle.clone().slice([piece.clone()]),
                expected.mean.clone().slice([piece.clone()]),
                expected.rstd.clone().slice([piece.clone()]),
                gamma_oracle.clone(),
                NormGrads { flat: &mut flat, gamma: gamma_slot, beta: beta_slot },
                with_around.then(|| around_oracle.clone().slice([piece])),
            ));
            sums.iter_mut().zip(host(flat)).for_each(|(sum, value)| *sum += f64::from(value));
        }
        // A single column's gradient is 0 up to rounding: nothing to be relative to.
        if cols > 1 {
            bench.compare("layer_norm_backward dx", &shape, dx, Tensor::cat(dx_oracle, 0));
        }
        let sums: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
        let expected = Tensor::from_data(TensorData::from(&sums[..]), &Default::default());
        bench.compare("layer_norm_backward dgamma, dbeta", &shape, grads, expected);
    }
}
