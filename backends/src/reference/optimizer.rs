use burn_backend::Backend;
use burn_tensor::{DType, Tensor};

use crate::ops::{AdamWBuffers, AdamWStep};

pub fn sum_of_squares<B: Backend>(flat: &Tensor<B, 1>) -> Tensor<B, 1> {
    (flat.clone() * flat.clone()).sum()
}

/// In fp64 on the host.
pub fn grad_factor<B: Backend>(
    loss: &Tensor<B, 1>,
    squares: &Tensor<B, 1>,
    loss_scale: f32,
    clip: f32,
) -> Tensor<B, 1> {
    let device = squares.device();
    let (loss, squares) = (host_scalar(loss), host_scalar(squares));
    let (loss_scale, clip) = (f64::from(loss_scale), f64::from(clip));
    let norm = f64::from(squares).sqrt() / loss_scale;
    // PyTorch's clip_grad_norm_ adds the same 1e-6.
    let clipping = if clip > 0.0 { (clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
    let factor = if loss.is_finite() && squares.is_finite() { (clipping / loss_scale) as f32 } else { 0.0 };
    Tensor::from_data([factor], (&device, DType::F32))
}

fn host_scalar<B: Backend>(tensor: &Tensor<B, 1>) -> f32 {
    #[expect(clippy::expect_used, reason = "converted on the same line")]
    tensor.clone().into_data().convert::<f32>().as_slice::<f32>().expect("just converted to fp32")[0]
}

/// m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2,
/// w = w (1 - lr decay) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).
pub fn adamw<B: Backend>(
    buffers: AdamWBuffers<B>,
    grads: &Tensor<B, 1>,
    factor: &Tensor<B, 1>,
    decay_len: usize,
    step: AdamWStep,
) -> AdamWBuffers<B> {
    let factor = host_scalar(factor);
    if factor == 0.0 {
        return buffers;
    }
    let AdamWBuffers { weights, master, m, v } = buffers;
    let dtype = weights.dtype();
    let kept_apart = master.is_some();
    let w = master.unwrap_or(weights);
    let len = w.dims()[0];
    let g = grads.clone() * factor;
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
