//! What a user sees of a run.

pub mod history;
pub mod live;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod page;
pub mod peak;
pub mod plot;
pub mod progress;
pub mod samples;
pub mod sessions;
pub mod spikes;
pub mod table;
pub mod tensorboard;
pub mod voice;
