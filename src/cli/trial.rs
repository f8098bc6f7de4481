//! `trainer trial`: which of a GPU's kernels in CUDA C++ are used, found out anew.

use super::args::{Global, TrialArgs};
use crate::error::{Error, Result};

/// # Errors
/// A device without such kernels; `Error::Failed` where a family did not pass, the report being printed all the same.
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub fn run(args: &TrialArgs, global: &Global) -> Result<()> {
    use serde::Serialize;
    use trainer_backends::discovery::Backend;

    use super::backend::check_tensor_cores;
    use super::{choose_device, print_json};
    use crate::trial::{self, Verdict};

    #[derive(Serialize)]
    struct Report {
        device: String,
        /// Whether later commands go by these verdicts.
        kept: bool,
        families: Vec<Verdict>,
    }

    let choice = choose_device(global)?;
    if choice.backend != Backend::Cuda {
        return Err(Error::input(format!(
            "trial is of CUDA's kernels, and this is {}: `trainer --backend {} selftest` holds its kernels against the reference",
            choice.device.name, choice.backend
        )));
    }
    check_tensor_cores()?;
    let (families, kept) = trial::again(&choice.device)?;
    let families = families.ok_or_else(|| Error::failed("the GPU could not be asked; the message above says why"))?;
    let failed = families.iter().filter(|verdict| !verdict.passed).count();
    let count = families.len();
    if args.json {
        print_json(&Report { device: choice.device.name, kept, families })?;
    }
    if failed == 0 {
        return Ok(());
    }
    Err(Error::failed(format!("{failed} of {count} kinds of kernels failed their trial: others take their place")))
}

/// # Errors
/// Always: this build has no such kernels.
#[cfg(not(all(feature = "cuda", not(target_os = "macos"))))]
pub fn run(_: &TrialArgs, _: &Global) -> Result<()> {
    Err(Error::input("trial is of CUDA's kernels, which this build has not: build it with --features cuda"))
}
