//! Training on several devices together: what ranks say to each other, how they are started, and who keeps what.
//!
//! ```text
//! launch      which rank this process is, from the launcher's environment
//! session     starting and ending together; a rank that fails ends all
//! collective  sums and exchanges over flat buffers, with what they cost; hosted is the one through host memory
//! mpi         hosted's transport (cargo feature `mpi`)
//! agreement   the same program, configuration and data on every rank, or one error
//! replica     the sequences and the parts of the state that are this rank's (ZeRO)
//! reduce      gradients to their owners, updated weights back
//! signs       what ranks let each other know with every step
//! scaling     how long a step would take on given GPUs
//! watchdog    a rank that hangs ends all
//! ```

pub mod agreement;
pub mod collective;
pub mod hosted;
pub mod launch;
#[cfg(feature = "mpi")]
mod mpi;
pub mod reduce;
pub mod replica;
pub mod scaling;
pub mod session;
pub mod signs;
pub mod watchdog;

pub use collective::{Alone, Collective};
pub use replica::Replica;
