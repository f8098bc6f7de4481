//! An operation with its inputs. Results that are added to a buffer or written into one are made in the same buffer every
//! time, as in a step; for a check they start from the same values.

use burn_tensor::{DType, Tensor, TensorData};
use trainer_backends::DecoderBackend;
use trainer_backends::dropout::Dropout;
use trainer_backends::ops::{
    AdamWBuffers, AdamWStep, Attended, BiasGrad, BranchGrads, MatrixSlot, NormGrads, NormInputs, NormWeights, Normed,
    RotaryTable, Turn, VectorSlot, WeightGrads,
};
use trainer_backends::tuning::Product;

use super::generation;
use super::inputs::Inputs;
use super::operation::{Operation, Shape};

/// Results, each as one row of numbers.
pub type Results<B> = Vec<Tensor<B, 1>>;

/// Runs an operation. With `true` it begins from the same state as ever and returns its results; with `false` it goes on
/// from where it is, and the results are of no use.
pub struct Prepared<B: DecoderBackend>(Box<dyn FnMut(bool) -> Results<B>>);

impl<B: DecoderBackend> Prepared<B> {
    pub(super) fn new(run: impl FnMut(bool) -> Results<B> + 'static) -> Self {
        Self(Box::new(run))
    }

    pub fn results(&mut self) -> Results<B> {
        (self.0)(true)
    }

    pub fn run(&mut self) {
        drop((self.0)(false));
    }
}

pub(super) fn row<B: DecoderBackend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, 1> {
    let len = tensor.dims().iter().product::<usize>();
    tensor.reshape([len])
}

/// A copy that nothing else refers to.
fn copy<B: DecoderBackend, const D: usize>(tensor: &Tensor<B, D>) -> Tensor<B, D> {
    tensor.clone().mul_scalar(1.0)
}

pub(super) const EPS: f32 = 1e-5;
/// Of a linear layer's weights, as they are initialised.
pub(super) const WEIGHT: f64 = 0.02;

/// Large enough that probabilities of one in a vocabulary are no subnormal numbers in fp16.
const LOSS_SCALE: f32 = 1024.0;

/// Draws an operation's inputs in `dtype`, which may be wider than the shape's.
pub fn prepare<B: DecoderBackend>(
    operation: Operation,
    shape: &Shape,
    dtype: DType,
    inputs: &mut Inputs<B>,
) -> Prepared<B> {
    let (dims, fp32) = (shape.dims, DType::F32);
    let [n, c, w, v] = [shape.tokens(), shape.hidden(), dims.fused(), shape.vocab()];
    let device = inputs.device().clone();
    let zeros = move |len: usize| Tensor::<B, 1>::zeros([len], (&device, fp32));
    let dropout = Dropout::new(shape.dropout, 7, 1, 0);
    match operation {
        Operation::Linear(product, layer) => {
            linear(product, [n, shape.layers()[layer][0], shape.layers()[layer][1]], c, dtype, inputs)
        }
        Operation::Head => {
            let (h, weight) = (inputs.normal([n, c], 1.0, dtype), inputs.normal([v, c], WEIGHT, dtype));
            let (bias, targets) = (inputs.normal([v], WEIGHT, dtype), inputs.tokens(n, v));
            let (slot, bias_slot) = (MatrixSlot { offset: 0, rows: v, cols: c }, VectorSlot { offset: v * c, len: v });
            let mut flat = zeros(v * c + v);
            Prepared::new(move |check| {
                if check {
                    B::clear(&mut flat);
                }
                let grads = WeightGrads { flat: &mut flat, weight: slot, bias: bias_slot };
                let (h, weight, bias) = (h.clone(), weight.clone(), bias.clone());
                let (loss, dh) = B::linear_cross_entropy_backward(h, weight, bias, targets.clone(), LOSS_SCALE, grads);
                if check { vec![loss, row(dh), copy(&flat)] } else { Vec::new() }
            })
        }
        Operation::AttentionForward => {
            let fused = inputs.normal([n, w], 1.0, dtype);
            Prepared::new(move |_| {
                let Attended { o, lse } = B::attention_forward(fused.clone(), dims, dropout);
                vec![row(o), lse]
            })
        }
        Operation::AttentionBackward => {
            let (fused, d_o) = (inputs.normal([n, w], 1.0, dtype), inputs.normal([n, c], 1.0, dtype));
            // What the device saves of its forward pass.
            let mut attended = None;
            let o = inputs.derived(
                || {
                    let made = B::attention_forward(fused.clone(), dims, dropout);
                    attended = Some(made.lse);
                    made.o
                },
                dtype,
            );
            let lse = inputs.derived(
                || attended.take().unwrap_or_else(|| B::attention_forward(fused.clone(), dims, dropout).lse),
                fp32,
            );
            let mut into = Some(Tensor::<B, 2>::zeros([n, w], (&fused.device(), dtype)));
            Prepared::new(move |check| {
                let attended = Attended { o: o.clone(), lse: lse.clone() };
                let target = into.take().unwrap_or_else(|| Tensor::zeros([n, w], (&fused.device(), dtype)));
                let done = B::attention_backward(d_o.clone(), fused.clone(), attended, dims, dropout, target);
                let results = if check { vec![row(copy(&done.clone().slice([0..n, 0..3 * c])))] } else { Vec::new() };
                into = Some(done);
                results
            })
        }
        Operation::NormForward => {
            let (x, a, m) = (
                inputs.normal([n, c], 1.0, fp32),
                inputs.normal([n, c], 1.0, dtype),
                inputs.normal([n, c], 1.0, dtype),
            );
            let (gamma, beta) = (inputs.normal([c], 1.0, dtype), inputs.normal([c], 1.0, dtype));
            Prepared::new(move |_| {
                let norm = NormWeights { gamma: gamma.clone(), beta: beta.clone(), eps: EPS };
                let (sum, Normed { y, mean, rstd }) =
                    B::residual_norm(x.clone(), a.clone(), m.clone(), dims, dropout, norm);
                vec![row(sum), row(y), mean, rstd]
            })
        }
        Operation::NormBackward => {
            let (x, gamma, beta) =
                (inputs.normal([n, c], 1.0, fp32), inputs.normal([c], 1.0, dtype), inputs.normal([c], 1.0, dtype));
            let Normed { mean, rstd, .. } = B::layer_norm_forward(x.clone(), gamma.clone(), beta, EPS, dtype);
            let (dy, start) = (inputs.normal([n, c], 1.0, dtype), inputs.normal([n, c], 1.0, fp32));
            let slot = move |i: usize| VectorSlot { offset: i * c, len: c };
            let (mut flat, mut around) = (zeros(4 * c), Some(copy(&start)));
            Prepared::new(move |check| {
                if check {
                    B::clear(&mut flat);
                    around = Some(copy(&start));
                }
                let grads = NormGrads { flat: &mut flat, gamma: slot(0), beta: slot(1) };
                let [mean, rstd, gamma] = [&mean, &rstd, &gamma].map(Tensor::clone);
                let norm = NormInputs { x: x.clone(), mean, rstd, gamma };
                let (dx, branches) = B::residual_norm_backward(dy.clone(), norm, grads, around.take(), dims, dropout);
                let BranchGrads { attention, mlp, attention_sums, mlp_sums } = branches;
                B::bias_grad(attention_sums, BiasGrad { flat: &mut flat, bias: slot(2) });
                B::bias_grad(mlp_sums, BiasGrad { flat: &mut flat, bias: slot(3) });
                let results =
                    if check { vec![row(copy(&dx)), row(attention), row(mlp), copy(&flat)] } else { Vec::new() };
                around = Some(dx);
                results
            })
        }
        Operation::GeluForward => {
            let fused = inputs.normal([n, w], 1.0, dtype);
            Prepared::new(move |_| vec![row(B::gelu_tanh(fused.clone(), dims))])
        }
        Operation::GeluBackward => {
            let (dh, fused) = (inputs.normal([n, dims.mlp], 1.0, dtype), inputs.normal([n, w], 1.0, dtype));
            let bias = VectorSlot { offset: 0, len: dims.mlp };
            let mut into = Some(Tensor::<B, 2>::zeros([n, w], (&fused.device(), dtype)));
            let mut flat = zeros(dims.mlp);
            Prepared::new(move |check| {
                if check {
                    B::clear(&mut flat);
                }
                let target = into.take().unwrap_or_else(|| Tensor::zeros([n, w], (&fused.device(), dtype)));
                let grad = BiasGrad { flat: &mut flat, bias };
                let done = B::gelu_tanh_backward(dh.clone(), fused.clone(), dims, target, grad);
                let results = if check {
                    vec![row(copy(&done.clone().slice([0..n, 3 * c..w]))), copy(&flat)]
                } else {
                    Vec::new()
                };
                into = Some(done);
                results
            })
        }
        Operation::Rotary => {
            let fused = inputs.normal([n, w], 1.0, dtype);
            let half = dims.rotary_dim / 2;
            let angle = |i: usize| (i / half) as f64 / 10_000f64.powf((i % half) as f64 / half as f64);
            let table = |turn: fn(f64) -> f64| {
                let values: Vec<f32> = (0..dims.seq * half).map(|i| turn(angle(i)) as f32).collect();
                Tensor::<B, 2>::from_data(TensorData::new(values, [dims.seq, half]), (&fused.device(), fp32))
            };
            let table = RotaryTable { cos: table(f64::cos), sin: table(f64::sin) };
            let mut turned = Some(copy(&fused));
            Prepared::new(move |check| {
                let own = if check { copy(&fused) } else { turned.take().unwrap_or_else(|| copy(&fused)) };
                let done = B::rotary(own, &table, dims, Turn::Forward);
                let results = if check { vec![row(copy(&done.clone().slice([0..n, 0..2 * c])))] } else { Vec::new() };
                turned = Some(done);
                results
            })
        }
        Operation::EmbeddingForward => {
            let (table, tokens) = (inputs.normal([v, c], 1.0, dtype), inputs.tokens(n, v));
            Prepared::new(move |_| vec![row(B::token_embedding(table.clone(), tokens.clone()))])
        }
        Operation::EmbeddingBackward => {
            let (dx, tokens) = (inputs.normal([n, c], 1.0, fp32), inputs.tokens(n, v));
            let (mut flat, slot) = (zeros(v * c), MatrixSlot { offset: 0, rows: v, cols: c });
            Prepared::new(move |check| {
                if check {
                    B::clear(&mut flat);
                }
                B::token_embedding_backward(dx.clone(), tokens.clone(), &mut flat, slot);
                if check { vec![copy(&flat)] } else { Vec::new() }
            })
        }
        Operation::Adamw => adamw(shape, dtype, inputs),
        Operation::Generation => generation::prepare(shape, dtype, inputs),
        Operation::SumOfSquares => {
            let flat = inputs.normal([shape.block[0]], 1.0, fp32);
            Prepared::new(move |_| vec![B::sum_of_squares(&flat)])
        }
        Operation::Clear => {
            let start = inputs.normal([shape.block[0]], 1.0, fp32);
            let mut flat = copy(&start);
            Prepared::new(move |check| {
                if check {
                    flat = copy(&start);
                }
                B::clear(&mut flat);
                // Zeros have no relative error: one more, of which none may be off.
                if check { vec![flat.clone().add_scalar(1.0)] } else { Vec::new() }
            })
        }
    }
}

/// One of the three products of a layer, for `[tokens, inputs, outputs]`; `hidden` decides which biases it adds to.
fn linear<B: DecoderBackend>(
    product: Product,
    [n, k, o]: [usize; 3],
    hidden: usize,
    dtype: DType,
    inputs: &mut Inputs<B>,
) -> Prepared<B> {
    match product {
        Product::Forward => {
            let (x, weight) = (inputs.normal([n, k], 1.0, dtype), inputs.normal([o, k], WEIGHT, dtype));
            let bias = inputs.normal([o], WEIGHT, dtype);
            Prepared::new(move |_| vec![row(B::linear_forward(x.clone(), weight.clone(), bias.clone()))])
        }
        Product::InputGrad => {
            let (dy, weight) = (inputs.normal([n, o], 1.0, dtype), inputs.normal([o, k], WEIGHT, dtype));
            Prepared::new(move |_| vec![row(B::linear_input_grad(dy.clone(), weight.clone()))])
        }
        Product::WeightGrad => {
            let (dy, x) = (inputs.normal([n, o], 1.0, dtype), inputs.normal([n, k], 1.0, dtype));
            let weight = MatrixSlot { offset: 0, rows: o, cols: k };
            // Of q, k, v and fc1 together, fc1's bias has its gradient from GELU.
            let bias = VectorSlot { offset: o * k, len: if o > 3 * hidden { 3 * hidden } else { o } };
            let mut flat = Tensor::<B, 1>::zeros([o * k + o], (inputs.device(), DType::F32));
            Prepared::new(move |check| {
                if check {
                    B::clear(&mut flat);
                }
                B::linear_weight_grad(dy.clone(), x.clone(), WeightGrads { flat: &mut flat, weight, bias });
                if check { vec![copy(&flat)] } else { Vec::new() }
            })
        }
    }
}

/// AdamW on one block's parameters; in fp32 without working weights of another dtype, as the shape's own dtype has it.
fn adamw<B: DecoderBackend>(shape: &Shape, dtype: DType, inputs: &mut Inputs<B>) -> Prepared<B> {
    let [len, decay_len] = shape.block;
    let fp32 = DType::F32;
    let [master, m, grads] = [WEIGHT, 1e-3, 1e-3].map(|deviation| inputs.normal([len], deviation, fp32));
    let v = inputs.normal([len], 1e-3, fp32).powi_scalar(2);
    let factor = Tensor::<B, 1>::ones([1], (inputs.device(), fp32));
    let step = AdamWStep { lr: 1e-3, beta1: 0.9, beta2: 0.98, eps: 1e-7, weight_decay: 0.1, update: 10 };
    // The oracle, in fp32 throughout, has the same master weights.
    let narrow = shape.dtype != fp32 && dtype != fp32;
    let start = move || AdamWBuffers {
        weights: if narrow { copy(&master.clone().cast(dtype)) } else { copy(&master) },
        master: narrow.then(|| copy(&master)),
        m: copy(&m),
        v: copy(&v),
    };
    let mut state = Some(start());
    Prepared::new(move |check| {
        let buffers = if check { start() } else { state.take().unwrap_or_else(&start) };
        let done = B::adamw(buffers, &grads, &factor, decay_len, step);
        let results = if check {
            let weights = done.master.as_ref().unwrap_or(&done.weights);
            vec![copy(weights), copy(&done.m), copy(&done.v), copy(&done.weights)]
        } else {
            Vec::new()
        };
        state = Some(done);
        results
    })
}
