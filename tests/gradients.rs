//! Each reference backward against burn-autodiff on its own forward, and against finite differences; the CPU's
//! operations against the reference.

use burn_autodiff::Autodiff;
use burn_flex::Flex;
use burn_tensor::{DType, Distribution, Int, Tensor, TensorData};
use trainer_backends::DecoderBackend;
use trainer_backends::dropout::Dropout;
use trainer_backends::ops::{
    Attended, BiasGrad, BlockDims, MatrixSlot, NormGrads, Normed, RotaryTable, Turn, VectorSlot, WeightGrads,
};
use trainer_backends::reference;

type Tape = Autodiff<Flex>;

/// fp32 sums of at most some hundred terms, in two orders.
const AGREE: f64 = 2e-5;
/// Central differences in fp32: the rounding of the loss over the step.
const DIFFERENCES: f64 = 1e-2;

/// Sizes that are multiples of nothing.
const DIMS: BlockDims = BlockDims { batch: 2, seq: 19, heads: 3, head_dim: 10, rotary_dim: 6, mlp: 37 };
const VOCAB: usize = 53;

fn random<const D: usize>(shape: [usize; D]) -> Tensor<Flex, D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), (&Default::default(), DType::F32))
}

fn on_tape<const D: usize>(x: &Tensor<Flex, D>) -> Tensor<Tape, D> {
    Tensor::<Tape, D>::from_inner(x.clone()).require_grad()
}

fn ints(values: Vec<i32>) -> Tensor<Flex, 1, Int> {
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), (&Default::default(), DType::I32))
}

fn tokens() -> Vec<i32> {
    (0..DIMS.tokens()).map(|i| (i * 7919 % VOCAB) as i32).collect()
}

fn dropout() -> Option<Dropout> {
    Some(Dropout::new(0.3, 11, 5, 40).unwrap().at_layer(2))
}

fn values<const D: usize>(x: &Tensor<Flex, D>) -> Vec<f32> {
    x.clone().into_data().into_vec().unwrap()
}

fn relative<const D: usize>(found: &Tensor<Flex, D>, expected: &Tensor<Flex, D>) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (values(found), values(expected));
    assert!(found.iter().all(|x| x.is_finite()), "not finite");
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = found.iter().zip(&expected).map(|(a, b)| square(a - b)).sum();
    (difference / expected.iter().copied().map(square).sum::<f64>().max(1e-30)).sqrt()
}

#[track_caller]
fn agree<const D: usize>(what: &str, found: &Tensor<Flex, D>, expected: &Tensor<Flex, D>) {
    let error = relative(found, expected);
    assert!(error < AGREE, "{what}: relative error {error:.2e}");
}

/// The tape's gradient of `sum(out * dy)` with respect to each leaf.
fn gradients<const D: usize, const L: usize>(
    out: Tensor<Tape, D>,
    dy: &Tensor<Flex, D>,
    leaves: [Tensor<Tape, 2>; L],
) -> [Tensor<Flex, 2>; L] {
    let loss = (out * Tensor::from_inner(dy.clone())).sum();
    let grads = loss.backward();
    leaves.map(|leaf| leaf.grad(&grads).expect("the leaf takes part"))
}

fn row(x: &Tensor<Flex, 1>) -> Tensor<Flex, 2> {
    x.clone().unsqueeze()
}

fn vector(x: &Tensor<Tape, 2>) -> Tensor<Tape, 1> {
    let len = x.dims()[1];
    x.clone().reshape([len])
}

/// The slot of a weight and a bias behind each other, in a buffer that already holds something.
fn weight_slots(rows: usize, cols: usize) -> (MatrixSlot, VectorSlot, Tensor<Flex, 1>) {
    let weight = MatrixSlot { offset: 5, rows, cols };
    let bias = VectorSlot { offset: 5 + rows * cols + 3, len: rows };
    (weight, bias, random([bias.offset + bias.len + 2]))
}

fn slot(flat: &Tensor<Flex, 1>, before: &Tensor<Flex, 1>, offset: usize, rows: usize, cols: usize) -> Tensor<Flex, 2> {
    (flat.clone() - before.clone()).slice([offset..offset + rows * cols]).reshape([rows, cols])
}

fn rotary_table() -> RotaryTable<Flex> {
    let angle = random([DIMS.seq, DIMS.rotary_dim / 2]);
    RotaryTable { cos: angle.clone().cos(), sin: angle.sin() }
}

#[test]
fn layer_norm() {
    let (n, c) = (DIMS.tokens(), DIMS.hidden());
    let (x, gamma, beta, dy) = (random([n, c]) * 2.0 + 1.0, random([c]), random([c]), random([n, c]));
    let leaves = [on_tape(&x), on_tape(&row(&gamma)), on_tape(&row(&beta))];
    let out = reference::layer_norm(leaves[0].clone(), vector(&leaves[1]), vector(&leaves[2]), 1e-5, DType::F32);
    let [dx, dgamma, dbeta] = gradients(out.y, &dy, leaves);

    let backward = |ours: bool| {
        let forward = if ours { Flex::layer_norm_forward } else { reference::layer_norm::<Flex> };
        let Normed { y, mean, rstd } = forward(x.clone(), gamma.clone(), beta.clone(), 1e-5, DType::F32);
        let before = random([2 * c + 9]);
        let mut flat = before.clone();
        let slots = (VectorSlot { offset: 4, len: c }, VectorSlot { offset: 4 + c, len: c });
        let grads = NormGrads { flat: &mut flat, gamma: slots.0, beta: slots.1 };
        let backward = if ours { Flex::layer_norm_backward } else { reference::layer_norm_backward::<Flex> };
        let dx = backward(dy.clone(), x.clone(), mean, rstd, gamma.clone(), grads, None);
        (y, dx, slot(&flat, &before, 4, 1, c), slot(&flat, &before, 4 + c, 1, c))
    };
    let expected = backward(false);
    agree("dx", &expected.1, &dx);
    agree("dgamma", &expected.2, &dgamma);
    agree("dbeta", &expected.3, &dbeta);
    let cpu = backward(true);
    agree("cpu y", &cpu.0, &expected.0);
    agree("cpu dx", &cpu.1, &dx);
    agree("cpu dgamma", &cpu.2, &dgamma);
    agree("cpu dbeta", &cpu.3, &dbeta);
}

#[test]
fn linear() {
    let (n, k, o) = (DIMS.tokens(), 31, 45);
    let (x, w, b, dy) = (random([n, k]), random([o, k]), random([o]), random([n, o]));
    let leaves = [on_tape(&x), on_tape(&w), on_tape(&row(&b))];
    let out = reference::linear(leaves[0].clone(), leaves[1].clone(), vector(&leaves[2]));
    let [dx, dw, db] = gradients(out, &dy, leaves);
    for ours in [false, true] {
        let forward = if ours { Flex::linear_forward } else { reference::linear::<Flex> };
        agree(
            "y",
            &forward(x.clone(), w.clone(), b.clone()),
            &(x.clone().matmul(w.clone().transpose()) + b.clone().unsqueeze()),
        );
        let (weight, bias, before) = weight_slots(o, k);
        let mut flat = before.clone();
        let grads = WeightGrads { flat: &mut flat, weight, bias };
        let backward = if ours { Flex::linear_backward } else { reference::linear_backward::<Flex> };
        agree("dx", &backward(dy.clone(), x.clone(), w.clone(), grads), &dx);
        agree("dw", &slot(&flat, &before, weight.offset, o, k), &dw);
        agree("db", &slot(&flat, &before, bias.offset, 1, o), &db);
    }
}

#[test]
fn rotary() {
    let fused = random([DIMS.tokens(), DIMS.fused()]);
    let dy = random([DIMS.tokens(), DIMS.fused()]);
    let table = rotary_table();
    let on = |t: &Tensor<Flex, 2>| Tensor::<Tape, 2>::from_inner(t.clone());
    let tape_table = RotaryTable { cos: on(&table.cos), sin: on(&table.sin) };
    let leaf = on_tape(&fused);
    let out = reference::rotary(leaf.clone(), &tape_table, DIMS, Turn::Forward);
    let [expected] = gradients(out, &dy, [leaf]);
    agree("turning back", &reference::rotary(dy.clone(), &table, DIMS, Turn::Back), &expected);
    agree("cpu back", &Flex::rotary(dy, &table, DIMS, Turn::Back), &expected);
    agree(
        "cpu forward",
        &Flex::rotary(fused.clone(), &table, DIMS, Turn::Forward),
        &reference::rotary(fused, &table, DIMS, Turn::Forward),
    );
}

/// Sequence lengths below, at and above the CPU's query blocks.
#[test]
fn attention() {
    for seq in [1, 19, 64, 150] {
        for dropout in [None, dropout()] {
            let dims = BlockDims { seq, ..DIMS };
            let fused = random([dims.tokens(), dims.fused()]);
            let d_o = random([dims.tokens(), dims.hidden()]);
            let leaf = on_tape(&fused);
            let out = reference::attention(leaf.clone(), dims, dropout);
            let [expected] = gradients(out.o, &d_o, [leaf]);
            let columns = 3 * dims.hidden();
            let expected = expected.slice([0..dims.tokens(), 0..columns]);
            let oracle = reference::attention(fused.clone(), dims, dropout);
            for ours in [false, true] {
                let forward = if ours { Flex::attention_forward } else { reference::attention::<Flex> };
                let Attended { o, lse } = forward(fused.clone(), dims, dropout);
                agree("o", &o, &oracle.o);
                agree("lse", &row(&lse), &row(&oracle.lse));
                let backward = if ours { Flex::attention_backward } else { reference::attention_backward::<Flex> };
                // What the operation must write is poisoned; what it must leave alone is checked.
                let into = Tensor::full([dims.tokens(), dims.fused()], f32::NAN, (&Default::default(), DType::F32));
                let into = into.slice_fill([0..dims.tokens(), columns..dims.fused()], 4.0);
                let grad = backward(d_o.clone(), fused.clone(), Attended { o, lse }, dims, dropout, into);
                let (found, rest) = (
                    grad.clone().slice([0..dims.tokens(), 0..columns]),
                    grad.slice([0..dims.tokens(), columns..dims.fused()]),
                );
                agree(&format!("dqkv, seq {seq}, ours {ours}"), &found, &expected);
                assert!(values(&rest).iter().all(|x| *x == 4.0));
            }
        }
    }
}

#[test]
fn gelu() {
    let fused = random([DIMS.tokens(), DIMS.fused()]) * 3.0;
    let dh = random([DIMS.tokens(), DIMS.mlp]);
    let leaf = on_tape(&fused);
    let [expected] = gradients(reference::gelu(leaf.clone(), DIMS), &dh, [leaf]);
    let columns = [0..DIMS.tokens(), 3 * DIMS.hidden()..DIMS.fused()];
    let expected = expected.slice(columns.clone());
    for backward in [reference::gelu_backward::<Flex>, Flex::gelu_tanh_backward] {
        let into = Tensor::full([DIMS.tokens(), DIMS.fused()], f32::NAN, (&Default::default(), DType::F32));
        let bias = VectorSlot { offset: 2, len: DIMS.mlp };
        let mut flat = Tensor::zeros([DIMS.mlp + 3], (&Default::default(), DType::F32));
        let grad = BiasGrad { flat: &mut flat, bias };
        agree("du", &backward(dh.clone(), fused.clone(), DIMS, into, grad).slice(columns.clone()), &expected);
        let sums = flat.slice([2..2 + DIMS.mlp]);
        agree("dbias", &sums, &expected.clone().sum_dim(0).reshape([DIMS.mlp]));
    }
    agree("h", &Flex::gelu_tanh(fused.clone(), DIMS), &reference::gelu(fused, DIMS));
}

#[test]
fn residual() {
    let shape = [DIMS.tokens(), DIMS.hidden()];
    let (x, a, m, dy) = (random(shape), random(shape), random(shape), random(shape));
    for dropout in [None, dropout()] {
        let leaves = [on_tape(&a), on_tape(&m)];
        let out =
            reference::residual(Tensor::from_inner(x.clone()), leaves[0].clone(), leaves[1].clone(), DIMS, dropout);
        let expected = gradients(out, &dy, leaves);
        let oracle = reference::residual(x.clone(), a.clone(), m.clone(), DIMS, dropout);
        agree("out", &Flex::residual(x.clone(), a.clone(), m.clone(), DIMS, dropout), &oracle);
        for backward in [reference::residual_backward::<Flex>, Flex::residual_backward] {
            let (da, dm) = backward(dy.clone(), DIMS, dropout, DType::F32);
            agree("da", &da, &expected[0]);
            agree("dm", &dm, &expected[1]);
        }
    }
}

#[test]
fn embedding() {
    let table = random([VOCAB, DIMS.hidden()]);
    let dx = random([DIMS.tokens(), DIMS.hidden()]);
    let leaf = on_tape(&table);
    let on_tape_ids = Tensor::<Tape, 1, Int>::from_inner(ints(tokens()));
    let [expected] = gradients(reference::embedding(leaf.clone(), on_tape_ids), &dx, [leaf]);
    for backward in [reference::embedding_backward::<Flex>, Flex::token_embedding_backward] {
        let (weight, _, before) = weight_slots(VOCAB, DIMS.hidden());
        let mut flat = before.clone();
        backward(dx.clone(), ints(tokens()), &mut flat, weight);
        agree("dtable", &slot(&flat, &before, weight.offset, VOCAB, DIMS.hidden()), &expected);
    }
    agree("x", &Flex::token_embedding(table.clone(), ints(tokens())), &reference::embedding(table, ints(tokens())));
}

/// More tokens than one chunk of logits holds.
#[test]
fn linear_cross_entropy() {
    let n = reference::LOSS_CHUNK + 77;
    let c = DIMS.hidden();
    let (h, w, b) = (random([n, c]), random([VOCAB, c]), random([VOCAB]));
    let targets = ints((0..n).map(|i| (i * 31 % VOCAB) as i32).collect());
    let leaves = [on_tape(&h), on_tape(&w), on_tape(&row(&b))];
    let on_tape_targets = Tensor::<Tape, 1, Int>::from_inner(targets.clone());
    let loss =
        reference::linear_cross_entropy(leaves[0].clone(), leaves[1].clone(), vector(&leaves[2]), on_tape_targets);
    let expected_loss = row(&loss.clone().inner());
    let scale = 0.37;
    let dy = Tensor::full([1], scale, (&Default::default(), DType::F32));
    let [dh, dw, db] = gradients(loss, &dy, leaves);
    for ours in [false, true] {
        let forward = if ours { Flex::linear_cross_entropy } else { reference::linear_cross_entropy::<Flex> };
        agree("loss", &row(&forward(h.clone(), w.clone(), b.clone(), targets.clone())), &expected_loss);
        let backward =
            if ours { Flex::linear_cross_entropy_backward } else { reference::linear_cross_entropy_backward::<Flex> };
        let (weight, bias, before) = weight_slots(VOCAB, c);
        let mut flat = before.clone();
        let grads = WeightGrads { flat: &mut flat, weight, bias };
        let (loss, found) = backward(h.clone(), w.clone(), b.clone(), targets.clone(), scale, grads);
        agree("loss", &row(&loss), &expected_loss);
        agree("dh", &found, &dh);
        agree("dw", &slot(&flat, &before, weight.offset, VOCAB, c), &dw);
        agree("db", &slot(&flat, &before, bias.offset, 1, VOCAB), &db);
    }
}

#[test]
fn optimizer() {
    use trainer_backends::ops::{AdamWBuffers, AdamWStep};
    let len = 40_001;
    let buffers = AdamWBuffers::<Flex> {
        weights: random([len]),
        master: None,
        m: random([len]) * 0.1,
        v: random([len]).powf_scalar(2.0),
    };
    let grads = random([len]) * 64.0;
    let step = AdamWStep { lr: 0.01, beta1: 0.9, beta2: 0.98, eps: 1e-7, weight_decay: 0.1, update: 7 };
    let factor = Tensor::<Flex, 1>::full([1], 1.0 / 64.0, &Default::default());
    let copy = |b: &AdamWBuffers<Flex>| AdamWBuffers {
        weights: b.weights.clone(),
        master: b.master.clone(),
        m: b.m.clone(),
        v: b.v.clone(),
    };
    let expected = reference::adamw(copy(&buffers), &grads, &factor, 20_000, step);
    let found = Flex::adamw(copy(&buffers), &grads, &factor, 20_000, step);
    agree("w", &row(&found.weights), &row(&expected.weights));
    agree("m", &row(&found.m), &row(&expected.m));
    agree("v", &row(&found.v), &row(&expected.v));
    let kept_apart = AdamWBuffers {
        weights: buffers.weights.clone().cast(DType::F16),
        master: Some(buffers.weights.clone()),
        ..copy(&buffers)
    };
    let narrow = Flex::adamw(kept_apart, &grads, &factor, 20_000, step);
    assert_eq!(narrow.weights.dtype(), DType::F16);
    agree("master", &row(&narrow.master.unwrap()), &row(&expected.weights));
    agree("squares", &row(&Flex::sum_of_squares(&grads)), &row(&reference::sum_of_squares(&grads)));
    let spoiled = grads.slice_fill([17..18], f32::INFINITY);
    assert!(!values(&Flex::sum_of_squares(&spoiled))[0].is_finite());
}

/// d loss along a random direction, by central differences, against the gradient's dot product with it: the whole
/// decoder, dropout included.
#[test]
fn whole_decoder_by_finite_differences() {
    use trainer::model::{Architecture, Decoder, HostBuffers, MicroBatchDropout};
    let arch = Architecture { rotary_dim: 6, ..Architecture::phi(2, 30, 3, VOCAB, DIMS.seq) };
    let decoder = Decoder::<Flex>::new(arch.clone(), DIMS.seq, &Default::default(), trainer::config::Recompute::None);
    let mut host = HostBuffers::init(&arch, &decoder.table, 3);
    // Larger than at the start of training, so that every path carries gradient.
    host.groups.iter_mut().flatten().for_each(|w| *w *= 8.0);
    let dropout = MicroBatchDropout { embedding: dropout(), attention: dropout(), residual: dropout() };
    let inputs = tokens();
    let targets: Vec<i32> = inputs.iter().map(|t| (t * 5 + 1) % VOCAB as i32).collect();
    let evaluate = |host: &HostBuffers| {
        let weights = HostBuffers { groups: host.groups.clone() }.upload::<Flex>(&Default::default(), DType::F32);
        let mut grads = HostBuffers::zeros(&decoder.table).upload::<Flex>(&Default::default(), DType::F32);
        let loss = decoder.forward_backward(&weights, &mut grads, (&inputs, &targets), DIMS.batch, dropout, 1.0);
        (f64::from(loss.into_scalar()), HostBuffers::download(&grads))
    };
    let (_, grads) = evaluate(&host);
    // Along a unit vector: small against the weights' curvature, large against the rounding of the loss.
    let step = 4e-3f32;
    for entry in &decoder.table.entries {
        let direction = random([entry.len()]);
        let length = values(&direction).iter().map(|d| d * d).sum::<f32>().sqrt();
        let direction = values(&(direction / length));
        let moved = |sign: f32| {
            let mut moved = HostBuffers { groups: host.groups.clone() };
            moved.slice_mut(entry).iter_mut().zip(&direction).for_each(|(w, d)| *w += sign * step * d);
            evaluate(&moved).0
        };
        let numeric = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(step));
        let analytic: f64 = grads.slice(entry).iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
        let norm = grads.slice(entry).iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        // Against the gradient's norm: a direction may happen to be nearly orthogonal to it. k's bias has no gradient
        // where it is not rotated, hence the constant, which is the rounding of a loss of some hundred nats.
        let allowed = DIFFERENCES * norm + 0.03;
        assert!(
            (numeric - analytic).abs() < allowed,
            "{}: {numeric} by differences, {analytic} not within {allowed}",
            entry.name
        );
    }
}
