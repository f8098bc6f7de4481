//! RUN/tensorboard: what metrics.jsonl holds, as TensorBoard reads it.
//!
//! A small writer of our own: the crates for this are years old or bring a protobuf compiler, and scalars need six fields.

mod event;
mod writer;

pub use event::Event;
pub use writer::EventWriter;

/// The name of the directory in a run directory.
pub const DIR: &str = "tensorboard";
