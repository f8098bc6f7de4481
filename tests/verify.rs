//! `trainer verify`: what it says of whole and of damaged things, and its exit codes.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Ended, Place, data, run, trainer, whole_latest};

fn verify(path: &Path, options: &str) -> Ended {
    run(trainer("verify").arg(path).args(options.split_whitespace()))
}

/// The things that were checked, after the one object that `--json` prints.
#[track_caller]
fn checked(path: &Path, code: i32, kind: &str) -> Vec<Value> {
    let ended = verify(path, "--json");
    assert_eq!(ended.code, Some(code), "{}{}", ended.stdout, ended.stderr);
    let object = ended.json();
    assert_eq!((&object["kind"], &object["ok"]), (&Value::from(kind), &Value::from(code == 0)), "{object}");
    assert_eq!(object["path"], path.to_str().unwrap());
    object["checks"].as_array().unwrap().clone()
}

#[test]
fn runs_data_and_models_of_the_program_are_whole() {
    let place = Place::new();
    let sets = "train.steps=6 checkpoint.every=3 validation.every=3 train.precision=fp16 train.loss_scale=1024";
    run(&mut place.train("run", sets)).success();
    let checks = checked(&place.path("run"), 0, "run");
    let named = |name: &str| checks.iter().filter(|check| check["path"].as_str().unwrap().ends_with(name)).count();
    for (name, times) in [
        ("config.toml", 1),
        ("metrics.jsonl", 1),
        ("sessions.jsonl", 1),
        ("state.json", 2),
        ("/model", 2),
        ("optimizer-*", 2),
        ("tokenizer.json", 2),
        ("latest", 1),
        ("best", 1),
    ] {
        assert_eq!(named(name), times, "{name}: {checks:?}");
    }
    checked(&whole_latest(&place.path("run")), 0, "checkpoint");
    checked(&place.path("data"), 0, "data");
    checked(&place.path("data/train-00000.bin"), 0, "shard");
    checked(&data("phi-tiny/tokens.bin"), 0, "shard");
    let golden = verify(&data("phi-tiny/model"), "").success().stdout;
    assert!(golden.lines().count() >= 2 && golden.lines().all(|line| line.contains(": ok: ")), "{golden}");
    assert!(golden.contains("its files have no checksums"), "{golden}");
}

#[test]
fn damage_is_named_and_paths_that_are_nothing_are_wrong_input() {
    let place = Place::new();
    let sets = "train.steps=4 checkpoint.every=2";
    run(&mut place.train("run", sets)).success();
    let latest = whole_latest(&place.path("run"));
    let weights = latest.join("model/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let (name, pointer) = (latest.to_str().unwrap().to_string(), place.path("run/checkpoints/latest"));
    let ended = verify(&place.path("run"), "");
    ended.error(1, &["is damaged in 2 of", &name, pointer.to_str().unwrap()]);
    let damaged: Vec<&str> = ended.stdout.lines().filter(|line| line.contains(": damaged: ")).collect();
    assert_eq!(damaged.len(), 2, "{}", ended.stdout);
    assert!(damaged[0].contains("model/model.safetensors has changed"), "{damaged:?}");
    assert!(damaged[1].contains("write step-00000002 into this file"), "{damaged:?}");
    let checks = checked(&place.path("run"), 1, "run");
    assert_eq!(checks.iter().filter(|check| check["ok"] == false).count(), 2, "{checks:?}");
    // What it says to do is what makes it whole.
    fs::write(&pointer, "step-00000002\n").unwrap();
    run(place.train("run", sets).arg("--resume")).success();
    checked(&place.path("run"), 0, "run");

    for name in ["absent", "text", "text/0.txt"] {
        let path = place.path(name);
        verify(&path, "").error(2, &[path.to_str().unwrap(), "expected a run, a checkpoint"]);
    }
}

#[test]
fn a_run_may_go_on_meanwhile() {
    let place = Place::new();
    let sets = "train.steps=400 checkpoint.every=1 validation.every=7";
    let mut training = place.train("run", sets).stderr(Stdio::null()).spawn().unwrap();
    let mut verified = 0;
    while training.try_wait().unwrap().is_none() {
        if place.path("run/checkpoints/latest").exists() {
            verify(&place.path("run"), "").success();
            verified += 1;
        }
    }
    assert!(training.wait().unwrap().success() && verified > 0, "{verified}");
    checked(&place.path("run"), 0, "run");
}
