//! TRAINER_WGMMA: whether products run on the tensor cores of compute capability 9.0 as such, and in which tiles.

use std::sync::OnceLock;

use trainer_shaders::hopper_gemm::Setting;

use crate::error::{Error, Result};

/// `off`, `auto` (also where it is not set), or a blueprint such as 128x256x4x8x2.
const VARIABLE: &str = "TRAINER_WGMMA";

fn read() -> Result<Setting> {
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(Setting::default()) };
    let value = value.to_string_lossy();
    value.parse().map_err(|reason| Error::Variable { name: VARIABLE, value: value.into_owned(), reason })
}

/// # Errors
/// A value that is none.
pub fn check() -> Result<()> {
    read().map(drop)
}

/// The setting as it was at the first call; the default for a value that `check` refuses.
pub(crate) fn setting() -> Setting {
    static SETTING: OnceLock<Setting> = OnceLock::new();
    *SETTING.get_or_init(|| read().unwrap_or_default())
}
