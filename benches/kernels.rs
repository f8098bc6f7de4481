//! Each operation of the decoder on one device, checked against the reference before it is timed.
//!
//! `cargo bench --bench kernels -- [filter]`. TRAINER_BENCH_BACKEND is cpu, wgpu or cuda [wgpu], TRAINER_BENCH_PRECISION fp32
//! or fp16 [fp32], TRAINER_BENCH_SHAPE `batch,seq,heads,head_dim,vocab` [4,256,2,64,2048]. An element is one FLOP of a product
//! or one byte read or written by anything else; the group `ceiling` has the device's own copy and burn's matmul.

use std::time::Duration;

use burn_flex::Flex;
use burn_tensor::{DType, Distribution, Int, Tensor, TensorData};
use criterion::{Criterion, Throughput};
use trainer_backends::discovery::{Request, choose};
use trainer_backends::dropout::Dropout;
use trainer_backends::ops::{
    AdamWBuffers, AdamWStep, Attended, BiasGrad, BlockDims, MatrixSlot, NormGrads, RotaryTable, Turn, VectorSlot,
    WeightGrads,
};
use trainer_backends::{DecoderBackend, reference};

/// As in backends/src/selftest: the rounding of a result in fp16, the order of sums in fp32.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F32 { 1e-5 } else { 1e-3 }
}

struct Bench<'a, B: DecoderBackend> {
    criterion: &'a mut Criterion,
    device: B::Device,
    dtype: DType,
}

impl<B: DecoderBackend> Bench<'_, B> {
    fn draw<const D: usize>(&self, shape: [usize; D], dtype: DType) -> (Tensor<B, D>, Tensor<Flex, D>) {
        let normal = Distribution::Normal(0.0, 1.0);
        let data = Tensor::<Flex, D>::random(shape, normal, &Default::default()).into_data().convert_dtype(dtype);
        let oracle = Tensor::from_data(data.clone().convert_dtype(DType::F32), (&Default::default(), DType::F32));
        (Tensor::from_data(data, (&self.device, dtype)), oracle)
    }

    fn check<const D: usize>(&self, what: &str, found: Tensor<B, D>, expected: Tensor<Flex, D>) {
        let host = |data: TensorData| data.convert_dtype(DType::F32).into_vec::<f32>().unwrap();
        let tolerance = tolerance(found.dtype());
        let (found, expected) = (host(found.into_data()), host(expected.into_data()));
        let square = |value: f32| f64::from(value).powi(2);
        let difference: f64 = found.iter().zip(&expected).map(|(a, b)| square(a - b)).sum();
        let error = (difference / expected.iter().map(|value| square(*value)).sum::<f64>()).sqrt();
        assert!(error <= tolerance, "{what}: relative error {error:.1e}, tolerance {tolerance:.0e}");
    }

    /// Times `work` to the end of what it queued; `work_done` is FLOP or bytes.
    fn time<T>(&mut self, group: &str, name: &str, work_done: usize, mut work: impl FnMut() -> T) {
        let mut group = self.criterion.benchmark_group(group);
        group.throughput(Throughput::Elements(work_done as u64));
        let device = self.device.clone();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let result = work();
                B::sync(&device).expect("the device works");
                result
            })
        });
        group.finish();
    }

    fn ceilings(&mut self) {
        let len = 1 << 24;
        let (x, _) = self.draw([len], DType::F32);
        self.time("ceiling", "copy", 8 * len, || x.clone() * 1.5);
        let n = 512;
        let ((a, _), (b, _)) = (self.draw([n, n], self.dtype), self.draw([n, n], self.dtype));
        self.time("ceiling", "matmul", 2 * n * n * n, || a.clone().matmul(b.clone()));
    }

    fn linear(&mut self, name: &str, [n, k, o]: [usize; 3]) {
        let dtype = self.dtype;
        let ((x, xr), (w, wr), (b, br)) = (self.draw([n, k], dtype), self.draw([o, k], dtype), self.draw([o], dtype));
        let (dy, dyr) = self.draw([n, o], dtype);
        let weight = MatrixSlot { offset: 0, rows: o, cols: k };
        let bias = VectorSlot { offset: o * k, len: o };
        let mut flat = Tensor::<B, 1>::zeros([o * k + o], (&self.device, DType::F32));
        let mut flat_r = Tensor::<Flex, 1>::zeros([o * k + o], (&Default::default(), DType::F32));

        let y = B::linear_forward(x.clone(), w.clone(), b.clone());
        self.check(name, y, reference::linear(xr.clone(), wr.clone(), br));
        let dx = B::linear_backward(dy.clone(), x.clone(), w.clone(), WeightGrads { flat: &mut flat, weight, bias });
        let slots = WeightGrads { flat: &mut flat_r, weight, bias };
        self.check(name, dx, reference::linear_backward(dyr, xr, wr, slots));
        self.check(name, flat.clone(), flat_r);

        self.time("linear forward", name, 2 * n * k * o, || B::linear_forward(x.clone(), w.clone(), b.clone()));
        self.time("linear backward", name, 4 * n * k * o, || {
            let slots = WeightGrads { flat: &mut flat, weight, bias };
            B::linear_backward(dy.clone(), x.clone(), w.clone(), slots)
        });
    }

    fn attention(&mut self, dims: BlockDims) {
        let (n, c) = (dims.tokens(), dims.hidden());
        let dtype = self.dtype;
        let (fused, fused_r) = self.draw([n, dims.fused()], dtype);
        let (d_o, d_o_r) = self.draw([n, c], dtype);
        // Causal: half of T x T scores, two products of D forward, five backward.
        let product = dims.batch * dims.heads * dims.seq * dims.seq * dims.head_dim;
        for dropout in [None, Dropout::new(0.1, 1, 1, 0)] {
            let name = if dropout.is_some() { "dropout" } else { "plain" };
            let found = B::attention_forward(fused.clone(), dims, dropout);
            let expected = reference::attention(fused_r.clone(), dims, dropout);
            self.check("attention", found.o.clone(), expected.o.clone());
            let into = || Tensor::<B, 2>::zeros([n, dims.fused()], (&self.device, dtype));
            let into_r = Tensor::<Flex, 2>::zeros([n, dims.fused()], (&Default::default(), DType::F32));
            // Both backwards start from the oracle's forward, as rounded as a forward in this dtype leaves it.
            let o = expected.o.cast(dtype);
            let on_device = Attended {
                o: Tensor::from_data(o.to_data(), (&self.device, dtype)),
                lse: Tensor::from_data(expected.lse.to_data(), (&self.device, DType::F32)),
            };
            let attended = || Attended { o: on_device.o.clone(), lse: on_device.lse.clone() };
            let expected = Attended { o: o.cast(DType::F32), lse: expected.lse };
            let back = B::attention_backward(d_o.clone(), fused.clone(), attended(), dims, dropout, into());
            let back_r = reference::attention_backward(d_o_r.clone(), fused_r.clone(), expected, dims, dropout, into_r);
            self.check("attention backward", back, back_r);

            self.time("attention forward", name, 2 * product, || B::attention_forward(fused.clone(), dims, dropout));
            let grads = Tensor::<B, 2>::zeros([n, dims.fused()], (&self.device, dtype));
            let mut grads = Some(grads);
            self.time("attention backward", name, 5 * product, || {
                let into = grads.take().expect("put back below");
                grads = Some(B::attention_backward(d_o.clone(), fused.clone(), attended(), dims, dropout, into));
            });
        }
    }

    fn norm(&mut self, [n, c]: [usize; 2]) {
        let (dtype, size) = (self.dtype, self.dtype.size());
        let ((x, xr), (g, gr), (b, br)) = (self.draw([n, c], DType::F32), self.draw([c], dtype), self.draw([c], dtype));
        let normed = B::layer_norm_forward(x.clone(), g.clone(), b.clone(), 1e-5, dtype);
        let expected = reference::layer_norm(xr.clone(), gr.clone(), br, 1e-5, DType::F32);
        self.check("layer norm", normed.y, expected.y);
        self.time("layer norm", "forward", n * c * (4 + size), || {
            B::layer_norm_forward(x.clone(), g.clone(), b.clone(), 1e-5, dtype)
        });

        let (dy, dyr) = self.draw([n, c], dtype);
        let mut flat = Tensor::<B, 1>::zeros([2 * c], (&self.device, DType::F32));
        let mut flat_r = Tensor::<Flex, 1>::zeros([2 * c], (&Default::default(), DType::F32));
        let (gamma, beta) = (VectorSlot { offset: 0, len: c }, VectorSlot { offset: c, len: c });
        let backward = |flat: &mut Tensor<B, 1>| {
            let (mean, rstd) = (normed.mean.clone(), normed.rstd.clone());
            B::layer_norm_backward(dy.clone(), x.clone(), mean, rstd, g.clone(), NormGrads { flat, gamma, beta }, None)
        };
        let grads = NormGrads { flat: &mut flat_r, gamma, beta };
        let expected = reference::layer_norm_backward(dyr, xr, expected.mean, expected.rstd, gr, grads, None);
        self.check("layer norm backward", backward(&mut flat), expected);
        self.check("layer norm backward, weights", flat.clone(), flat_r);
        self.time("layer norm", "backward", n * c * (8 + size), || backward(&mut flat));
    }

    fn pointwise(&mut self, dims: BlockDims) {
        let (n, c, w, dtype, size) = (dims.tokens(), dims.hidden(), dims.fused(), self.dtype, self.dtype.size());
        let ((fused, fused_r), (dh, dh_r)) = (self.draw([n, w], dtype), self.draw([n, dims.mlp], dtype));
        self.check("gelu", B::gelu_tanh(fused.clone(), dims), reference::gelu(fused_r.clone(), dims));
        self.time("gelu", "forward", 2 * n * dims.mlp * size, || B::gelu_tanh(fused.clone(), dims));
        let bias = VectorSlot { offset: 0, len: dims.mlp };
        let (mut flat, mut flat_r) = self.draw([dims.mlp], DType::F32);
        let grad = BiasGrad { flat: &mut flat, bias };
        let into = B::gelu_tanh_backward(dh.clone(), fused.clone(), dims, fused.clone() * 1.0, grad);
        let grad = BiasGrad { flat: &mut flat_r, bias };
        let expected = reference::gelu_backward(dh_r, fused_r.clone(), dims, fused_r.clone(), grad);
        self.check("gelu backward", into.clone(), expected);
        self.check("gelu backward bias", flat.clone(), flat_r);
        let mut into = Some(into);
        self.time("gelu", "backward", 3 * n * dims.mlp * size, || {
            let grad = BiasGrad { flat: &mut flat, bias };
            into = Some(B::gelu_tanh_backward(dh.clone(), fused.clone(), dims, into.take().expect("put back"), grad));
        });

        let angles = [dims.seq, dims.rotary_dim / 2];
        let ((cos, cos_r), (sin, sin_r)) = (self.draw(angles, DType::F32), self.draw(angles, DType::F32));
        let (table, table_r) = (RotaryTable { cos, sin }, RotaryTable { cos: cos_r, sin: sin_r });
        let turned = B::rotary(fused.clone() * 1.0, &table, dims, Turn::Forward);
        self.check("rotary", turned, reference::rotary(fused_r, &table_r, dims, Turn::Forward));
        // Of angle 0.5, or the values would grow with every turn.
        let [cos, sin] = [0.5f32.cos(), 0.5f32.sin()].map(|x| Tensor::full(angles, x, (&self.device, DType::F32)));
        let table = RotaryTable { cos, sin };
        let mut turned = Some(fused * 1.0);
        self.time("rotary", "in place", 4 * n * dims.heads * dims.rotary_dim * size, || {
            turned = Some(B::rotary(turned.take().expect("put back"), &table, dims, Turn::Forward));
        });

        let ((x, xr), (p, pr), (q, qr)) =
            (self.draw([n, c], DType::F32), self.draw([n, c], dtype), self.draw([n, c], dtype));
        let dropout = Dropout::new(0.1, 1, 1, 0);
        let found = B::residual(x.clone(), p.clone(), q.clone(), dims, dropout);
        self.check("residual", found, reference::residual(xr.clone(), pr, qr, dims, dropout));
        self.time("residual", "dropout", n * c * (8 + 2 * size), || {
            B::residual(x.clone(), p.clone(), q.clone(), dims, dropout)
        });
        let (found, expected) = (
            B::residual_backward(x.clone(), dims, dropout, dtype),
            reference::residual_backward(xr, dims, dropout, DType::F32),
        );
        self.check("residual backward, attention", found.0, expected.0);
        self.check("residual backward, mlp", found.1, expected.1);
        self.time("residual", "dropout, backward", n * c * (4 + 2 * size), || {
            B::residual_backward(x.clone(), dims, dropout, dtype)
        });
    }

    fn ids(&self, n: usize, v: usize) -> (Tensor<B, 1, Int>, Tensor<Flex, 1, Int>) {
        let ids = TensorData::new((0..n).map(|i| (i * 7919 % v) as i32).collect(), [n]);
        let on_host = Tensor::from_data(ids.clone(), (&Default::default(), DType::I32));
        (Tensor::from_data(ids, (&self.device, DType::I32)), on_host)
    }

    fn embedding(&mut self, [n, c, v]: [usize; 3]) {
        let ((table, table_r), (dx, dx_r)) = (self.draw([v, c], self.dtype), self.draw([n, c], DType::F32));
        let (ids, ids_r) = self.ids(n, v);
        let found = B::token_embedding(table.clone(), ids.clone());
        self.check("embedding", found, reference::embedding(table_r, ids_r.clone()));
        self.time("embedding", "forward", n * c * (4 + self.dtype.size()), || {
            B::token_embedding(table.clone(), ids.clone())
        });
        let slot = MatrixSlot { offset: 0, rows: v, cols: c };
        let mut flat = Tensor::<B, 1>::zeros([v * c], (&self.device, DType::F32));
        let mut flat_r = Tensor::<Flex, 1>::zeros([v * c], (&Default::default(), DType::F32));
        B::token_embedding_backward(dx.clone(), ids.clone(), &mut flat, slot);
        reference::embedding_backward(dx_r, ids_r, &mut flat_r, slot);
        self.check("embedding backward", flat.clone(), flat_r);
        self.time("embedding", "backward", 12 * n * c, || {
            B::token_embedding_backward(dx.clone(), ids.clone(), &mut flat, slot);
        });
    }

    fn loss(&mut self, [n, c, v]: [usize; 3]) {
        let dtype = self.dtype;
        let ((h, hr), (w, wr), (b, br)) = (self.draw([n, c], dtype), self.draw([v, c], dtype), self.draw([v], dtype));
        let (targets, targets_r) = self.ids(n, v);
        let loss = B::linear_cross_entropy(h.clone(), w.clone(), b.clone(), targets.clone());
        let (hr, wr, br) = (&hr, &wr, &br);
        let expected = reference::linear_cross_entropy(hr.clone(), wr.clone(), br.clone(), targets_r.clone());
        self.check("loss", loss, expected);
        let weight = MatrixSlot { offset: 0, rows: v, cols: c };
        let bias = VectorSlot { offset: v * c, len: v };
        let mut flat = Tensor::<B, 1>::zeros([v * c + v], (&self.device, DType::F32));
        let mut flat_r = Tensor::<Flex, 1>::zeros([v * c + v], (&Default::default(), DType::F32));
        let backward = |flat: &mut Tensor<B, 1>| {
            let slots = WeightGrads { flat, weight, bias };
            B::linear_cross_entropy_backward(h.clone(), w.clone(), b.clone(), targets.clone(), 1.0, slots)
        };
        let slots = WeightGrads { flat: &mut flat_r, weight, bias };
        let (_, expected) =
            reference::linear_cross_entropy_backward(hr.clone(), wr.clone(), br.clone(), targets_r, 1.0, slots);
        self.check("loss backward", backward(&mut flat).1, expected);
        self.check("loss backward, weights", flat.clone(), flat_r);
        self.time("loss", "forward and backward", 6 * n * c * v, || backward(&mut flat));
    }

    fn optimizer(&mut self, len: usize) {
        let narrow = self.dtype != DType::F32;
        let ((master, master_r), (grads, grads_r)) = (self.draw([len], DType::F32), self.draw([len], DType::F32));
        let weights = master.clone().cast(self.dtype);
        let zeros = || Tensor::<B, 1>::zeros([len], (&self.device, DType::F32));
        let master = narrow.then(|| master * 1.0);
        let mut buffers = Some(AdamWBuffers { weights: weights * 1.0, master, m: zeros(), v: zeros() });
        let step = AdamWStep { lr: 1e-4, beta1: 0.9, beta2: 0.98, eps: 1e-7, weight_decay: 0.1, update: 3 };
        let factor = Tensor::<B, 1>::ones([1], (&self.device, DType::F32));
        buffers = buffers.map(|buffers| B::adamw(buffers, &grads, &factor, len, step));
        let zeros = || Tensor::<Flex, 1>::zeros([len], (&Default::default(), DType::F32));
        let buffers_r = AdamWBuffers { weights: master_r, master: None, m: zeros(), v: zeros() };
        let ones = Tensor::<Flex, 1>::ones([1], &Default::default());
        let expected = reference::adamw(buffers_r, &grads_r, &ones, len, step);
        self.check("adamw", buffers.as_ref().expect("just made").weights.clone(), expected.weights);
        self.check("sum of squares", B::sum_of_squares(&grads), reference::sum_of_squares(&grads_r));
        let bytes = len * if narrow { 30 } else { 28 };
        self.time("optimizer", "adamw", bytes, || {
            buffers = Some(B::adamw(buffers.take().expect("put back"), &grads, &factor, len, step));
        });
        self.time("optimizer", "sum of squares", 4 * len, || B::sum_of_squares(&grads));
    }
}

fn all<B: DecoderBackend>(criterion: &mut Criterion, device: B::Device) {
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let dtype = if variable("TRAINER_BENCH_PRECISION", "fp32") == "fp16" { DType::F16 } else { DType::F32 };
    let shape: Vec<usize> = variable("TRAINER_BENCH_SHAPE", "4,256,2,64,2048")
        .split(',')
        .map(|number| number.parse().expect("TRAINER_BENCH_SHAPE is five numbers"))
        .collect();
    let [batch, seq, heads, head_dim, vocab] = shape[..] else { panic!("TRAINER_BENCH_SHAPE is five numbers") };
    let c = heads * head_dim;
    let dims = BlockDims { batch, seq, heads, head_dim, rotary_dim: head_dim / 2, mlp: 4 * c };
    let n = dims.tokens();
    let mut bench = Bench::<B> { criterion, device, dtype };
    bench.ceilings();
    bench.linear("q, k, v and fc1", [n, c, dims.fused()]);
    bench.linear("dense", [n, c, c]);
    bench.linear("fc2", [n, dims.mlp, c]);
    bench.attention(dims);
    bench.loss([n, c, vocab]);
    bench.norm([n, c]);
    bench.pointwise(dims);
    bench.embedding([n, c, vocab]);
    bench.optimizer(12 * c * c);
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    match std::env::var("TRAINER_BENCH_BACKEND").as_deref() {
        Ok("cpu") => all::<trainer_backends::Cpu>(&mut criterion, Default::default()),
        #[cfg(all(feature = "cuda", not(target_os = "macos")))]
        Ok("cuda") => {
            let choice = choose(Request::Cuda, None).unwrap_or_else(|error| panic!("{error}"));
            all::<trainer_backends::Cuda>(&mut criterion, trainer_backends::cuda_device(&choice.device));
        }
        #[cfg(feature = "wgpu")]
        Ok("wgpu") | Err(_) => {
            let choice = choose(Request::Wgpu, None).unwrap_or_else(|error| panic!("{error}"));
            all::<trainer_backends::Wgpu>(&mut criterion, trainer_backends::wgpu_device(&choice.device));
        }
        other => panic!("TRAINER_BENCH_BACKEND is {other:?}: cpu, or what this build has of wgpu and cuda"),
    }
    criterion.final_summary();
}
