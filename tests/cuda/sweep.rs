//! `trainer sweep` on the emulated driver: every choice of the kernels, executed and held against the CPU.

use super::{prepared, program};

/// Every choice of `trainer sweep` that the options leave, executed and held against the CPU: a wrong or broken one would
/// cost a lent GPU's time. 96 tokens are an odd number of stages of every kernel whose stages are 32 long.
fn sweep(capability: &str, options: &str) -> Vec<String> {
    sweep_of("--preset demo --seq 96", capability, options)
}

fn sweep_of(sizes: &str, capability: &str, options: &str) -> Vec<String> {
    let Some((dir, wheels)) = prepared() else { return Vec::new() };
    let fixed = "--micro-batch 1 --precision fp16 --dropout 0.1 --repeats 1 --seed 7 --json";
    let output = program(dir.path(), &wheels, capability)
        .env("CUDA_EMULATOR_EXECUTE", "1")
        .args(format!("sweep {sizes} {fixed} --matmul-tflops 1 --memory-gbs 1 {options}").split(' '))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "sm_{capability}, {options}: {}\n{stderr}", output.status);
    assert!(!stderr.contains("panicked"), "sm_{capability}, {options}: {stderr}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let operations = report["operations"].as_array().unwrap().iter();
    let variants = operations.flat_map(|operation| operation["variants"].as_array().unwrap());
    let timed = variants.filter(|variant| match variant["refused"].as_str() {
        None => variant["error"].as_f64().unwrap() <= 1e-3,
        Some(why) => {
            assert_eq!(why, "not for this shape or dtype", "sm_{capability}: {variant}");
            false
        }
    });
    timed.map(|variant| variant["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_choice_on_sm_80_gives_the_right_results() {
    let products: Vec<String> = ["product.forward.512", "product.input-grad.128x128", "product.weight-grad"]
        .into_iter()
        .flat_map(|choice| sweep("80", &format!("--only products --choice {choice}")))
        .collect();
    let others = ["attention", "norm", "activations", "embedding", "optimizer", "generation"]
        .into_iter()
        .flat_map(|group| sweep("80", &format!("--only {group}")));
    let timed: Vec<String> = others.chain(products).collect();
    if timed.is_empty() {
        return;
    }
    // Where the number of stages is odd, the asynchronous routines stay away; 512 terms suit them.
    for (name, there) in [
        ("product.weight-grad.128x896=double-cyclic-mma", true),
        ("product.weight-grad.128x896=double-async-cyclic-mma", false),
        ("product.forward.512x128=double-async-cyclic-mma", true),
        ("product.forward.512x128=specialized-cyclic-mma", true),
        ("product.forward.512x128=simple-tma-mma", false),
        ("product.input-grad.128x128=mma-128x128x4x8", true),
        ("attention.backward=4x32", true),
    ] {
        assert_eq!(timed.iter().any(|timed| timed == name), there, "{name}: {timed:?}");
    }
}

/// Heads of 64 and whole blocks of 64 tokens, three of them: more than the fewest stages.
#[test]
fn every_attention_gives_the_right_results() {
    for (capability, names) in [
        ("80", ["forward=1x3x16", "forward=3x3x16", "forward=4x1", "backward=2x4x16", "backward=4x64"]),
        ("90", ["forward=3x4x64", "forward=2x3x64", "forward=1x3x16", "backward=2x2x64", "backward=2x3x16"]),
    ] {
        let timed = sweep_of("--preset laptop --seq 192", capability, "--only attention");
        if timed.is_empty() {
            return;
        }
        for name in names {
            assert!(timed.iter().any(|timed| *timed == format!("attention.{name}")), "{name}: {timed:?}");
        }
    }
}

#[test]
fn every_product_on_sm_90_gives_the_right_results() {
    let timed: Vec<String> = ["product.forward.512", "product.weight-grad.128x896"]
        .into_iter()
        .flat_map(|choice| sweep("90", &format!("--only products --choice {choice}")))
        .collect();
    if timed.is_empty() {
        return;
    }
    for name in [
        "product.forward.512x128=double-tma-mma",
        "product.weight-grad.128x896=simple-tma-mma",
        "product.weight-grad.128x896=wgmma-128x256x4x8x2",
    ] {
        assert!(timed.iter().any(|timed| timed == name), "{name}: {timed:?}");
    }
}
