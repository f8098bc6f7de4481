use burn_backend::Backend;
use burn_tensor::Tensor;

use crate::ops::{AdamWBuffers, AdamWStep};

pub fn sum_of_squares<B: Backend>(flat: &Tensor<B, 1>) -> Tensor<B, 1> {
    (flat.clone() * flat.clone()).sum()
}

/// m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2,
/// w = w (1 - lr decay) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).
pub fn adamw<B: Backend>(
    buffers: AdamWBuffers<B>,
    grads: &Tensor<B, 1>,
    decay_len: usize,
    step: AdamWStep,
) -> AdamWBuffers<B> {
    let AdamWBuffers { weights, master, m, v } = buffers;
    let dtype = weights.dtype();
    let kept_apart = master.is_some();
    let w = master.unwrap_or(weights);
    let len = w.dims()[0];
    let g = grads.clone() * step.grad_factor;
    let m = m * step.beta1 + g.clone() * (1.0 - step.beta1);
    let v = v * step.beta2 + g.clone() * g * (1.0 - step.beta2);
    let (correction1, correction2) = bias_corrections(step);
    let update = m.clone() / correction1 / ((v.clone() / correction2).sqrt() + step.eps) * step.lr;
    let keep = 1.0 - step.lr * step.weight_decay;
    let decayed = w.clone().slice([0..decay_len]) * keep;
    let w = if decay_len < len { Tensor::cat(vec![decayed, w.slice([decay_len..len])], 0) } else { decayed } - update;
    if kept_apart {
        AdamWBuffers { weights: w.clone().cast(dtype), master: Some(w), m, v }
    } else {
        AdamWBuffers { weights: w, master: None, m, v }
    }
}

/// 1 - beta^t for both moments, in fp64 before it is rounded: beta2^t is close to 1 at first.
pub fn bias_corrections(step: AdamWStep) -> (f32, f32) {
    let correction = |beta: f32| (1.0 - f64::from(beta).powi(step.update.min(i32::MAX as u64) as i32)) as f32;
    (correction(step.beta1), correction(step.beta2))
}
