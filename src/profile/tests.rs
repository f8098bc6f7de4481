use std::collections::BTreeMap;

use trainer_backends::Cpu;

use super::recorder::Recording;
use super::*;
use crate::config::Config;
use crate::error::Result;
use crate::model::{Decoder, HostBuffers};
use crate::parallel::Replica;
use crate::parallel::hosted::tests::on_ranks;
use crate::train::state::TrainState;
use crate::train::step::{Batches, Watch, replica_step};

fn start() -> Recording {
    Recording::start::<Cpu>(&Default::default())
}

struct Ramp;

impl Batches for Ramp {
    fn fill(&self, position: u64, inputs: &mut [i32], targets: &mut [i32]) -> Result<()> {
        inputs.iter_mut().enumerate().for_each(|(i, input)| *input = (position as i32 + i as i32) % 50);
        targets.iter_mut().enumerate().for_each(|(i, target)| *target = (position as i32 + i as i32 + 1) % 50);
        Ok(())
    }
}

fn config(sets: &str) -> Config {
    let small = "model.layers=3 model.hidden=32 model.heads=2 model.vocab=300 model.seq_len=24 train.batch=8 \
                 train.micro_batch=2 model.embedding_dropout=0.1";
    let sets: Vec<String> = small.split_whitespace().chain(sets.split_whitespace()).map(str::to_owned).collect();
    Config::resolve(Some("demo"), None, &sets).unwrap()
}

/// The spans of step 2, and the loss of both steps, on this rank.
fn step_of(
    config: &Config,
    group: std::sync::Arc<dyn crate::parallel::Collective>,
    profiled: bool,
) -> (Profile, [f64; 2]) {
    let device = Default::default();
    let decoder = Decoder::<Cpu>::new(config.architecture(), config.model.seq_len, &device, config.train.recompute);
    let weights = HostBuffers::init(&decoder.arch, &decoder.table, 0);
    let replica = Replica::new(group, config, &decoder.table, true).unwrap();
    let mut state = TrainState::of_rank(config, &decoder.table, weights, &device, &replica);
    let mut steps = ProfiledSteps::new(1, u64::from(profiled), "cpu");
    let losses = [1, 2].map(|step| {
        assert!(steps.next::<Cpu>(&device, step).unwrap().is_none());
        replica_step(&decoder, &mut state, config, &Ramp, &replica, Watch::default()).unwrap().loss
    });
    let profile = steps.finish().unwrap();
    assert_eq!(profile.is_some(), profiled);
    (profile.unwrap_or(Profile { events: Vec::new(), device: String::new() }), losses)
}

fn alone(config: &Config) -> (Profile, [f64; 2]) {
    step_of(config, std::sync::Arc::new(crate::parallel::collective::Alone), true)
}

fn counts(profile: &Profile) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in profile.events.iter().filter(|event| event.kind.is_part()) {
        *counts.entry(event.work.name.to_string()).or_default() += 1;
    }
    counts
}

/// What a step of M micro-batches launches with L layers, on one device.
fn expected(l: usize, m: usize, recompute: &str) -> BTreeMap<String, usize> {
    let (norms, gelus, others) = match recompute {
        "none" => (m, m * l, m * l),
        "activation" => (m * (l + 1), 2 * m * l, m * l),
        _ => (m * (l + 1), 2 * m * l, 2 * m * l),
    };
    let mut counts = vec![
        ("fill the batch", m),
        ("upload tokens", 2 * m),
        ("embedding forward", m),
        ("embedding dropout", 2 * m),
        ("embedding backward", m),
        ("layer norm forward", norms),
        ("layer norm backward", m),
        ("residual and norm forward", m * l),
        ("residual and norm backward", m * l),
        ("linear forward 32x32", m * l),
        ("linear forward 128x32", m * l),
        ("head and loss 32x300", m),
        ("sum the loss", m),
        ("GELU forward", gelus),
        ("sum of squares", 1),
        ("clipping factor", 1),
        ("AdamW", l + 2),
        ("clear gradients", 1),
        ("read loss and norm", 1),
    ];
    let forward = ["linear forward 32x224", "attention forward"];
    counts.extend(forward.into_iter().map(|name| (name, others)));
    let backward = ["attention backward", "GELU backward"];
    let products = ["grad 32x224", "grad 32x32", "grad 128x32"];
    let both = products.iter().flat_map(|of| [format!("input {of}"), format!("weight {of}")]);
    let backward = backward.into_iter().map(str::to_owned).chain(both).map(|name| (name, m * l));
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).chain(backward).collect()
}

#[test]
fn every_operation_of_a_step_is_there_as_often_as_it_is_launched() {
    for recompute in ["none", "activation", "block"] {
        let (profile, _) = alone(&config(&format!("train.recompute={recompute}")));
        assert_eq!(counts(&profile), expected(3, 4, recompute), "recompute {recompute}");
        let groups = |name: &str| profile.events.iter().filter(|event| event.work.name == name).count();
        assert_eq!(
            ["block 0 forward", "block 2 backward", "micro-batch at sequence 6", "step 2"].map(groups),
            [4, 4, 1, 1]
        );
    }
    // As many layers and micro-batches as the configuration says, and no dropout where there is none.
    let (profile, _) = alone(&config("model.layers=2 train.micro_batch=8 model.embedding_dropout=0"));
    let mut fewer = expected(2, 1, "none");
    fewer.remove("embedding dropout");
    assert_eq!(counts(&profile), fewer);
}

#[test]
fn flops_add_up_to_those_of_the_model() {
    let config = config("");
    let (profile, _) = alone(&config);
    let flops: u64 = profile.events.iter().map(|event| event.work.flops).sum();
    let model = config.architecture().flops_per_token(config.model.seq_len) * config.tokens_per_step() as f64;
    assert_eq!(flops as f64, model);
}

#[test]
fn parts_lie_within_their_step_and_do_not_overlap() {
    let (profile, _) = alone(&config(""));
    let by_part = profile.by_part();
    let (ms, share) = by_part.parts.iter().fold((0.0, 0.0), |(ms, share), part| (ms + part.ms, share + part.share));
    assert!(ms <= by_part.step_ms && ms > 0.0, "{ms} of {} ms", by_part.step_ms);
    assert!((share - ms / by_part.step_ms).abs() < 1e-9, "{share}");
    assert!(by_part.parts.windows(2).all(|pair| pair[0].ms >= pair[1].ms));
    let mut open: Vec<&Event> = Vec::new();
    for event in &profile.events {
        while open.pop_if(|parent| parent.end <= event.start).is_some() {}
        assert!(open.last().is_none_or(|parent| event.end <= parent.end), "{event:?} in {:?}", open.last());
        assert!(open.is_empty() == (event.kind == Kind::Step), "{event:?}");
        open.push(event);
    }
}

#[test]
fn the_time_of_a_part_within_a_part_counts_once() {
    let mut recording = start();
    for step in 1..3 {
        recording.begin_step(step);
        let outer = host("outer");
        let inner = op(|| Work { name: "inner".into(), flops: 10, ..Work::default() });
        drop((inner, outer));
        drop(op(|| Work { name: "inner".into(), flops: 10, ..Work::default() }));
    }
    let profile = Profile { events: recording.finish().unwrap(), device: String::new() };
    let by_part = profile.by_part();
    assert_eq!((profile.events.len(), by_part.steps), (8, 2));
    let calls = |name: &str| by_part.parts.iter().find(|part| part.part == name).unwrap().calls;
    assert_eq!((by_part.parts.len(), calls("inner"), calls("outer")), (2, 1.0, 1.0));
    assert!(by_part.to_string().contains("mean over 2 profiled ones"), "{by_part}");
}

/// Spans that an error has left open are over with the one around them.
#[test]
fn what_is_left_open_ends_with_what_is_around_it() {
    let mut recording = start();
    recording.begin_step(1);
    std::mem::forget(host("left open"));
    recording.begin_step(2);
    drop(host("another"));
    let events = recording.finish().unwrap();
    let names: Vec<_> = events.iter().map(|event| (&*event.work.name, event.within_part)).collect();
    assert_eq!(names, [("step 1", false), ("left open", false), ("step 2", false), ("another", false)]);
    assert_eq!(events[1].end, events[0].end);
}

#[test]
fn only_the_thread_that_records_is_recorded_and_only_while_it_does() {
    drop(op(|| panic!("nobody records here")));
    let mut recording = start();
    recording.begin_step(1);
    std::thread::scope(|scope| {
        scope.spawn(|| drop(op(|| panic!("this thread does not record")))).join().unwrap();
    });
    drop(host("here"));
    assert_eq!(recording.finish().unwrap().len(), 2);
    drop(op(|| panic!("nobody records any more")));
}

/// The first of two ranks is profiled: the other one's steps are the same, and what they exchange is there.
#[test]
fn exchanges_of_ranks_at_every_stage() {
    for zero in 0..3 {
        let config = config(&format!("train.zero={zero} train.micro_batch=1"));
        let found = on_ranks(2, |group| {
            let first = group.rank() == 0;
            step_of(&config, group, first)
        });
        assert_eq!(found[0].1, found[1].1, "the ranks' losses at stage {zero}");
        let counts = counts(&found[0].0);
        let count = |name: &str| counts.get(name).copied().unwrap_or(0);
        // 5 groups; at stage 2 after each of this rank's 4 micro-batches.
        let gradients = if zero == 2 { 4 * 5 } else { 5 };
        assert_eq!(count("gradient exchange"), gradients, "stage {zero}");
        assert_eq!(count("weight exchange"), if zero == 0 { 0 } else { 5 }, "stage {zero}");
        assert_eq!(["scalar exchange", "read loss and norm", "AdamW"].map(count), [1, 1, 5], "stage {zero}");
    }
}
