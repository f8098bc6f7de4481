//! Losses that leap: what each policy does, what it tells, and that a run that was killed on the way does the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use trainer::data::dataset::{Dataset, Split};

use crate::running::Running;
use crate::support::{Place, lines_so_far, metrics, run, whole_checkpoints, whole_latest};

/// Judged by the last 16 to 24 steps; dropout, accumulation and a checkpoint every 8 steps.
const RUN: &str = "train.steps=70 checkpoint.every=8 checkpoint.keep_last=20 spikes.window=24 spikes.threshold=8 \
                   optimizer.lr=3e-3";

/// A corpus that is easy but for one document.
fn place() -> Place {
    let place = Place::new();
    fs::remove_dir_all(place.path("text")).unwrap();
    fs::create_dir(place.path("text")).unwrap();
    for document in 0..300 {
        fs::write(place.path(&format!("text/{document}.txt")), "def f(x):\n    return x + 1\n\n".repeat(6)).unwrap();
    }
    fs::write(place.path("text/strange.txt"), strange()).unwrap();
    fs::remove_dir_all(place.path("data")).unwrap();
    let mut prepare = crate::support::trainer("prepare --tokenizer bytes --val-fraction 0");
    run(prepare.arg(place.path("text")).arg("--out").arg(place.path("data"))).success();
    place
}

/// Letters in an order that nothing predicts.
fn strange() -> String {
    (0..96u64).map(|i| char::from(b'A' + (trainer_backends::dropout::mix64(i) % 26) as u8)).collect()
}

/// The sequences of 32 tokens that have many of the strange document's.
fn strange_sequences(place: &Place) -> BTreeSet<u64> {
    let dataset = Dataset::open(&place.path("data"), Split::Train).unwrap();
    let mut tokens = vec![0; dataset.tokens() as usize];
    dataset.read(0, &mut tokens).unwrap();
    let strange = |token: &&u16| (u16::from(b'A')..=u16::from(b'Z')).contains(*token);
    let sequences = tokens.chunks(32).enumerate().filter(|(_, chunk)| chunk.iter().filter(strange).count() >= 16);
    sequences.map(|(index, _)| index as u64).collect()
}

fn records(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("spikes.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn state(run: &Path) -> Value {
    serde_json::from_slice(&fs::read(whole_latest(run).join("state.json")).unwrap()).unwrap()
}

/// What is in a record is true: the step read the strange sequences, and leapt.
#[track_caller]
fn check(place: &Place, record: &Value, action: &str) {
    assert_eq!(record["action"], action, "{record}");
    let strange = strange_sequences(place);
    let read: Vec<u64> = record["sequences"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap()).collect();
    assert_eq!((read.len(), &record["tokens_a_sequence"]), (8, &Value::from(32)));
    assert!(read.iter().any(|sequence| strange.contains(sequence)), "{read:?} has none of {strange:?}");
    let number = |name: &str| record[name].as_f64().unwrap();
    let leaps = [
        (number("loss") - number("loss_mean")) / number("loss_deviation"),
        (number("grad_norm").ln() - number("log_norm_mean")) / number("log_norm_deviation"),
    ];
    assert!(leaps.iter().any(|leap| *leap > 8.0), "{leaps:?}");
}

#[test]
fn every_policy_does_what_it_says() {
    let place = place();
    let continued = run(&mut place.train("continue", RUN)).success();
    let leaps = records(&place.path("continue"));
    assert!(!leaps.is_empty() && leaps.len() < 8, "{leaps:?}");
    leaps.iter().for_each(|record| check(&place, record, "continued"));
    assert!(continued.stderr.contains("training goes on"), "{}", continued.stderr);
    assert_eq!(
        (metrics(&place.path("continue")).skipped(), state(&place.path("continue"))["updates"].as_u64()),
        (0, Some(70))
    );

    let skipped = run(&mut place.train("skip", &format!("{RUN} spikes.policy=skip"))).success();
    let leaps = records(&place.path("skip"));
    leaps.iter().for_each(|record| check(&place, record, "skipped"));
    let steps = metrics(&place.path("skip")).steps;
    for step in &steps {
        let leapt = leaps.iter().any(|record| record["step"] == step["step"]);
        assert_eq!(step["skipped"], leapt, "{step}");
    }
    assert_eq!(state(&place.path("skip"))["updates"].as_u64(), Some(70 - leaps.len() as u64));
    assert!(!leaps.is_empty() && skipped.stderr.contains("its update was left out"), "{}", skipped.stderr);

    let back = run(&mut place.train("back", &format!("{RUN} spikes.policy=rollback"))).success();
    let leaps = records(&place.path("back"));
    leaps.iter().for_each(|record| check(&place, record, "rolled_back"));
    let first = &leaps[0];
    assert_eq!(first["back_to"].as_u64(), Some((first["step"].as_u64().unwrap() - 1) / 8 * 8));
    assert!(back.stderr.contains("going back to the checkpoint of step"), "{}", back.stderr);
    let left_out: Vec<u64> = leaps.iter().map(|record| record["batch"].as_u64().unwrap()).collect();
    assert_eq!(state(&place.path("back"))["left_out"], Value::from(left_out));
    let steps = metrics(&place.path("back"));
    assert_eq!((steps.steps.len(), steps.skipped(), state(&place.path("back"))["updates"].as_u64()), (70, 0, Some(70)));
}

/// Killed before and after it went back, the run makes the same steps.
#[test]
fn a_rollback_survives_a_kill() {
    let place = place();
    let sets = format!("{RUN} spikes.policy=rollback");
    run(&mut place.train("undisturbed", &sets)).success();
    let step = records(&place.path("undisturbed"))[0]["step"].as_u64().unwrap() as usize;
    for lines in [step - 2, step + 2] {
        let mut running = Running::start(&place, &mut place.train("killed", &sets));
        assert!(running.wait_for(|_| lines_so_far(&place.path("killed")) >= lines) && running.kill());
    }
    run(&mut place.train("killed", &sets)).success();
    assert_eq!(metrics(&place.path("killed")).losses(), metrics(&place.path("undisturbed")).losses());
    let weights = |run: &str| fs::read(whole_latest(&place.path(run)).join("model/model.safetensors")).unwrap();
    assert!(weights("killed") == weights("undisturbed"), "other weights");
}

/// Every update is left out once the weights are beyond repair; that ends the run, and says where to look.
#[test]
fn too_many_end_the_run() {
    let place = place();
    let sets = "optimizer.lr=1e30 optimizer.warmup_steps=1 checkpoint.every=1 spikes.policy=skip spikes.limit=3";
    let ended = run(&mut place.train("run", sets));
    ended.error(1, &["step 5", "more than 3 spikes", "spikes.jsonl", "lower optimizer.lr"]);
    let actions: Vec<_> = records(&place.path("run")).iter().map(|record| record["action"].clone()).collect();
    assert_eq!(actions, ["skipped", "skipped", "skipped", "ended"]);
    assert_eq!(records(&place.path("run"))[0]["loss"], Value::Null);
    assert_eq!(whole_checkpoints(&place.path("run")).last(), Some(&4));
}
