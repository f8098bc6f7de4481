//! The kernels against the reference on a WGPU adapter; software Vulkan is enough. Says so where there is none.

#![cfg(feature = "wgpu")]

use burn_tensor::DType;
use trainer_backends::discovery;
use trainer_backends::selftest::products as selftest;
use trainer_backends::{Wgpu, wgpu_device};

#[test]
fn kernels_match_the_reference() {
    let found = discovery::find_wgpu();
    let Some(adapter) = found.devices.first() else {
        eprintln!("skipped: no WGPU adapter here (Debian's mesa-vulkan-drivers brings a software one)");
        return;
    };
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let device = wgpu_device(adapter);
    let cases = selftest::run::<Wgpu>(&device, &[DType::F32, DType::F16], seed);
    for case in &cases {
        println!("{:52} {:4} {:36} {:.2e} of {:.0e}", case.op, case.dtype, case.shape, case.error, case.tolerance);
    }
    let failed: Vec<_> = cases.iter().filter(|case| !case.passed()).collect();
    assert!(failed.is_empty(), "{} of {} failed with seed {seed}: {failed:#?}", failed.len(), cases.len());
}
