//! What several tests need.

use std::path::PathBuf;

/// A file or folder of the test data that the project ships.
pub fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Runs `$check::<Backend>(&device)` on the CPU and, where there is an adapter, on WGPU; says which were skipped.
#[macro_export]
macro_rules! on_cpu_and_wgpu {
    ($check:ident) => {{
        $check::<trainer_backends::Cpu>(&Default::default());
        #[cfg(feature = "wgpu")]
        match trainer_backends::discovery::choose(trainer_backends::discovery::Request::Wgpu, None) {
            Ok(choice) => $check::<trainer_backends::Wgpu>(&trainer_backends::wgpu_device(&choice.device)),
            Err(error) => eprintln!("SKIPPED on wgpu: {error}"),
        }
    }};
}
