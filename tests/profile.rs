//! A trace of a few steps, and the table by part.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::support::{Place, has_wgpu, metrics, run, trainer, trainer_on};

/// A span of a trace, in nanoseconds.
struct Span {
    name: String,
    category: String,
    start: u64,
    end: u64,
    args: Value,
}

/// The spans of a trace; every one that is not a step lies in the one before it that is still open, and so in a step.
#[track_caller]
fn spans(path: &Path) -> Vec<Span> {
    let trace: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(trace["displayTimeUnit"], "ms");
    assert!(trace["otherData"]["mode"].as_str().unwrap().starts_with("operations one at a time"), "{trace}");
    let events = trace["traceEvents"].as_array().unwrap();
    let names = events.iter().filter(|event| event["ph"] == "M").count();
    assert_eq!(names, 2, "process and thread are named");
    let nanoseconds = |value: &Value| (value.as_f64().unwrap() * 1e3).round() as u64;
    let spans: Vec<Span> = events[names..]
        .iter()
        .map(|event| {
            assert!(event["ph"] == "X" && event["pid"] == 1 && event["tid"] == 1, "{event}");
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            let start = nanoseconds(&event["ts"]);
            let end = start + nanoseconds(&event["dur"]);
            Span { name: text("name"), category: text("cat"), start, end, args: event["args"].clone() }
        })
        .collect();
    let mut open: Vec<&Span> = Vec::new();
    for span in &spans {
        while open.pop_if(|parent| parent.end <= span.start).is_some() {}
        assert!(open.last().is_none_or(|parent| span.end <= parent.end), "{} is not within its parent", span.name);
        assert_eq!(open.is_empty(), span.category == "step", "{}", span.name);
        open.push(span);
    }
    spans
}

fn counts(spans: &[Span]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    spans.iter().for_each(|span| *counts.entry(&*span.name).or_default() += 1);
    counts
}

fn steps(spans: &[Span]) -> Vec<&str> {
    spans.iter().filter(|span| span.category == "step").map(|span| &*span.name).collect()
}

#[test]
fn profiled_steps_are_traced_and_their_losses_are_the_same_bits() {
    let place = Place::new();
    let sets = "train.steps=9 validation.every=5 validation.batches=1 checkpoint.every=5";
    let without = place.losses("without", sets);
    let ended = run(place.train("with", sets).args(["--profile", "2"])).success();
    assert_eq!(metrics(&place.path("with")).losses(), without);
    assert!(!place.path("without").join("profile.json").exists());

    let spans = spans(&place.path("with").join("profile.json"));
    assert_eq!(steps(&spans), ["step 4", "step 5"]);
    let counts = counts(&spans);
    // 2 steps of 2 micro-batches over 2 layers.
    for (name, count) in [
        ("fill the batch", 4),
        ("attention backward", 8),
        ("weight grad 32x224", 8),
        ("head and loss 32x257", 4),
        ("AdamW", 2 * 4),
        ("metrics", 2),
        ("validation", 1),
        ("checkpoint snapshot", 1),
        // Of the validation, within its span.
        ("head and loss forward 32x257", 1),
    ] {
        assert_eq!(counts.get(name), Some(&count), "{name} in {counts:?}");
    }
    let grad = spans.iter().find(|span| span.name == "input grad 128x32").unwrap();
    assert_eq!(grad.args["flops"], 2 * 128 * 128 * 32, "{}", grad.args);
    assert_eq!(grad.args["shape"], "128 tokens, 128 to 32");
    for words in ["GFLOP/s", "attention backward", "validation", "mean over 2 profiled ones", "profile.json"] {
        assert!(ended.stderr.contains(words), "no \"{words}\" in: {}", ended.stderr);
    }
    // The validation's own operations are in its row.
    assert!(!ended.stderr.contains("head and loss forward"), "{}", ended.stderr);
}

#[test]
fn a_run_that_ends_early_has_a_trace_of_what_there_was() {
    let place = Place::new();
    let mut train = place.train("short", "train.steps=4");
    run(train.args(["--profile", "5"])).success();
    assert_eq!(steps(&spans(&place.path("short").join("profile.json"))), ["step 4"]);
    let ended = run(place.train("shorter", "train.steps=3").args(["--profile", "1"])).success();
    assert!(ended.stderr.contains("no step was profiled"), "{}", ended.stderr);
    assert!(!place.path("shorter").join("profile.json").exists());
    // clap's own refusal has several lines.
    let none = run(place.train("none", "").args(["--profile", "0"]));
    assert!(none.code == Some(2) && none.stderr.contains("--profile"), "{}", none.stderr);
}

fn bench_by_part(backend: &str, dir: &Path) {
    let trace = dir.join(format!("{backend}.json"));
    let arguments = "bench --by-part --layers 2 --hidden 64 --vocab 300 --seq 48 --micro-batch 2 --accumulate 2 \
                     --steps 2 --warmup 1 --json --trace";
    let report = run(trainer_on(backend, arguments).arg(&trace)).success().json();
    let spans = spans(&trace);
    // A warm-up step, two timed ones, three profiled ones.
    assert_eq!(steps(&spans), ["step 4", "step 5", "step 6"]);
    assert_eq!(report["profiled_steps"], 3);
    let parts = report["parts"].as_array().unwrap();
    let sum = |name: &str| parts.iter().map(|part| part[name].as_f64().unwrap()).sum::<f64>();
    assert!(sum("ms") <= report["profiled_step_ms"].as_f64().unwrap() && sum("share") <= 1.0, "{report}");
    let part = |name: &str| parts.iter().find(|part| part["part"] == name).unwrap_or_else(|| panic!("no {name}"));
    // 2 layers x 2 micro-batches.
    let product = part("linear forward 64x448");
    assert_eq!(product["calls"], 4.0);
    let rate = 4.0 * f64::from(2 * 96 * 64 * 448) / (product["ms"].as_f64().unwrap() * 1e6);
    assert!((product["gflops"].as_f64().unwrap() / rate - 1.0).abs() < 1e-9, "{product}");
    assert_eq!(part("residual and norm backward")["calls"], 4.0);
    assert!(part("residual and norm backward")["gflops"].is_null());
    // Parts are what the trace has, and nothing else.
    let traced: u64 =
        spans.iter().filter(|span| span.name == "attention forward").map(|span| span.end - span.start).sum();
    let told = part("attention forward")["ms"].as_f64().unwrap();
    assert!((told - traced as f64 / 3e6).abs() < 1e-6, "{told} ms");
}

#[test]
fn bench_tells_parts_on_cpu_and_wgpu() {
    let dir = tempfile::tempdir().unwrap();
    bench_by_part("cpu", dir.path());
    if has_wgpu("the table by part") {
        bench_by_part("wgpu", dir.path());
    }
}

#[test]
fn bench_without_parts_has_none_and_refuses_a_trace_that_it_could_not_write() {
    let small = "bench --layers 1 --hidden 32 --heads 1 --vocab 64 --seq 16 --micro-batch 1 --steps 1 --warmup 0";
    let report = run(&mut trainer(&format!("{small} --json"))).success().json();
    assert!(report.get("parts").is_none() && report["loss"].is_number(), "{report}");
    let alone = run(&mut trainer(&format!("{small} --trace t.json")));
    assert!(alone.code == Some(2) && alone.stderr.contains("--by-part"), "{}", alone.stderr);
    let dir = tempfile::tempdir().unwrap();
    let mut nowhere = trainer(&format!("{small} --by-part --trace"));
    run(nowhere.arg(dir.path().join("none/t.json"))).error(2, &["is no folder", "t.json"]);
    let table = run(&mut trainer(&format!("{small} --by-part"))).success().stdout;
    assert!(table.contains("GFLOP/s") && table.contains("between them") && table.contains("tokens/s"), "{table}");
}
