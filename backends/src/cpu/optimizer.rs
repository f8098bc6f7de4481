use burn_flex::Flex;
use burn_tensor::{DType, Tensor};
use rayon::prelude::*;

use super::simd::vectorized;
use super::slices::{modified, tensor, wide};
use crate::ops::{AdamWBuffers, AdamWStep};
use crate::reference::bias_corrections;

/// Elements a task.
const CHUNK: usize = 1 << 14;

/// In fp64, in chunks of fixed size: exact enough that the order of tasks would not matter, and it does not vary.
pub fn sum_of_squares(flat: &Tensor<Flex, 1>) -> Tensor<Flex, 1> {
    let flat = wide(flat.clone());
    let parts: Vec<f64> = flat
        .par_chunks(CHUNK)
        .map(|chunk| {
            vectorized(|| {
                let mut parts = [0.0f64; 8];
                let eights = chunk.chunks_exact(8);
                let tail: f64 = eights.remainder().iter().map(|g| f64::from(*g) * f64::from(*g)).sum();
                for eight in eights {
                    for i in 0..8 {
                        parts[i] += f64::from(eight[i]) * f64::from(eight[i]);
                    }
                }
                parts.iter().sum::<f64>() + tail
            })
        })
        .collect();
    tensor(vec![parts.iter().sum::<f64>() as f32], [1], DType::F32)
}

pub fn adamw(
    buffers: AdamWBuffers<Flex>,
    grads: &Tensor<Flex, 1>,
    factor: &Tensor<Flex, 1>,
    decay_len: usize,
    step: AdamWStep,
) -> AdamWBuffers<Flex> {
    let factor = wide(factor.clone())[0];
    if factor == 0.0 {
        return buffers;
    }
    let AdamWBuffers { weights, master, m, v } = buffers;
    let dtype = weights.dtype();
    let kept_apart = master.is_some();
    let w = match master {
        Some(master) => master,
        None => weights,
    };
    let grads = wide(grads.clone());
    let (w, (m, v)) = modified(w, |w| {
        let (m, v) = modified(m, |m| modified(v, |v| update(w, m, v, &grads, factor, decay_len, step)).0);
        (m, v)
    });
    if kept_apart {
        AdamWBuffers { weights: w.clone().cast(dtype), master: Some(w), m, v }
    } else {
        AdamWBuffers { weights: w, master: None, m, v }
    }
}

fn update(w: &mut [f32], m: &mut [f32], v: &mut [f32], grads: &[f32], factor: f32, decay_len: usize, step: AdamWStep) {
    let (correction1, correction2) = bias_corrections(step);
    let AdamWStep { lr, beta1, beta2, eps, weight_decay, .. } = step;
    w.par_chunks_mut(CHUNK)
        .zip(m.par_chunks_mut(CHUNK))
        .zip(v.par_chunks_mut(CHUNK))
        .zip(grads.par_chunks(CHUNK))
        .enumerate()
        .for_each(|(chunk, (((w, m), v), g))| {
            let decayed = decay_len.saturating_sub(chunk * CHUNK).min(w.len());
            vectorized(|| {
                w[..decayed].iter_mut().for_each(|w| *w *= 1.0 - lr * weight_decay);
                for i in 0..w.len() {
                    let g = g[i] * factor;
                    m[i] = beta1 * m[i] + (1.0 - beta1) * g;
                    v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
                    w[i] -= lr * (m[i] / correction1) / ((v[i] / correction2).sqrt() + eps);
                }
            });
        });
}
