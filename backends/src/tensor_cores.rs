//! TRAINER_WGMMA and TRAINER_MMA: whether products run on our kernels for CUDA's tensor cores, and in which tiles.

use std::str::FromStr;
use std::sync::OnceLock;

use trainer_shaders::cuda_gemm::blueprint::{Ampere, Hopper};
use trainer_shaders::cuda_gemm::{Setting, Settings};

pub use trainer_shaders::KernelFamily;

use crate::error::{Error, Result};

/// Compute capability 9.0: `off`, `auto` (also where it is not set), or a blueprint such as 128x256x4x8x2.
const WGMMA: &str = "TRAINER_WGMMA";
/// From 8.0 on: `off`, `auto` (also where it is not set), or a blueprint such as 128x256x3x8.
const MMA: &str = "TRAINER_MMA";

fn read<B: FromStr<Err = String>>(name: &'static str) -> Result<Setting<B>> {
    let Some(value) = std::env::var_os(name) else { return Ok(Setting::Chosen) };
    let value = value.to_string_lossy();
    value.parse().map_err(|reason| Error::Variable { name, value: value.into_owned(), reason })
}

/// # Errors
/// A value that is none.
pub fn check() -> Result<()> {
    read::<Hopper>(WGMMA)?;
    read::<Ampere>(MMA).map(drop)
}

/// The settings as they were at the first call; the default for a value that `check` refuses.
pub(crate) fn settings() -> Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    *SETTINGS
        .get_or_init(|| Settings { hopper: read(WGMMA).unwrap_or_default(), ampere: read(MMA).unwrap_or_default() })
}
