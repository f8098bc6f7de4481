//! What the program says to wrong input and to trouble on the way: the exit code, one sentence with what is needed to
//! put it right, and nothing written that was not there.

use std::fs;
use std::path::Path;
use std::process::Command;

use trainer::checkpoint::tensor_file::write_tensor_file;
use trainer::checkpoint::{Dtype, TensorEntry, TensorFile};

use crate::support::{
    Place, data, metrics, run, set, trainer, trainer_on, whole_checkpoints, whole_latest, write_shard,
};

const WRONG: i32 = 2;
const FAILED: i32 = 1;

/// Runs a command that must be refused, and checks that it changed nothing under `untouched`.
#[track_caller]
fn refused(place: &Place, command: &mut Command, untouched: &str, words: &[&str]) {
    let before = place.snapshot(untouched);
    run(command).error(WRONG, words);
    assert!(place.snapshot(untouched) == before, "{untouched} was written to");
}

/// Name of a configuration key or option, and what the error says of it.
#[test]
fn wrong_configurations() {
    let place = Place::new();
    for (sets, words) in [
        ("optimizer.lrr=1", &["optimizer.lrr", "did you mean lr?"][..]),
        ("lr=1", &["did you mean optimizer.lr?"]),
        ("optimiser.lr=1", &["unknown table optimiser", "did you mean optimizer?"]),
        ("train.precision=fp61", &["train.precision is \"fp61\"", "must be one of", "did you mean fp16?"]),
        ("train.steps=0", &["train.steps is 0", "from 1"]),
        ("train.steps", &["expected table.key=value"]),
        ("train.batch=7", &["train.batch 7 is not a multiple of train.micro_batch 4"]),
        ("model.heads=3", &["model.heads = 3", "model.hidden = 32"]),
        ("model.dropout=1", &["model.dropout is 1", "less than 1"]),
        ("model.vocab=100", &["vocabulary of 257", "set model.vocab to at least 257"]),
        ("model.seq_len=50000", &["50001 tokens", "shorter sequence"]),
    ] {
        refused(&place, &mut place.train("new", sets), "new", words);
    }
    assert!(!place.path("new").exists(), "a run directory was made");
    let mut preset = trainer("train --preset laptob --out");
    refused(&place, preset.arg(place.path("new")), "new", &["unknown preset \"laptob\"", "did you mean laptop?"]);
    let mut nothing = trainer("train --out");
    refused(&place, nothing.arg(place.path("new")), "new", &["--preset", "--config"]);
    let typo = run(&mut trainer("trian"));
    assert!(typo.code == Some(WRONG) && typo.stderr.contains("'train'"), "{typo:?}");
}

#[test]
fn data_that_is_missing_or_damaged() {
    let place = Place::new();
    let train = |data: &str, sets: &str| {
        let mut command = trainer("train --config");
        command.arg(place.path("config.toml")).arg("--data").arg(place.path(data)).arg("--out").arg(place.path("new"));
        set(&mut command, sets);
        command
    };
    let words = ["nowhere", "no such file or folder", "trainer prepare --out", "--data"];
    refused(&place, &mut train("nowhere", ""), "new", &words);
    refused(&place, &mut train("config.toml", ""), "new", &["config.toml", "trainer prepare"]);
    refused(&place, &mut train("text", ""), "new", &["text", "manifest.json", "trainer prepare"]);

    let mut unvalidated = trainer("prepare --tokenizer bytes --val-fraction 0");
    run(unvalidated.arg(place.path("text")).arg("--out").arg(place.path("unvalidated"))).success();
    let words = ["no validation part", "--val-fraction", "validation.every=0"];
    refused(&place, &mut train("unvalidated", "validation.every=5"), "new", &words);
    run(&mut train("unvalidated", "train.steps=1")).success();
    fs::remove_dir_all(place.path("new")).unwrap();
    // A header of 1024 bytes, then two a token.
    let tokens = (fs::metadata(place.path("data/val-00000.bin")).unwrap().len() - 1024) / 2;
    let (has, needs) = (format!("validation part has {tokens} tokens"), format!("one sequence needs {}", tokens + 1));
    let words = [has.as_str(), &needs, "--val-fraction", "validation.every=0"];
    refused(&place, &mut train("data", &format!("validation.every=5 model.seq_len={tokens}")), "new", &words);

    let shard = place.path("data/train-00000.bin");
    let whole = fs::read(&shard).unwrap();
    fs::write(&shard, &whole[..whole.len() - 10]).unwrap();
    refused(&place, &mut train("data", ""), "new", &["train-00000.bin", "truncated"]);
    let mut foreign = whole.clone();
    foreign[0] ^= 1;
    fs::write(&shard, foreign).unwrap();
    refused(&place, &mut train("data", ""), "new", &["train-00000.bin", "magic"]);
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&shard, flipped).unwrap();
    refused(&place, &mut train("data", ""), "new", &["train-00000.bin", "CRC-32", "damaged"]);
    fs::remove_file(&shard).unwrap();
    // It was there once: no wrong usage.
    run(&mut train("data", "")).error(FAILED, &["train-00000.bin", "is missing", "manifest.json"]);
    assert!(!place.path("new").exists());
}

#[test]
fn run_directories() {
    let place = Place::new();
    let mut nothing = trainer("train --resume --out");
    refused(&place, nothing.arg(place.path("nothing")), "nothing", &["nothing", "no run to resume"]);
    assert!(!place.path("nothing").exists());

    run(&mut place.train("run", "train.steps=4 checkpoint.every=2")).success();
    let words = ["already holds a run", "checkpoint.every = 2 there, 0 asked for", "--resume", "--out"];
    refused(&place, &mut place.train("run", "train.steps=4"), "run", &words);
    let mut never = place.train("run", "train.steps=4 checkpoint.every=2");
    refused(&place, never.arg("--resume=never"), "run", &["already holds a run", "--resume=never", "--out"]);
    fs::write(place.path("other.toml"), fs::read_to_string(place.path("config.toml")).unwrap() + "seed = 5\n").unwrap();
    let mut changed = trainer("train --resume --config");
    changed.arg(place.path("other.toml")).arg("--out").arg(place.path("run"));
    set(&mut changed, "train.steps=4 checkpoint.every=2");
    refused(&place, &mut changed, "run", &["another configuration", "train.seed = 0 there, 5 asked for"]);
    let mut larger = trainer("train --resume --set model.layers=3 --out");
    let words = ["has layers 2", "the configuration has layers 3", "--set model.layers=2"];
    refused(&place, larger.arg(place.path("run")), "run", &words);

    fs::write(place.path("text/0.txt"), "x = 1\n".repeat(50)).unwrap();
    let mut prepare = trainer("prepare --tokenizer bytes --val-fraction 0.2");
    run(prepare.arg(place.path("text")).arg("--out").arg(place.path("edited"))).success();
    let mut edited = trainer("train --resume --out");
    edited.arg(place.path("run")).arg("--data").arg(place.path("edited"));
    refused(&place, &mut edited, "run", &["other data", "--init-from"]);
    let mut both = trainer("train --resume --init-from x --out");
    refused(&place, both.arg(place.path("run")), "run", &["--resume and --init-from"]);
}

/// Every file of a checkpoint, one bit at a time; the pointer may then be moved by hand, as the error says.
#[test]
fn a_damaged_checkpoint() {
    let place = Place::new();
    run(&mut place.train("run", "train.steps=4 checkpoint.every=2")).success();
    let latest = whole_latest(&place.path("run"));
    let resume = || {
        let mut command = trainer("train --resume --out");
        command.arg(place.path("run"));
        command
    };
    let files = ["model/model.safetensors", "optimizer-00000-of-00001.safetensors", "state.json", "model/config.json"];
    for file in files {
        let path = latest.join(file);
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 0x10;
        fs::write(&path, damaged).unwrap();
        let words = ["step-00000004", file, "has changed", "next older whole checkpoint is step-00000002"];
        refused(&place, &mut resume(), "run", &words);
        let mut evaluate = trainer("evaluate --model");
        evaluate.arg(place.path("run")).arg("--data").arg(place.path("data"));
        if file.starts_with("model/") {
            refused(&place, &mut evaluate, "run", &["step-00000004", file]);
        } else {
            // Reading six times the model's size to answer a question about the model would be waste.
            run(&mut evaluate).success();
        }
        fs::write(&path, whole).unwrap();
    }
    fs::remove_file(latest.join("state.json")).unwrap();
    refused(&place, &mut resume(), "run", &["state.json is missing"]);
    fs::write(place.path("run/checkpoints/latest"), "step-00000002\n").unwrap();
    let resumed = run(&mut resume()).success();
    assert!(resumed.stderr.contains("the checkpoint of step 2"), "{}", resumed.stderr);
    assert_eq!(whole_checkpoints(&place.path("run")), [2, 4]);
}

/// A tensor that is missing, one too many, one of another shape and one of a type that no weight has: all in one error.
#[test]
fn a_model_with_other_tensors() {
    let place = Place::new();
    let source = data("phi-tiny/model");
    let model = place.path("model");
    fs::create_dir(&model).unwrap();
    fs::copy(source.join("config.json"), model.join("config.json")).unwrap();
    let file = TensorFile::open(&source.join("model.safetensors")).unwrap();
    let mut entries = vec![TensorEntry::f32("model.extra", vec![1], &[1.0])];
    for name in file.names().into_iter().filter(|name| name != "model.layers.1.mlp.fc2.bias") {
        let (mut shape, mut dtype) = (file.shape(&name).unwrap().to_vec(), file.dtype(&name).unwrap());
        if name == "lm_head.weight" {
            shape.reverse();
        }
        if name == "lm_head.bias" {
            dtype = Dtype::I32;
        }
        entries.push(TensorEntry::bytes(name.clone(), dtype, shape, file.bytes(&name).unwrap()));
    }
    write_tensor_file(&model.join("model.safetensors"), entries, &[]).unwrap();
    let words = [
        "missing: model.layers.1.mlp.fc2.bias",
        "not part of the model: model.extra",
        "lm_head.weight has shape",
        "lm_head.bias is I32, expected F32, F16 or BF16",
    ];
    let mut evaluate = trainer("evaluate --model");
    evaluate.arg(&model).arg("--data").arg(place.path("data"));
    refused(&place, &mut evaluate, "model", &words);
    let mut export = trainer("export --out");
    refused(&place, export.arg(place.path("exported")).arg(&model), "exported", &words);
    assert!(!place.path("exported").exists());
    fs::remove_file(model.join("model.safetensors")).unwrap();
    let mut logits = trainer("logits --seq-len 8 --model");
    logits.arg(&model).arg("--tokens").arg(data("phi-tiny/tokens.bin")).arg("--out").arg(place.path("l.safetensors"));
    refused(&place, &mut logits, "l.safetensors", &["has no weights", "model.safetensors"]);
}

#[test]
fn questions_that_have_no_answer() {
    let place = Place::new();
    let model = data("phi-tiny/model");
    let logits = |model: &Path, tokens: &Path, seq: &str| {
        let mut command = trainer("logits --seq-len");
        command.arg(seq).arg("--model").arg(model).arg("--tokens").arg(tokens).arg("--out").arg(place.path("l"));
        command
    };
    run(&mut place.train("run", "train.steps=1")).success();
    let words = ["sequence of 33 tokens", "context of 32"];
    refused(&place, &mut logits(&place.path("run"), &place.path("data/val-00000.bin"), "33"), "l", &words);
    let words = ["holds 128 tokens", "sequence of 2000"];
    refused(&place, &mut logits(&model, &data("phi-tiny/tokens.bin"), "2000"), "l", &words);
    // ids up to 511 in a vocabulary of 257.
    let words = ["tokens.bin", "vocabulary has only 257 ids"];
    refused(&place, &mut logits(&place.path("run"), &data("phi-tiny/tokens.bin"), "8"), "l", &words);
    assert!(!place.path("l").exists());

    write_shard(&place.path("empty.bin"), &[]);
    let mut evaluate = trainer("evaluate --model");
    refused(
        &place,
        evaluate.arg(&model).arg("--data").arg(place.path("empty.bin")),
        "run",
        &["empty.bin", "no tokens"],
    );
    write_shard(&place.path("one.bin"), &[1]);
    let mut evaluate = trainer("evaluate --model");
    refused(&place, evaluate.arg(&model).arg("--data").arg(place.path("one.bin")), "run", &["at least 2 tokens"]);
    let mut nowhere = trainer("generate --prompt x --model");
    refused(&place, nowhere.arg(place.path("nowhere")), "run", &["nowhere", "does not exist"]);
    let mut empty = trainer("generate --model");
    refused(&place, empty.arg(place.path("run")).args(["--prompt", ""]), "run", &["prompt is empty"]);
    let mut export = trainer("export --out");
    refused(&place, export.arg(place.path("text")).arg(&model), "text", &["not empty"]);
}

#[test]
fn devices_that_are_not_there() {
    let place = Place::new();
    let words = ["cpu", "no device 7", "its devices are 0"];
    refused(&place, place.train("new", "").args(["--device", "7"]), "new", &words);
    assert!(!place.path("new").exists());
    match trainer_backends::discovery::choose(trainer_backends::discovery::Request::Cuda, None) {
        Ok(choice) => eprintln!("SKIPPED the error about a missing CUDA driver: there is {choice}"),
        Err(_) => {
            let mut cuda = place.train_on("cuda", "new", "");
            refused(&place, &mut cuda, "new", &["cuda backend cannot run here"]);
            // Asking what there is fails nowhere, and says the same.
            let devices = run(&mut trainer_on("cuda", "devices")).success();
            assert!(devices.stdout.contains("cuda cannot run here"), "{}", devices.stdout);
        }
    }
}

/// Weights of 1e30 after the first update: the next loss is no number. What was saved before stays.
#[test]
fn a_loss_that_is_not_a_number() {
    let place = Place::new();
    let sets = "optimizer.lr=1e30 optimizer.warmup_steps=1 train.steps=10 checkpoint.every=1";
    let ended = run(&mut place.train("run", sets));
    ended.error(FAILED, &["step 2", "not a finite number", "lower optimizer.lr", "last checkpoint"]);
    assert_eq!(whole_checkpoints(&place.path("run")), [1]);
    assert!(whole_latest(&place.path("run")).ends_with("step-00000001"));
    assert_eq!(metrics(&place.path("run")).steps.len(), 1);
}
