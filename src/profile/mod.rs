//! Where a training step's time goes: a trace of a few steps, and a table by part.
//!
//! ```text
//! recorder  spans of the thread that records; nothing on other threads, and nothing while nobody records
//! ops       the decoder's operations, each in a span with its shape, FLOPs and bytes
//! parts     the table
//! trace     Chrome's trace-event format, which Perfetto opens
//! steps     which steps of a run are profiled
//! ```
//!
//! Work on CUDA and WGPU is queued, so that a clock around a call would tell how long it takes to ask for it. While a
//! thread records, the device is therefore waited for before and after each operation: every time is that of the
//! operation alone, its launch and the wait included, and nothing overlaps. Results are the same bits.

pub mod ops;
mod parts;
mod recorder;
mod steps;
#[cfg(test)]
mod tests;
mod trace;

pub use parts::{ByPart, PARTS, Part};
pub use recorder::{Event, Kind, Span, Work, exchange, group, host, op};
pub use steps::{ProfiledSteps, WARM_UP};
pub use trace::Profile;

/// The name of the trace in a run directory.
pub const FILE_NAME: &str = "profile.json";

/// How the times were taken, for whoever reads them.
pub const MODE: &str = "operations one at a time: the device is waited for before and after each";
