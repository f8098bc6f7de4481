//! What a user sees of a run.

pub mod metrics;
pub mod peak;
pub mod progress;
pub mod table;
pub mod voice;
