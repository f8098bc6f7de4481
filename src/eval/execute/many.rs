//! Running many programs, several at a time.

use super::limits::{Limits, Verdict};
use super::python::Python;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

/// The verdicts of `programs`, in their order, with up to `jobs` of them running at a time.
pub fn run_many(python: &Python, programs: &[String], limits: &Limits, jobs: usize) -> Result<Vec<Verdict>> {
    let mut verdicts = Vec::with_capacity(programs.len());
    run_each(
        python,
        programs.len(),
        |index| programs[index].clone(),
        limits,
        jobs,
        |_, verdict| {
            verdicts.push(verdict);
            Ok(true)
        },
    )?;
    Ok(verdicts)
}

/// Runs `program(0)` to `program(count - 1)`, up to `jobs` of them at a time, and hands each verdict to `deliver` in their
/// order, as soon as it and all before it are there. `deliver` returns whether to go on.
///
/// # Errors
/// The first program, in their order, that could not be run, or an error of `deliver`; what runs then is waited for.
pub fn run_each(
    python: &Python,
    count: usize,
    program: impl Fn(usize) -> String + Sync,
    limits: &Limits,
    jobs: usize,
    mut deliver: impl FnMut(usize, Verdict) -> Result<bool>,
) -> Result<()> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (program, next, stop) = (&program, &next, &stop);
    std::thread::scope(|scope| {
        let (sender, verdicts) = mpsc::channel();
        for _ in 0..jobs.clamp(1, count.max(1)) {
            let sender = sender.clone();
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || sender.send((index, python.run(&program(index), limits))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut delivered = 0;
        let outcome = 'deliver: {
            for (index, verdict) in verdicts {
                early.insert(index, verdict);
                while let Some(verdict) = early.remove(&delivered) {
                    match verdict.and_then(|verdict| deliver(delivered, verdict)) {
                        Ok(true) => delivered += 1,
                        Ok(false) => break 'deliver Ok(()),
                        Err(error) => break 'deliver Err(error),
                    }
                }
            }
            if delivered == count { Ok(()) } else { Err(Error::failed("a thread that ran programs broke down")) }
        };
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}
