//! Whether a GPU runs our kernels in CUDA C++ right, before anything is trained with them.
//!
//! ```text
//! process   one family of kernels in a process of its own, held against the reference there
//! verdicts  what came out, kept beside the kernels that were compiled for this build, compiler and capability
//! ```
//!
//! These kernels are written for the instructions of one architecture, and what goes wrong there is of another kind than a wrong
//! sum: a wait that never ends, a device that is lost with all that is on it. So none of it may happen in the process that
//! trains. What fails is refused: the next family in the list, or CubeCL's own kernels, take its place.

mod process;
mod verdicts;

use std::time::{Duration, Instant};

use trainer_backends::discovery::DeviceInfo;
use trainer_backends::kernel_folder;
use trainer_backends::tensor_cores::KernelFamily;

use crate::error::{Error, Result};
use crate::report::voice::say;
pub use verdicts::Verdict;
use verdicts::{Kept, Lock};

/// `off`, or the seconds that a family may take.
const VARIABLE: &str = "TRAINER_TRIAL";
/// To compile some thirty kernels on slow cores and to run each once.
const SECONDS: f64 = 180.0;

/// Refuses, for this whole process, the families that failed their trial on this device. Where none is on record there is one
/// now, unless no folder can keep its verdicts or TRAINER_TRIAL is `off`.
///
/// # Errors
/// A value of TRAINER_TRIAL that is none.
pub fn refuse_what_failed(device: &DeviceInfo) -> Result<()> {
    let (Some(limit), Some(folder)) = (limit()?, kernel_folder(device)) else { return Ok(()) };
    if families(device).is_empty() {
        return Ok(());
    }
    let kept = Kept::new(&folder, device);
    let verdicts = kept.read().or_else(|| {
        // Of several processes one tries, and the others read what it found.
        let _lock = Lock::wait(&folder);
        kept.read().or_else(|| {
            let verdicts = try_out(device, limit)?;
            kept.write(&verdicts);
            Some(verdicts)
        })
    });
    for refused in verdicts.iter().flatten().filter(|verdict| !verdict.passed) {
        refused.family.refuse();
        say(&format!("{refused}; not used here, until `trainer trial` finds otherwise"));
    }
    Ok(())
}

/// Tries out a device's families now, and keeps the verdicts where they can be kept: whether they are. `None` for a device
/// that could not be asked.
///
/// # Errors
/// A value of TRAINER_TRIAL that is none.
pub fn again(device: &DeviceInfo) -> Result<(Option<Vec<Verdict>>, bool)> {
    let limit = limit()?.unwrap_or(Duration::from_secs_f64(SECONDS));
    let folder = kernel_folder(device);
    let _lock = folder.as_deref().map(Lock::wait);
    let verdicts = try_out(device, limit);
    let written = folder.zip(verdicts.as_ref()).map(|(folder, verdicts)| Kept::new(&folder, device).write(verdicts));
    Ok((verdicts, written == Some(true)))
}

fn families(device: &DeviceInfo) -> Vec<&'static [KernelFamily]> {
    device.compute_capability.map(KernelFamily::of_capability).unwrap_or_default()
}

/// What a family may take; `None` where there shall be no trial.
fn limit() -> Result<Option<Duration>> {
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(Some(Duration::from_secs_f64(SECONDS))) };
    parse_limit(&value.to_string_lossy())
}

fn parse_limit(value: &str) -> Result<Option<Duration>> {
    if value == "off" {
        return Ok(None);
    }
    let seconds = value.parse().ok().filter(|seconds: &f64| *seconds > 0.0);
    let limit = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    limit.map(Some).ok_or_else(|| {
        Error::input(format!(
            "the environment variable {VARIABLE} is {value:?}: expected off, or the seconds that the trial of one family of \
             kernels may take"
        ))
    })
}

/// Each list's families in turn until one passes. `None` for a device that fails at something else too.
fn try_out(device: &DeviceInfo, limit: Duration) -> Option<Vec<Verdict>> {
    say("first use of this GPU's kernels by this build: each kind is tried out against the reference ...");
    let mut verdicts = Vec::new();
    for family in
        families(device).into_iter().flat_map(|list| until_one_passes(list, |family| judge(device, family, limit)))
    {
        verdicts.push(family);
    }
    let all_passed = verdicts.iter().all(|verdict| verdict.passed);
    if !all_passed && let Err(why) = process::control(device, limit) {
        say(&format!(
            "the GPU fails at what has nothing to do with those kernels too ({why}): no verdict; see that it is free and \
             works, as by `trainer --backend cuda selftest`"
        ));
        return None;
    }
    Some(verdicts)
}

fn until_one_passes(list: &[KernelFamily], mut judge: impl FnMut(KernelFamily) -> Verdict) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for family in list {
        verdicts.push(judge(*family));
        if verdicts.last().is_some_and(|verdict| verdict.passed) {
            break;
        }
    }
    verdicts
}

fn judge(device: &DeviceInfo, family: KernelFamily, limit: Duration) -> Verdict {
    let begun = Instant::now();
    let outcome = process::family(device, family, limit);
    let seconds = begun.elapsed().as_secs_f64();
    let verdict = match outcome {
        Ok(comparisons) => Verdict { family, passed: true, comparisons, why: None, seconds },
        Err(why) => Verdict { family, passed: false, comparisons: 0, why: Some(why), seconds },
    };
    say(&format!("  {verdict}, {seconds:.1} s"));
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(family: KernelFamily, passed: bool) -> Verdict {
        Verdict { family, passed, comparisons: 3, why: (!passed).then(|| "it was wrong".into()), seconds: 1.0 }
    }

    #[test]
    fn who_passes_ends_the_list() {
        let list = [KernelFamily::WgmmaProducts, KernelFamily::MmaProducts];
        let tried = |passes: KernelFamily| {
            let verdicts = until_one_passes(&list, |family| verdict(family, family == passes));
            verdicts.into_iter().map(|verdict| (verdict.family, verdict.passed)).collect::<Vec<_>>()
        };
        assert_eq!(tried(list[0]), [(list[0], true)]);
        assert_eq!(tried(list[1]), [(list[0], false), (list[1], true)]);
        assert_eq!(tried(KernelFamily::MmaAttention), [(list[0], false), (list[1], false)]);
    }

    #[test]
    fn limits() {
        assert_eq!(parse_limit("off").unwrap(), None);
        assert_eq!(parse_limit("2.5").unwrap(), Some(Duration::from_millis(2500)));
        for value in ["", "on", "0", "-1", "nan", "inf", "1e300"] {
            let error = parse_limit(value).unwrap_err();
            assert!(error.to_string().contains(VARIABLE), "{value}: {error}");
        }
    }
}
