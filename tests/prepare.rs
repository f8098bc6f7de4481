//! From a folder of files to text from a model: prepare, evaluate, logits, export, generate, and the commands that only
//! tell.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use trainer::checkpoint::model_files::load_model;
use trainer::checkpoint::{Dtype, TensorFile};

use crate::support::{Place, data, metrics, run, trainer, whole_latest};

fn documents(manifest: &Value) -> u64 {
    ["train", "val"].iter().map(|part| manifest[part]["documents"].as_u64().unwrap()).sum()
}

#[test]
fn a_folder_of_several_kinds() {
    let place = Place::new();
    let folder = place.path("corpus");
    fs::create_dir_all(folder.join("inner")).unwrap();
    fs::write(folder.join("inner/one.py"), "def one():\n    return 1\n").unwrap();
    fs::write(folder.join("two.txt"), "two é\n").unwrap();
    fs::write(folder.join("empty.md"), "").unwrap();
    fs::write(folder.join("image.png"), b"\x89PNG").unwrap();
    fs::write(folder.join("latin.txt"), b"caf\xe9\n").unwrap();
    let lines = [json!({ "text": "three" }), json!({ "text": "four" }), json!({ "body": "no text" })];
    let lines = lines.map(|line| line.to_string()).join("\n") + "\nnot json\n";
    let gzip = File::create(folder.join("more.jsonl.gz")).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(gzip, flate2::Compression::default());
    gzip.write_all(lines.as_bytes()).unwrap();
    gzip.finish().unwrap();

    let prepare = |out: &str, rest: &str| {
        let mut command = trainer(&format!("prepare --tokenizer bytes --val-fraction 0.3 {rest}"));
        command.arg(&folder).arg("--out").arg(place.path(out));
        run(&mut command)
    };
    let shown = prepare("shown", "").success();
    assert!(shown.stdout.contains("latin.txt: ") && shown.stdout.contains("UTF-8"), "{}", shown.stdout);
    let result = prepare("told", "--json").success().json();
    let manifest: Value = serde_json::from_slice(&fs::read(place.path("told/manifest.json")).unwrap()).unwrap();
    assert_eq!(result["manifest"], manifest);
    assert_eq!((documents(&manifest), manifest["empty_documents"].as_u64()), (4, Some(1)));
    assert_eq!(manifest["other_files"], 1);
    assert_eq!((result["skipped_files"].as_u64(), result["skipped_records"].as_u64()), (Some(1), Some(2)));
    let skipped = manifest["skipped"].as_array().unwrap();
    let of =
        |name: &str| skipped.iter().filter(|skip| skip["path"].as_str().unwrap().ends_with(name)).collect::<Vec<_>>();
    assert!(of("latin.txt").len() == 1 && of("more.jsonl.gz").len() == 2 && skipped.len() == 3, "{manifest}");
    // A byte is a token, and each document has its end.
    let bytes = ["def one():\n    return 1\n", "two é\n", "three", "four"].map(str::len).iter().sum::<usize>() as u64;
    assert_eq!((result["text_bytes"].as_u64(), result["tokens"].as_u64()), (Some(bytes), Some(bytes + 4)));

    // The same bytes each time, and nothing is replaced unasked.
    for shard in ["train-00000.bin", "val-00000.bin"] {
        assert!(
            fs::read(place.path("shown").join(shard)).unwrap() == fs::read(place.path("told").join(shard)).unwrap()
        );
    }
    prepare("told", "").error(2, &["told", "already holds a data set", "--force"]);
    prepare("told", "--force").success();
    assert!(!place.path("nothing").exists());
    let mut nothing = trainer("prepare --tokenizer bytes --out");
    run(nothing.arg(place.path("nothing")).arg(folder.join("latin.txt")))
        .error(2, &["no text found", "latin.txt", "UTF-8"]);
    assert!(!place.path("nothing").exists());
}

/// While it waits for a pipe that nobody writes to.
#[cfg(unix)]
#[test]
fn an_interrupted_prepare_leaves_nothing_behind() {
    use nix::sys::signal::{Signal, kill};
    use std::process::Stdio;
    let place = Place::new();
    let pipe = place.path("pipe.txt");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let left = |name: &str| place.path(name).exists();
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut prepare = trainer("prepare --tokenizer bytes --out");
        prepare.arg(place.path("new")).arg(&pipe).stdout(Stdio::piped()).stderr(Stdio::piped());
        let running = prepare.spawn().unwrap();
        let begun = std::time::Instant::now();
        while !left(".new.partial") {
            assert!(begun.elapsed().as_secs() < 60, "it does not begin");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        kill(nix::unistd::Pid::from_raw(running.id() as i32), signal).unwrap();
        let ended = running.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(code));
        assert_eq!(String::from_utf8(ended.stderr).unwrap(), "interrupted: nothing was written\n");
        assert!(!left("new") && !left(".new.partial") && !left(".new.lock"));
    }
}

#[test]
fn evaluate_is_the_validation_of_the_run() {
    let place = Place::new();
    let out = place.path("run");
    run(&mut place.train("run", "validation.every=10")).success();
    let last = metrics(&out).validations.last().unwrap()["val_loss"].as_f64().unwrap();
    for batch in ["1", "8", "1000"] {
        let mut evaluate = trainer("evaluate --json --model");
        evaluate.arg(&out).arg("--data").arg(place.path("data")).args(["--batch", batch]);
        let found = run(&mut evaluate).success().json();
        let (loss, perplexity) = (found["loss"].as_f64().unwrap(), found["perplexity"].as_f64().unwrap());
        assert!((loss - last).abs() < 1e-5, "batch {batch}: {loss}, the run's last validation found {last}");
        assert!(
            (perplexity.ln() - loss).abs() < 1e-9 && found["tokens"].as_u64().unwrap().is_multiple_of(32),
            "{found}"
        );
    }
}

/// The tolerance of tests/golden.rs, which tells its reason.
#[test]
fn logits_are_those_of_transformers() {
    let place = Place::new();
    let expected = TensorFile::open(&data("phi-tiny/expected.safetensors")).unwrap();
    let shape = expected.shape("logits").unwrap().to_vec();
    let out = place.path("logits.safetensors");
    let mut logits = trainer("logits --seq-len");
    logits.arg(shape[1].to_string()).arg("--model").arg(data("phi-tiny/model"));
    run(logits.arg("--tokens").arg(data("phi-tiny/tokens.bin")).arg("--out").arg(&out)).success();
    let found = TensorFile::open(&out).unwrap();
    assert_eq!((found.names(), found.shape("logits").unwrap()), (vec!["logits".to_owned()], &shape[..]));
    assert_eq!(found.dtype("logits").unwrap(), Dtype::F32);
    let read = |file: &TensorFile| {
        let mut values = vec![0.0; shape.iter().product()];
        file.read_f32("logits", &mut values).unwrap();
        values
    };
    let worst = read(&found).iter().zip(read(&expected)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 2e-4, "{worst}");
}

/// fp16 of a run's fp32 weights: each value is the nearest one, and the tokenizer comes along.
#[test]
fn an_export_reads_back() {
    let place = Place::new();
    run(&mut place.train("run", "")).success();
    let exported = place.path("exported");
    let export = |out: &Path, rest: &str| {
        let mut command = trainer(&format!("export {rest} --out"));
        run(command.arg(out).arg(place.path("run"))).success()
    };
    export(&exported, "--dtype fp16");
    let checkpoint = whole_latest(&place.path("run")).join("model");
    let (config, weights) = load_model(&checkpoint).unwrap();
    let (narrow_config, narrow) = load_model(&exported).unwrap();
    assert_eq!(narrow_config.architecture, config.architecture);
    let (weights, narrow) = (weights.groups.concat(), narrow.groups.concat());
    assert!(narrow.iter().eq(weights.iter().map(|w| half::f16::from_f32(*w).to_f32()).collect::<Vec<_>>().iter()));
    assert!(narrow != weights, "nothing was rounded");
    let stored = TensorFile::open(&exported.join("model.safetensors")).unwrap();
    assert!(stored.names().iter().all(|name| stored.dtype(name).unwrap() == Dtype::F16));
    let json: Value = serde_json::from_slice(&fs::read(exported.join("config.json")).unwrap()).unwrap();
    assert_eq!((json["architectures"][0].as_str(), json["vocab_size"].as_u64()), (Some("PhiForCausalLM"), Some(257)));
    assert!(json.to_string().contains("\"float16\""), "{json}");

    export(&place.path("plain"), "");
    let bytes = |dir: &Path| fs::read(dir.join("model.safetensors")).unwrap();
    assert!(bytes(&place.path("plain")) == bytes(&checkpoint), "an export in the same precision changed the weights");

    let loss = |model: &Path| {
        let mut evaluate = trainer("evaluate --json --model");
        run(evaluate.arg(model).arg("--data").arg(place.path("data"))).success().json()["loss"].as_f64().unwrap()
    };
    // Rounding to eleven bits moves a loss of about 1 in the fourth digit.
    assert!((loss(&exported) - loss(&checkpoint)).abs() < 5e-3);
    let generated = run(trainer("generate --max-tokens 4 --prompt def --json --model").arg(&exported)).success().json();
    assert_eq!(generated["completions"].as_array().unwrap().len(), 1);
}

#[test]
fn estimate_counts_phi_1() {
    let estimate = run(&mut trainer("estimate --preset phi-1 --json")).success().json();
    assert_eq!(estimate["parameters"], 1_418_270_720_u64);
    let flops = estimate["flops_per_token"].as_f64().unwrap() / 1e9;
    assert!((flops - 9.085).abs() < 5e-4, "{flops}");
    let small = run(&mut trainer("estimate --preset phi-1-small --json")).success().json();
    assert_eq!(small["parameters"], 356_794_368_u64);
    assert!(estimate["memory_total"].as_u64() > small["memory_total"].as_u64());
    let text = run(&mut trainer("estimate --preset phi-1")).success().stdout;
    assert!(text.contains("1,418,270,720") && text.contains("9.085 G"), "{text}");
}

#[test]
fn devices_are_listed_with_what_auto_takes() {
    let report = run(&mut trainer("devices --json")).success().json();
    let devices = report["devices"].as_array().unwrap();
    let of = |backend: &Value| devices.iter().filter(|device| device["backend"] == *backend).count();
    assert_eq!(of(&json!("cpu")), 1);
    assert!(of(&report["auto"]["backend"]) > 0, "{report}");
    assert!(report["auto"]["reason"].as_str().is_some_and(|reason| !reason.contains('\n')), "{report}");
    // A backend either has devices or says what it lacks.
    for backend in ["cuda", "wgpu"] {
        let lacks = report["missing"][backend].as_array().unwrap();
        assert!(of(&json!(backend)) > 0 || !lacks.is_empty(), "{backend}: {report}");
        for lack in lacks {
            assert!(
                ["what", "remedy"].iter().all(|key| lack[key].as_str().is_some_and(|text| !text.is_empty())),
                "{lack}"
            );
        }
    }
}

#[test]
fn bench_reports_what_the_pytorch_peer_reports() {
    let sizes = "--hidden 32 --layers 1 --heads 2 --vocab 257 --seq 32 --micro-batch 2 --accumulate 2";
    let report = run(&mut trainer(&format!("bench {sizes} --steps 3 --warmup 1 --json"))).success().json();
    let number = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("no {key} in {report}"));
    let [min, median, max] = ["step_ms_min", "step_ms_median", "step_ms_max"].map(number);
    assert!(0.0 < min && min <= median && median <= max, "{report}");
    let tokens = 2.0 * 2.0 * 32.0;
    assert!((number("tokens_per_s") * median / 1e3 / tokens - 1.0).abs() < 1e-9, "{report}");
    // Embedding and lm_head (with bias), a block, two layer norms.
    let (c, vocab) = (32.0, 257.0);
    assert_eq!(number("params"), 2.0 * vocab * c + vocab + 12.0 * c * c + 9.0 * c + 4.0 * c);
    assert!(number("model_tflops") > 0.0);
    // /proc tells it; elsewhere the field is null.
    assert!(
        report.get("peak_gib").is_some_and(|peak| cfg!(not(target_os = "linux")) || peak.as_f64() > Some(0.0)),
        "{report}"
    );
    assert!((number("loss") - vocab.ln()).abs() < 0.2, "{report}");
}
