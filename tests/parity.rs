//! One program on every device: the self-test, and the same bits from run to run.

use trainer::config::{Config, Recompute};
use trainer::error::Result;
use trainer::model::{Decoder, HostBuffers};
use trainer::train::state::TrainState;
use trainer::train::step::{Batches, training_step};
use trainer_backends::DecoderBackend;

use crate::on_cpu_and_wgpu;
use crate::support::{run, trainer, trainer_on};

fn passes(backend: &str) {
    let report = run(&mut trainer_on(backend, "selftest --json")).success().json();
    assert_eq!(report["failed"], 0);
    let operations = report["operations"].as_array().unwrap();
    for dtype in report["dtypes"].as_array().unwrap() {
        let of_dtype = operations.iter().filter(|row| &row["dtype"] == dtype).count();
        assert!(of_dtype > 150, "{of_dtype} comparisons in {dtype}");
    }
    assert_eq!(report["parity"].as_array().unwrap().len(), 10);
    let losses: Vec<f64> = report["parity"].as_array().unwrap().iter().map(|s| s["loss"].as_f64().unwrap()).collect();
    assert!(losses[9] < losses[0] - 0.1, "ten steps learn something: {losses:?}");
}

#[test]
fn the_cpu_passes_its_self_test() {
    passes("cpu");
}

#[cfg(feature = "wgpu")]
#[test]
fn wgpu_passes_its_self_test() {
    use trainer_backends::discovery::{Request, choose};
    match choose(Request::Wgpu, None) {
        Ok(_) => passes("wgpu"),
        Err(error) => eprintln!("SKIPPED on wgpu: {error}"),
    }
}

#[test]
fn a_seed_repeats_the_inputs() {
    let report = || run(&mut trainer("selftest --seed 5 --json")).success().stdout;
    assert_eq!(report(), report());
}

/// Tokens that follow from their place.
struct Counted;

impl Batches for Counted {
    fn fill(&self, position: u64, inputs: &mut [i32], targets: &mut [i32]) -> Result<()> {
        let token = |i: usize| ((position as usize * 31 + i) * (i + 3) % 101) as i32;
        inputs.iter_mut().enumerate().for_each(|(i, input)| *input = token(i));
        targets.iter_mut().enumerate().for_each(|(i, target)| *target = token(i + 1));
        Ok(())
    }
}

fn weights_after<B: DecoderBackend>(device: &B::Device, precision: &str, steps: usize) -> HostBuffers {
    let sets = [
        "model.hidden=64".to_owned(),
        "model.layers=2".into(),
        "model.heads=2".into(),
        "model.vocab=101".into(),
        "model.seq_len=24".into(),
        "model.dropout=0.1".into(),
        "train.batch=4".into(),
        "train.micro_batch=2".into(),
        "train.steps=50".into(),
        format!("train.precision={precision}"),
    ];
    let config = Config::resolve(Some("demo"), None, &sets).unwrap();
    let decoder = Decoder::<B>::new(config.architecture(), config.model.seq_len, device, Recompute::None);
    let weights = HostBuffers::init(&decoder.arch, &decoder.table, 1);
    let mut state = TrainState::<B>::new(&config, &decoder.table, weights, device);
    for _ in 0..steps {
        training_step(&decoder, &mut state, &config, &Counted).unwrap();
    }
    state.master_weights()
}

fn check_bits<B: DecoderBackend>(device: &B::Device) {
    for precision in ["fp32", "fp16"] {
        let first = weights_after::<B>(device, precision, 50);
        assert_eq!(first.groups, weights_after::<B>(device, precision, 50).groups, "{} {precision}", B::name(device));
        assert_ne!(first.groups, weights_after::<B>(device, precision, 49).groups);
    }
}

#[test]
fn fifty_steps_give_the_same_bits_twice() {
    on_cpu_and_wgpu!(check_bits);
}
