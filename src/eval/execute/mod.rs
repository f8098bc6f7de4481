//! Runs one Python program in a process of its own, under limits and whatever confinement the kernel offers.
//!
//! - Everywhere: a fresh interpreter (`-s -S`: no user site; the standard library and the interpreter's own packages stay importable),
//!   an empty folder as working directory that is deleted afterwards, a scrubbed environment, no standard input, bounded output, and
//!   the end at a time limit. A program passes by reaching its end alone: what says so is a token that is new for each run.
//! - On unix also: a process group of its own, which is killed as a whole when the program ends or time is up, and resource limits
//!   for CPU time, address space, file size and open files.
//! - On Linux also, where the kernel allows it: namespaces, Landlock, seccomp, no capabilities, no new privileges. [`Confinement`] tells
//!   which are in force; each is tried once, and a program runs without those that are refused.
//! - On Windows the time and output limits are all there is, and only the interpreter itself is killed, not what it started.
//!
//! Tests and tested code share a process, as in the official harness: a program written against this very runner could find the
//! token. See docs/humaneval.md.

mod confinement;
mod files;
mod limits;
mod many;
mod python;
mod run;

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(not(unix), path = "other.rs")]
mod confine;
#[cfg(target_os = "linux")]
mod linux;

pub use confinement::{Confinement, Layers};
pub use limits::{Failure, Limits, Verdict};
pub use many::{run_each, run_many};
pub use python::Python;

// Two lines each: clippy knows `cfg(test)` alone for a test.
#[cfg(test)]
#[cfg(target_os = "linux")]
mod hostile_tests;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tampering_tests;
#[cfg(test)]
mod tests;
