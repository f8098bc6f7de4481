//! `trainer sweep`, the choices that it prints, and the least times that it and `estimate` go by.

use serde_json::Value;

use crate::support::{has_wgpu, run, trainer, trainer_on};

/// Head dimension 32, two sequences of 40 tokens: quick, and no multiple of a tile.
const SMALL: &str = "--preset demo --seq 40 --micro-batch 2 --repeats 1 --seed 5 --json";

fn rows<'a>(report: &'a Value, key: &str) -> &'a [Value] {
    report[key].as_array().unwrap()
}

/// Every variant is right and timed, or does not suit the shape; of each operation the fastest is marked.
#[track_caller]
fn check(report: &Value) -> usize {
    let mut timed = 0;
    for operation in rows(report, "operations") {
        let variants = rows(operation, "variants");
        assert_eq!(operation["check"], "cpu", "{operation}");
        for variant in variants {
            match variant["refused"].as_str() {
                None => {
                    timed += 1;
                    assert!(variant["ms"].as_f64().unwrap() > 0.0, "{variant}");
                    // As the self-test's in fp32, plus what longer sums round.
                    assert!(variant["error"].as_f64().unwrap() <= 1e-5, "{operation}");
                    assert!(variant["share"].as_f64().unwrap() > 0.0, "{operation}");
                }
                Some(why) => assert_eq!(why, "not for this shape or dtype", "{operation}"),
            }
        }
        let best: Vec<_> = variants.iter().filter(|variant| variant["best"] == true).collect();
        assert_eq!(best.len(), 1, "{operation}");
        let least = variants.iter().filter_map(|variant| variant["ms"].as_f64()).fold(f64::INFINITY, f64::min);
        assert_eq!(best[0]["ms"].as_f64(), Some(least), "{operation}");
    }
    timed
}

#[test]
fn on_the_cpu_there_is_nothing_to_choose() {
    let report = run(&mut trainer(&format!("sweep {SMALL}"))).success().json();
    // Twelve products, thirteen other operations of a step, and a block of generation.
    assert_eq!(rows(&report, "operations").len(), 26);
    assert_eq!(check(&report), 26);
    assert!(rows(&report, "tune").is_empty(), "{report}");
    assert!(report["ceiling"]["measured"] == true && report["ceiling"]["memory_gb_per_s"].as_f64().unwrap() > 0.0);
    // Given ceilings are taken as they are.
    let given = "--only norm --matmul-tflops 2 --memory-gbs 50";
    let report = run(&mut trainer(&format!("sweep {SMALL} {given}"))).success().json();
    assert_eq!(report["ceiling"]["matmul_tflops"], 2.0);
    let operations = rows(&report, "operations");
    let forward = operations.iter().find(|operation| operation["operation"] == "residual and norm forward").unwrap();
    // 80 x 128 numbers of three matrices read and of two written, all in fp32, at 50 GB/s.
    let floor_ms = forward["floor_ms"].as_f64().unwrap();
    assert!((floor_ms / (80.0 * 128.0 * 20.0 / 50e9 * 1e3) - 1.0).abs() < 1e-9, "{forward}");
}

#[test]
fn every_choice_of_wgpu_gives_the_right_results() {
    if !has_wgpu("choices of kernels") {
        return;
    }
    let report = run(&mut trainer_on("wgpu", &format!("sweep {SMALL}"))).success().json();
    assert_eq!(rows(&report, "operations").len(), 26);
    let timed = check(&report);
    // Of each kernel of ours several sizes, of each product several kernels.
    assert!(timed >= 90, "{timed} variants");
    let names: Vec<&str> = rows(&report, "operations")
        .iter()
        .flat_map(|operation| rows(operation, "variants"))
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    for name in [
        "norm.rows=16",
        "attention.forward-units=4x32x8",
        "attention.backward-units=8x32x8",
        "attention.decode=8x4",
        "few-rows.branches=8x1",
        "product.forward.128x896=registers",
        "product.weight-grad.512x128=simple-unit",
        "loss.logits-mib=8",
    ] {
        assert!(names.contains(&name), "no {name} in {names:?}");
    }

    // What a sweep prints is what other commands take, and changes nothing but the order of sums.
    let bench =
        "bench --hidden 64 --layers 1 --heads 2 --vocab 96 --seq 32 --micro-batch 2 --steps 2 --warmup 0 --json";
    let loss = |tune: &str| {
        let report = run(&mut trainer_on("wgpu", &format!("{tune} {bench}"))).success().json();
        report["loss"].as_f64().unwrap()
    };
    let tuned =
        loss("--tune norm.units=1x16,attention.forward-units=2x16x8,product.forward.64x64=simple-unit,sums.rows=16");
    let rules = loss("");
    assert!((tuned - rules).abs() <= 1e-5 * rules, "{tuned} {rules}");
}

#[test]
fn choices_that_do_not_exist_are_refused() {
    let bench = "bench --hidden 64 --layers 1 --heads 2 --vocab 96 --seq 32 --micro-batch 1 --steps 1";
    run(&mut trainer(&format!("--tune norm.units=3 {bench}")))
        .error(2, &["--tune", "no kernel choices", "leave --tune out"]);
    run(&mut trainer(&format!("--tune norm {bench}"))).error(2, &["NAME=VALUE", "norm"]);
    if has_wgpu("refused choices") {
        let refused = |tune: &str, words: &[&str]| {
            run(&mut trainer_on("wgpu", &format!("--tune {tune} {bench}"))).error(2, words);
        };
        refused("norm.units=3x1", &["norm.units cannot be 3x1", "1x8"]);
        refused("norm.unit=1x8", &["no choice norm.unit", "norm.units"]);
        refused("product.forward.64x=registers", &["no choice product.forward.64x"]);
    }
}

/// The time model counts what the profile of a real step counts.
#[test]
fn the_least_time_has_a_steps_own_flops_bytes_and_calls() {
    for (recompute, precision, dropout) in
        [("none", "fp32", "0.1"), ("activation", "fp32", "0"), ("block", "fp16", "0.1")]
    {
        let sizes = format!("--precision {precision} --micro-batch 2 --accumulate 2");
        let bench = format!(
            "bench --hidden 64 --layers 3 --heads 2 --vocab 96 --seq 32 {sizes} --dropout {dropout} --recompute {recompute} \
             --steps 1 --warmup 0 --by-part --matmul-tflops 0.05 --memory-gbs 5 --json"
        );
        let report = run(&mut trainer(&bench)).success().json();
        let floor = &report["floor"];
        let parts = rows(&report, "parts");
        let mut found = 0;
        for part in rows(floor, "parts") {
            let name = part["part"].as_str().unwrap();
            let Some(seen) = parts.iter().find(|seen| seen["part"] == name) else {
                // Without dropout fp32's gradient is handed on as it is, and nothing is timed.
                assert_eq!(part["floor_ms"], 0.0, "{name} is not in {parts:?}");
                continue;
            };
            found += 1;
            let number = |value: &Value| value.as_f64().unwrap();
            let close =
                |what: &str, a: f64, b: f64| assert!((a - b).abs() <= 1e-6 * b, "{recompute}, {name}: {what} {a} {b}");
            let of_rate = |rate: &str| seen[rate].as_f64().unwrap_or(0.0) * number(&seen["ms"]) * 1e6;
            close("FLOPs", of_rate("gflops"), number(&part["flops"]));
            if !name.starts_with("head") {
                close("bytes", of_rate("gb_per_s"), number(&part["bytes"]));
                // Buffers of all groups are cleared under one name.
                close("calls", number(&seen["calls"]), number(&part["calls"]));
            }
        }
        assert!(found >= 20, "{found} parts");
        let sum: f64 = rows(floor, "parts").iter().map(|part| part["floor_ms"].as_f64().unwrap()).sum();
        assert!((sum - floor["step_ms"].as_f64().unwrap()).abs() < 1e-9 * sum);
    }
}

#[test]
fn estimate_tells_the_least_time_of_a_step() {
    let phi_1 = "estimate --preset phi-1 --micro-batch 16 --accumulate 4 --by-part";
    let report = run(&mut trainer(&format!("{phi_1} --gpu h200 --json"))).success().json();
    let floor = &report["floor"];
    assert_eq!(floor["ceilings"]["matmul"], 989e12);
    assert_eq!(floor["ceilings"]["memory"], 4800e9);
    // Products alone, at that rate, take 108.9 thousand tokens a second.
    let rate = floor["tokens_per_s"].as_f64().unwrap();
    assert!((80_000.0..108_900.0).contains(&rate), "{rate}");
    let text = run(&mut trainer(&format!("{phi_1} --matmul-tflops 788 --memory-gbs 4300"))).success().stdout;
    assert!(text.contains("linear forward 2048x14336") && text.contains("bound by"), "{text}");
    run(&mut trainer(phi_1)).error(2, &["--by-part", "--gpu"]);
}
