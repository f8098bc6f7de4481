//! What `trainer estimate` says of a training step's memory, beside what the allocator counts.

use trainer::config::Recompute;
use trainer::model::architecture::Architecture;
use trainer::model::memory::{kept_per_block_and_token, saved_per_block_and_token};

use crate::support::{has_wgpu, run, trainer_on};

const GIB: f64 = (1u64 << 30) as f64;

/// Rounding up to the allocator's alignment is all that may differ, and it is a fraction of that.
const WITHIN: f64 = 0.1;

/// Bytes that a forward pass keeps in `trainer bench`, counted and estimated, before a block is restored.
fn kept(precision: &str, recompute: Recompute) -> (f64, f64) {
    let architecture = Architecture::phi(5, 64, 2, 300, 96);
    let tokens = 3 * 96;
    let arguments = format!(
        "bench --layers 5 --hidden 64 --heads 2 --vocab 300 --seq 96 --micro-batch 3 --precision {precision} --recompute {} \
         --dropout 0 --steps 1 --warmup 0 --json",
        recompute.name()
    );
    let report = run(&mut trainer_on("wgpu", &arguments)).success().json();
    let gib = |name: &str| report[name].as_f64().unwrap() * GIB;
    let s = if precision == "fp32" { 4 } else { 2 };
    // The estimate counts one block restored, which backward will do.
    let restored = saved_per_block_and_token(&architecture, s) - kept_per_block_and_token(&architecture, s, recompute);
    (gib("activation_gib"), gib("estimated_activation_gib") - (tokens * restored) as f64)
}

#[test]
fn activations_are_what_the_estimate_says() {
    if !has_wgpu("memory of a training step") {
        return;
    }
    let cases = [
        ("fp32", Recompute::None),
        ("fp32", Recompute::Activation),
        ("fp32", Recompute::Block),
        ("fp16", Recompute::None),
    ];
    for (precision, recompute) in cases {
        let (bytes, estimate) = kept(precision, recompute);
        let off = bytes / estimate - 1.0;
        eprintln!("{precision}, recompute {}: {bytes} bytes, estimate {estimate} ({off:+.4})", recompute.name());
        assert!(off.abs() < WITHIN, "{precision}, {}: {bytes} bytes, estimate {estimate}", recompute.name());
    }
}
