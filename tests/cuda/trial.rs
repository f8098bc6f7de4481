//! A GPU's kernels are tried out before they are used, on an emulated device that does not run some of them as written.

use std::fs;
use std::path::Path;
use std::process::Output;

use super::{prepared, program};

const STEP: &str = "bench --layers 1 --hidden 128 --heads 2 --vocab 96 --seq 64 --micro-batch 1 --precision fp16 --dropout 0.1 \
                    --steps 1 --warmup 0 --json";

/// A start on the emulated Hopper whose kernels are kept in `dir`.
fn start(dir: &Path, wheels: &Path, arguments: &str, environment: &[(&str, &str)]) -> Output {
    program(dir, wheels, "90")
        .env("CUDA_EMULATOR_EXECUTE", "1")
        .env("CUDA_EMULATOR_MULTIPROCESSORS", "4")
        .env("TRAINER_KERNEL_CACHE", dir.join("kernels"))
        .env("TRAINER_TRIAL", "600")
        .envs(environment.iter().copied())
        .args(arguments.split_whitespace())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// How many of the kernels that were launched have `part` in their text.
fn launched(folder: &Path, part: &str) -> usize {
    let launches = fs::read_to_string(folder.join("launches")).unwrap();
    let has = |line: &&str| fs::read_to_string(folder.join(format!("{}.ptx", &line[..4]))).unwrap().contains(part);
    launches.lines().filter(has).count()
}

#[test]
fn kernels_that_fail_their_trial_are_not_used() {
    let Some((dir, wheels)) = prepared() else { return };
    let spoiled = ("CUDA_EMULATOR_SPOIL", "idle:hopper_gemm,refused:attention_");
    let loss = |output: &Output| {
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)));
        report["loss"].as_f64().unwrap()
    };
    let first = start(dir.path(), &wheels, STEP, &[spoiled]);
    let text = said(&first);
    let verdicts = [
        "products by wgmma failed their trial: ",
        "products by mma.sync: ",
        "attention by wgmma failed their trial: ",
        "attention by mma.sync failed their trial: ",
    ];
    assert!(verdicts.iter().all(|verdict| text.contains(verdict)), "{text}");
    assert!(text.contains("outside their tolerance; linear_"), "{text}");

    // The next start knows, and launches none of them.
    let folder = dir.path().join("ptx");
    fs::create_dir(&folder).unwrap();
    let second = start(dir.path(), &wheels, STEP, &[spoiled, ("CUDA_EMULATOR_DIR", folder.to_str().unwrap())]);
    let text = said(&second);
    assert!(!text.contains("first use") && text.contains("products by wgmma failed their trial"), "{text}");
    assert!(text.contains("not used here"), "{text}");
    assert_eq!(["hopper_gemm", ".entry attention_"].map(|part| launched(&folder, part)), [0, 0]);
    assert!(launched(&folder, ".entry ampere_gemm(") > 0);

    // All kernels as written, none tried.
    let whole = start(dir.path(), &wheels, STEP, &[("TRAINER_TRIAL", "off")]);
    assert!(!said(&whole).contains("trial"), "{}", said(&whole));
    // fp16 products, summed in another order.
    let [first, second, whole] = [first, second, whole].map(|output| loss(&output));
    assert_eq!(first, second);
    assert!((first - whole).abs() < 1e-3 * whole, "{first} and {whole}");
}

/// What fails at everything says nothing of single kernels: the next start asks again.
#[test]
fn a_gpu_that_fails_at_everything_gets_no_verdict() {
    let Some((dir, wheels)) = prepared() else { return };
    let output = start(dir.path(), &wheels, "trial --json", &[("CUDA_EMULATOR_SPOIL", "refused:")]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no verdict") && text.contains("could not be asked"), "{text}");
    let files =
        fs::read_dir(dir.path().join("kernels")).unwrap().flatten().flat_map(|of| fs::read_dir(of.path()).unwrap());
    let kept: Vec<_> =
        files.flatten().filter(|file| file.file_name().to_string_lossy().starts_with("trial-")).collect();
    assert!(kept.is_empty(), "{kept:?}");
    // What the user wrote wrong is no fault of the kernels.
    for (variable, value, expected) in [
        ("TRAINER_TRIAL", "soon", "TRAINER_TRIAL is \"soon\": expected off"),
        ("TRAINER_WGMMA", "largest", "TRAINER_WGMMA is \"largest\": expected"),
    ] {
        for arguments in [STEP, "trial"] {
            let wrong = start(dir.path(), &wheels, arguments, &[(variable, value)]);
            let text = said(&wrong);
            assert_eq!(wrong.status.code(), Some(2), "{text}");
            assert!(text.contains(expected) && !text.contains("failed their trial"), "{text}");
        }
    }
}
