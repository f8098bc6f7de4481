//! A run's state to and from a checkpoint directory.
//!
//! ```text
//! loop_state  what a run needs to go on besides weights and moments: state.json
//! snapshot    the state of one moment, in host memory
//! write       a snapshot's files
//! saver       writes them while the next steps are made
//! load        a checkpoint's state, on any number of ranks
//! ```

mod load;
mod loop_state;
mod saver;
mod snapshot;
mod write;

use std::ops::Range;

pub use load::load;
pub use loop_state::{Best, LoopState, STATE};
pub use saver::{Saved, Saver};
pub use snapshot::{HostMemory, Snapshot, weights_checksum};
pub use write::{Description, Share};

/// The elements that two ranges have in common.
fn common(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}
