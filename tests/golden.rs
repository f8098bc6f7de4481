//! The decoder against transformers' PhiForCausalLM: logits, loss, gradients and three AdamW steps in fp32;
//! logits and loss in fp16.
//!
//! tests/data/make_golden.py made the files; TRAINER_GOLDEN_DIR names another directory of the same kind.

use std::collections::HashMap;
use std::path::PathBuf;

use trainer::checkpoint::TensorFile;
use trainer::checkpoint::model_files::load_model;
use trainer::config::{Config, Recompute};
use trainer::data::dataset::{Dataset, Split};
use trainer::error::Result;
use trainer::model::{Decoder, HostBuffers, MicroBatchDropout};
use trainer::train::state::TrainState;
use trainer::train::step::{Batches, training_step};
use trainer_backends::DecoderBackend;

use crate::on_cpu_and_wgpu;
use crate::support::data;

/// fp32 sums of a few hundred terms in another order than transformers'; logits are of order 1.
const LOGITS: f32 = 2e-4;
const LOSS: f64 = 1e-5;
/// Relative to the norm of each gradient.
const GRADIENT: f64 = 1e-4;
/// Weights move by up to 3e-3 in the three steps. The unrotated half of k_proj.bias has no gradient in exact arithmetic,
/// so there Adam divides rounding by rounding.
const WEIGHTS: f32 = 5e-5;

fn golden_dir() -> PathBuf {
    std::env::var_os("TRAINER_GOLDEN_DIR").map_or_else(|| data("phi-tiny"), PathBuf::from)
}

struct Golden {
    expected: TensorFile,
    inputs: Vec<i32>,
    batch: usize,
    seq: usize,
}

impl Golden {
    fn open() -> Self {
        let expected = TensorFile::open(&golden_dir().join("expected.safetensors")).unwrap();
        let shape = expected.shape("input_ids").unwrap().to_vec();
        let bytes = expected.bytes("input_ids").unwrap();
        let inputs = bytes.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
        Self { expected, inputs, batch: shape[0], seq: shape[1] }
    }

    fn read(&self, name: &str) -> Vec<f32> {
        let len = self.expected.shape(name).unwrap().iter().product();
        let mut values = vec![0.0; len];
        self.expected.read_f32(name, &mut values).unwrap();
        values
    }

    /// The T - 1 pairs of each sequence that have a next token, as the script's loss takes them.
    fn pairs(&self) -> (Vec<i32>, Vec<i32>) {
        let rows = || self.inputs.chunks_exact(self.seq);
        (
            rows().flat_map(|row| &row[..self.seq - 1]).copied().collect(),
            rows().flat_map(|row| &row[1..]).copied().collect(),
        )
    }
}

#[test]
fn tokens_bin_holds_the_same_ids() {
    let golden = Golden::open();
    let dataset = Dataset::open(&golden_dir().join("tokens.bin"), Split::Train).unwrap();
    let mut tokens = vec![0; golden.inputs.len()];
    dataset.read(0, &mut tokens).unwrap();
    assert!(tokens.iter().map(|token| i32::from(*token)).eq(golden.inputs.iter().copied()));
}

fn check_logits<B: DecoderBackend>(device: &B::Device) {
    let golden = Golden::open();
    let (model, weights) = load_model(&golden_dir().join("model")).unwrap();
    let decoder = Decoder::<B>::new(model.architecture, golden.seq, device, Recompute::None);
    let weights = weights.upload::<B>(device, burn_tensor::DType::F32);
    let logits = decoder.logits(&weights, &golden.inputs, golden.batch).into_data().into_vec::<f32>().unwrap();
    let expected = golden.read("logits");
    assert_eq!(logits.len(), expected.len());
    let worst = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    eprintln!("{}: logits off by at most {worst:.2e}", B::name(device));
    assert!(worst < LOGITS, "{worst}");
}

#[test]
fn logits_are_those_of_transformers() {
    on_cpu_and_wgpu!(check_logits);
}

/// fp16 keeps 11 bits of weights and activations; the logits are of order 1 and the sums of some hundred terms.
const LOGITS_FP16: f32 = 2e-2;
const LOSS_FP16: f64 = 5e-3;

fn check_fp16<B: DecoderBackend>(device: &B::Device) {
    let golden = Golden::open();
    let (model, weights) = load_model(&golden_dir().join("model")).unwrap();
    let decoder = Decoder::<B>::new(model.architecture, golden.seq, device, Recompute::None);
    let weights = weights.upload::<B>(device, burn_tensor::DType::F16);
    let logits = decoder.logits(&weights, &golden.inputs, golden.batch).into_data().into_vec::<f32>().unwrap();
    let expected = golden.read("logits");
    let worst = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (inputs, targets) = golden.pairs();
    let loss = decoder.loss(&weights, &inputs, &targets, golden.batch).into_scalar();
    let loss = f64::from(loss_value(loss)) / inputs.len() as f64;
    let loss_error = (loss - f64::from(golden.read("loss")[0])).abs();
    eprintln!("{}: fp16 logits off by at most {worst:.2e}, loss by {loss_error:.2e}", B::name(device));
    assert!(worst < LOGITS_FP16, "{worst}");
    assert!(loss_error < LOSS_FP16, "{loss_error}");
}

#[test]
fn fp16_is_near_transformers() {
    on_cpu_and_wgpu!(check_fp16);
}

fn check_gradients<B: DecoderBackend>(device: &B::Device) {
    for recompute in [Recompute::None, Recompute::Activation, Recompute::Block] {
        let golden = Golden::open();
        let (model, weights) = load_model(&golden_dir().join("model")).unwrap();
        let decoder = Decoder::<B>::new(model.architecture, golden.seq, device, recompute);
        let weights = weights.upload::<B>(device, burn_tensor::DType::F32);
        let mut grads = HostBuffers::zeros(&decoder.table).upload::<B>(device, burn_tensor::DType::F32);
        let (inputs, targets) = golden.pairs();
        let scale = 1.0 / inputs.len() as f32;
        let dropout = MicroBatchDropout::default();
        let loss = decoder
            .forward_backward(&weights, &mut grads, (&inputs, &targets), golden.batch, dropout, scale)
            .into_scalar();
        let loss = f64::from(loss_value(loss)) / inputs.len() as f64;
        let expected_loss = f64::from(golden.read("loss")[0]);
        assert!((loss - expected_loss).abs() < LOSS, "loss {loss}, expected {expected_loss}");
        let grads = HostBuffers::download(&grads);
        for entry in &decoder.table.entries {
            let expected = golden.read(&format!("grad.{}", entry.name));
            let error = relative(grads.slice(entry), &expected);
            assert!(error < GRADIENT, "{}: relative error {error:.2e}", entry.name);
        }
    }
}

fn loss_value<E: burn_tensor::ElementConversion>(loss: E) -> f32 {
    loss.elem()
}

fn relative(found: &[f32], expected: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| f64::from(a - b)));
    let size = norm(&mut expected.iter().map(|x| f64::from(*x)));
    difference / size.max(1e-12)
}

#[test]
fn loss_and_gradients_are_those_of_transformers() {
    on_cpu_and_wgpu!(check_gradients);
}

/// The same pairs at every step.
struct Fixed(Vec<i32>, Vec<i32>);

impl Batches for Fixed {
    fn fill(&self, _: u64, inputs: &mut [i32], targets: &mut [i32]) -> Result<()> {
        inputs.copy_from_slice(&self.0);
        targets.copy_from_slice(&self.1);
        Ok(())
    }
}

fn check_three_steps<B: DecoderBackend>(device: &B::Device) {
    let golden = Golden::open();
    let (model, weights) = load_model(&golden_dir().join("model")).unwrap();
    let arch = model.architecture;
    let sets = [
        format!("model.layers={}", arch.layers),
        format!("model.hidden={}", arch.hidden),
        format!("model.heads={}", arch.heads),
        format!("model.vocab={}", arch.vocab),
        format!("model.seq_len={}", golden.seq - 1),
        "model.dropout=0.0".into(),
        format!("train.batch={}", golden.batch),
        format!("train.micro_batch={}", golden.batch),
        "train.precision=fp32".into(),
        // So many steps that the linear decay takes nothing off the first three.
        "train.steps=99999999".into(),
        "optimizer.warmup_steps=0".into(),
        "optimizer.lr=1e-3".into(),
        "optimizer.weight_decay=0.1".into(),
        "optimizer.beta2=0.98".into(),
        "optimizer.eps=1e-7".into(),
        "optimizer.clip=1.0".into(),
    ];
    let config = Config::resolve(Some("demo"), None, &sets).unwrap();
    let decoder = Decoder::<B>::new(arch, golden.seq, device, Recompute::None);
    let mut state = TrainState::<B>::new(&config, &decoder.table, weights, device);
    let (inputs, targets) = golden.pairs();
    let batches = Fixed(inputs, targets);
    let norms = golden.read("grad_norms");
    for norm in norms {
        let report = training_step(&decoder, &mut state, &config, &batches).unwrap();
        assert!((report.grad_norm / f64::from(norm) - 1.0).abs() < 1e-4, "norm {} not {norm}", report.grad_norm);
    }
    let weights = state.master_weights();
    let mut worst = HashMap::new();
    for entry in &decoder.table.entries {
        let expected = golden.read(&format!("step3.{}", entry.name));
        let error = weights.slice(entry).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        worst.insert(entry.name.clone(), error);
    }
    let (name, error) = worst.iter().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    eprintln!("{}: after three steps {name} is off by {error:.2e}", B::name(device));
    assert!(*error < WEIGHTS, "{name}: {error}");
}

#[test]
fn three_adamw_steps_are_those_of_pytorch() {
    on_cpu_and_wgpu!(check_three_steps);
}
