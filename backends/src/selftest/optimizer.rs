use burn_flex::Flex;
use burn_tensor::{DType, Tensor};

use super::Bench;
use crate::ops::{AdamWBuffers, AdamWStep, DecoderBackend};
use crate::reference;

/// Elements, and those that decay; the last is past 65,535 cubes of 32 units.
const LENGTHS: [[usize; 2]; 5] = [[1, 0], [1001, 1001], [1024, 512], [777, 10], [2_200_001, 1_000_003]];

/// Loss, sum of squares, loss scale and limit: clipped, below the limit, no limit, and three that must give zero.
const FACTORS: [[f32; 4]; 6] = [
    [3.0, 900.0, 4.0, 1.0],
    [3.0, 0.25, 4.0, 1.0],
    [3.0, 900.0, 65_536.0, 0.0],
    [3.0, f32::INFINITY, 4.0, 1.0],
    [f32::NAN, 900.0, 4.0, 1.0],
    [3.0, f32::NAN, 4.0, 0.0],
];

pub fn run<B: DecoderBackend>(bench: &mut Bench<B>) {
    for [loss, squares, loss_scale, clip] in FACTORS {
        let found = B::grad_factor(&bench.scalar(loss), &bench.scalar(squares), loss_scale, clip);
        let [loss, squares] = [loss, squares].map(|x| Tensor::<Flex, 1>::from_data([x], &Default::default()));
        let expected = reference::grad_factor(&loss, &squares, loss_scale, clip);
        // Zero is compared one higher: there is nothing relative about it.
        let higher = if super::host(expected.clone())[0] == 0.0 { 1.0 } else { 0.0 };
        bench.compare("grad_factor", &format!("{loss_scale}, {clip}"), found + higher, expected + higher);
    }
    for [len, decay_len] in LENGTHS {
        adamw(bench, len, decay_len);
        let shape = len.to_string();
        let (flat, oracle) = bench.draw([len], DType::F32);
        bench.poison([1], DType::F32);
        let found = B::sum_of_squares(&flat);
        // In fp64, since one running fp32 sum of millions of squares is itself off by more than the tolerance.
        let sum: f64 = super::host(oracle).iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
        bench.compare("sum_of_squares", &shape, found, Tensor::<Flex, 1>::full([1], sum, &Default::default()));

        let mut cleared = bench.nan([len], DType::F32);
        B::clear(&mut cleared);
        // Compared one higher: there is nothing relative about zero.
        bench.compare("clear", &shape, cleared + 1.0, Tensor::ones([len], &Default::default()));
    }
}

fn adamw<B: DecoderBackend>(bench: &mut Bench<B>, len: usize, decay_len: usize) {
    let shape = format!("{len}, {decay_len} decay");
    let narrow = bench.dtype != DType::F32;
    let (master, master_oracle) = bench.draw([len], DType::F32);
    let (m, m_oracle) = bench.draw([len], DType::F32);
    let (v, v_oracle) = bench.draw([len], DType::F32);
    let (v, v_oracle) = (v.clone() * v, v_oracle.clone() * v_oracle);
    let (grads, grads_oracle) = bench.draw([len], DType::F32);
    let step = AdamWStep { lr: 0.05, beta1: 0.9, beta2: 0.98, eps: 1e-7, weight_decay: 0.1, update: 3 };
    let factor = Tensor::<Flex, 1>::full([1], 0.25, &Default::default());
    let (weights, kept) = if narrow { (bench.nan([len], bench.dtype), Some(master)) } else { (master, None) };
    let found = B::adamw(AdamWBuffers { weights, master: kept, m, v }, &grads, &bench.scalar(0.25), decay_len, step);
    // A factor of zero leaves what the update before it made.
    let found = B::adamw(found, &grads, &bench.scalar(0.0), decay_len, step);
    let buffers = AdamWBuffers { weights: master_oracle, master: None, m: m_oracle, v: v_oracle };
    let expected = reference::adamw(buffers, &grads_oracle, &factor, decay_len, step);
    if let Some(master) = found.master {
        bench.compare("adamw master", &shape, master, expected.weights.clone());
    }
    bench.compare("adamw weights", &shape, found.weights, expected.weights);
    bench.compare("adamw m", &shape, found.m, expected.m);
    bench.compare("adamw v", &shape, found.v, expected.v);
}
