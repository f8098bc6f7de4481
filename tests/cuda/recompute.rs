//! What the backward pass computes again is what forward computed, to the bit, through CUDA's kernels too.

use super::{prepared, program};

#[test]
fn recomputation_changes_no_bit() {
    let Some((dir, wheels)) = prepared() else { return };
    // Two steps decide the third's loss.
    let step = "bench --hidden 256 --layers 2 --heads 4 --vocab 512 --seq 128 --micro-batch 1 --precision fp16 --dropout 0.1 \
                --steps 3 --warmup 0 --json --recompute";
    let loss = |recompute: &str| {
        let output = program(dir.path(), &wheels, "90")
            .env("CUDA_EMULATOR_EXECUTE", "1")
            .env("TRAINER_KERNEL_CACHE", dir.path().join("kernels"))
            .args(step.split_whitespace())
            .arg(recompute)
            .output()
            .unwrap();
        assert!(output.status.success(), "{recompute}: {}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        report["loss"].as_f64().unwrap().to_bits()
    };
    let kept = loss("none");
    assert_eq!(["activation", "block"].map(loss), [kept, kept]);
}
