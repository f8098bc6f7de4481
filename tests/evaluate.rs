//! `evaluate`: its losses against ones computed here from logits, text against prepared data, and what it refuses.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use trainer::checkpoint::TensorFile;

use crate::support::{Ended, Place, data, run, trainer, write_shard};

/// Losses of some ten tokens each, summed in fp32 there and in f64 here.
const TOLERANCE: f64 = 2e-5;

const VOCAB: usize = 512;

fn golden_tokens() -> Vec<u16> {
    let file = fs::read(data("phi-tiny/tokens.bin")).unwrap();
    file[1024..].as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect()
}

fn evaluate(model: &Path, rest: &str) -> Command {
    let mut command = trainer("evaluate --json --model");
    command.arg(model).args(rest.split_whitespace());
    command
}

/// The sum of the losses of the last `scored` targets of a window, from its logits.
fn loss_of_window(place: &Place, tokens: &[u16], scored: usize) -> f64 {
    let (shard, out) = (place.path("window.bin"), place.path("window.safetensors"));
    let len = tokens.len() - 1;
    write_shard(&shard, &tokens[..len]);
    let mut command = trainer(&format!("logits --seq-len {len} --model"));
    run(command.arg(data("phi-tiny/model")).arg("--tokens").arg(&shard).arg("--out").arg(&out)).success();
    let mut logits = vec![0.0; len * VOCAB];
    TensorFile::open(&out).unwrap().read_f32("logits", &mut logits).unwrap();
    let loss = |position: usize| {
        let row = &logits[position * VOCAB..][..VOCAB];
        let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
        sum.ln() - f64::from(row[usize::from(tokens[position + 1])])
    };
    (len - scored..len).map(loss).sum()
}

/// Windows by hand: (start, end of the inputs, scored).
#[test]
fn windows_with_and_without_overlap() {
    let place = Place::new();
    let tokens = &golden_tokens()[..24];
    let shard = place.path("golden.bin");
    write_shard(&shard, tokens);
    // Batches of one and of several: windows of one shape go together.
    for (rest, windows) in [
        ("--seq-len 10", vec![(0, 10, 10), (10, 20, 10)]),
        ("--seq-len 10 --stride 10", vec![(0, 10, 10), (10, 20, 10), (20, 23, 3)]),
        ("--seq-len 10 --stride 4 --batch 1", vec![(0, 10, 10), (4, 14, 4), (8, 18, 4), (12, 22, 4), (16, 23, 1)]),
        ("--seq-len 10 --stride 4 --batch 8", vec![(0, 10, 10), (4, 14, 4), (8, 18, 4), (12, 22, 4), (16, 23, 1)]),
        ("", vec![(0, 23, 23)]),
        ("--stride 5 --seq-len 12 --max-batches 1 --batch 2", vec![(0, 12, 12), (5, 17, 5)]),
    ] {
        let found = run(evaluate(&data("phi-tiny/model"), rest).arg("--data").arg(&shard)).success().json();
        let scored: usize = windows.iter().map(|window| window.2).sum();
        let sum: f64 =
            windows.iter().map(|(from, to, scored)| loss_of_window(&place, &tokens[*from..=*to], *scored)).sum();
        assert_eq!(found["tokens"].as_u64(), Some(scored as u64), "{rest}: {found}");
        let (loss, expected) = (found["loss"].as_f64().unwrap(), sum / scored as f64);
        assert!((loss - expected).abs() < TOLERANCE, "{rest}: {loss}, expected {expected}");
        // Nobody knows what text these tokens are.
        assert!(found["bits_per_byte"].is_null() && found["bytes"].is_null(), "{found}");
    }
}

fn number(found: &Value, key: &str) -> f64 {
    found[key].as_f64().unwrap_or_else(|| panic!("no {key} in {found}"))
}

/// Text is what `prepare` makes of it, whichever way it is given.
#[test]
fn text_and_prepared_data_agree() {
    let place = Place::new();
    run(&mut place.train("run", "")).success();
    let run_dir = place.path("run");
    let mut prepare = trainer("prepare --tokenizer bytes --val-fraction 0");
    run(prepare.arg(place.path("text")).arg("--out").arg(place.path("whole"))).success();
    let ends = |rest: &str, path: &Path| run(evaluate(&run_dir, rest).arg("--data").arg(path)).success().json();
    let prepared = ends("--split train --stride 32", &place.path("whole"));
    let folder = ends("", &place.path("text"));
    for key in ["loss", "perplexity", "bits_per_byte", "tokens", "bytes"] {
        assert!((number(&prepared, key) - number(&folder, key)).abs() < 1e-9, "{key}: {prepared} {folder}");
    }
    let files: Vec<Vec<u8>> =
        fs::read_dir(place.path("text")).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    let bytes: usize = files.iter().map(Vec::len).sum();
    // A byte is a token; the first one is not scored, and the end of each document is no text.
    assert_eq!(number(&folder, "tokens"), (bytes + files.len() - 1) as f64);
    assert_eq!(number(&folder, "bytes"), (bytes - 1) as f64);
    let bits = number(&folder, "loss") * number(&folder, "tokens") / 2f64.ln() / number(&folder, "bytes");
    assert!((number(&folder, "bits_per_byte") - bits).abs() < 1e-9, "{folder}");

    // One file, by name, as text and through a pipe; shorter than the context of 32.
    let short = place.path("short.odd");
    fs::write(&short, "def é(x):").unwrap();
    let named = ends("", &short);
    assert_eq!((number(&named, "tokens"), number(&named, "bytes")), (10.0, 9.0));
    let as_text = run(evaluate(&run_dir, "--text").arg(&short)).success().json();
    let piped = run(evaluate(&run_dir, "--text -").stdin(File::open(&short).unwrap())).success().json();
    assert_eq!((&as_text, &piped), (&named, &named));
    let told = run(trainer("evaluate --model").arg(&run_dir).arg("--text").arg(&short)).success();
    let loss = format!("loss {:.4} nats per token", number(&named, "loss"));
    assert!(told.stdout.starts_with(&loss) && told.stdout.contains("bits per byte"), "{}", told.stdout);
    let strided = ends("--stride 20", &short);
    assert!((number(&strided, "loss") - number(&named, "loss")).abs() < 1e-9, "{strided} {named}");
    // Every token of a longer text counts, whatever the windows.
    let long = place.path("text/0.txt");
    let bytes = fs::metadata(&long).unwrap().len();
    for rest in ["", "--seq-len 7", "--stride 5", "--seq-len 9 --stride 2"] {
        assert_eq!(number(&ends(rest, &long), "tokens"), bytes as f64, "{rest}");
    }
    // Overlapping windows see more, so a trained model does better.
    assert!(number(&ends("--stride 4", &long), "loss") < number(&ends("", &long), "loss"));
}

/// Input that is none, windows that do not fit, and tokenizers that are not the model's.
#[test]
fn what_cannot_be_evaluated() {
    let place = Place::new();
    run(&mut place.train("run", "train.steps=1")).success();
    let refused = |command: &mut Command, words: &[&str]| {
        let Ended { code, stderr, .. } = run(command);
        assert_eq!(code, Some(2), "{stderr}");
        words.iter().for_each(|word| assert!(stderr.contains(word), "no \"{word}\" in {stderr}"));
    };
    let model = place.path("run");
    let file = |name: &str, bytes: &[u8]| {
        fs::write(place.path(name), bytes).unwrap();
        place.path(name)
    };
    refused(&mut evaluate(&model, ""), &["--data", "required"]);
    refused(evaluate(&model, "--text - --data").arg(place.path("data")), &["cannot be used with"]);
    refused(evaluate(&model, "--text").arg(file("latin", b"caf\xe9")), &["latin", "not UTF-8"]);
    refused(evaluate(&model, "--text").arg(file("nothing", b"")), &["nothing", "is empty"]);
    refused(&mut evaluate(&model, "--text -"), &["standard input", "is empty"]);
    refused(evaluate(&model, "--data").arg(place.path("missing")), &["missing"]);
    fs::create_dir(place.path("folder")).unwrap();
    refused(evaluate(&model, "--data").arg(place.path("folder")), &["no text found", "token shards"]);
    refused(evaluate(&model, "--stride 33 --data").arg(place.path("data")), &["stride of 33"]);
    refused(evaluate(&model, "--seq-len 33 --data").arg(place.path("data")), &["context of 32"]);
    // The golden model has no tokenizer, and its vocabulary is too small for the built-in one.
    refused(evaluate(&data("phi-tiny/model"), "--text").arg(place.path("text/0.txt")), &["no tokenizer.json"]);

    // A tokenizer with ids that the model does not have.
    let larger = place.path("larger");
    run(trainer("export --out").arg(&larger).arg(data("phi-tiny/model"))).success();
    let mut prepare = trainer("prepare --val-fraction 0");
    run(prepare.arg(place.path("text")).arg("--out").arg(place.path("codegen"))).success();
    fs::copy(place.path("codegen/tokenizer.json"), larger.join("tokenizer.json")).unwrap();
    refused(evaluate(&larger, "--text").arg(place.path("text/0.txt")), &["larger", "only 512 ids", "tokenizer.json"]);

    // The same numbers of ids, but another tokenizer's: the loss is one, but of no text that is known.
    let small = place.path("small");
    let mut prepare = trainer("prepare --val-fraction 0.2 --tokenizer bytes");
    run(prepare.arg(place.path("text")).arg("--out").arg(&small)).success();
    let tokenizer =
        fs::read_to_string(model.join("checkpoints").join(latest(&model)).join("model/tokenizer.json")).unwrap();
    let other = place.path("other");
    run(trainer("export --out").arg(&other).arg(&model)).success();
    fs::write(other.join("tokenizer.json"), tokenizer.replace("\"!\"", "\"\u{3b1}\"")).unwrap();
    let warned = run(evaluate(&other, "--data").arg(&small)).success();
    assert!(warned.stderr.contains("another tokenizer"), "{}", warned.stderr);
    assert!(warned.json()["bits_per_byte"].is_null());
    let known = run(evaluate(&model, "--data").arg(&small)).success();
    assert!(!warned.json()["loss"].is_null() && number(&known.json(), "bits_per_byte") > 0.0);
}

fn latest(run: &Path) -> String {
    fs::read_to_string(run.join("checkpoints/latest")).unwrap().trim().to_owned()
}
