//! Training on several devices together: what ranks say to each other, how they are started, and who keeps what.
//!
//! ```text
//! launch      which rank this process is, from the launcher's environment
//! spawn       starting the ranks of one machine
//! session     starting and ending together; a rank that fails ends all
//! collective  sums and exchanges over flat buffers, with what they cost; hosted is the one through host memory
//! tcp, mpi    hosted's transports: our own, and MPI's (cargo feature `mpi`)
//! nccl        the one that stays in the memory of NVIDIA's GPUs
//! courier     exchanges while the device works
//! agreement   the same program, configuration and data on every rank, or one error
//! replica     the sequences and the parts of the state that are this rank's (ZeRO)
//! reduce      gradients to their owners, updated weights back
//! signs       what ranks let each other know with every step
//! scaling     how long a step would take on given GPUs
//! watchdog    a rank that hangs ends all
//! ```

pub mod agreement;
pub mod collective;
pub mod courier;
pub mod hosted;
pub mod launch;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub mod nccl;
pub mod reduce;
pub mod replica;
pub mod scaling;
pub mod session;
pub mod signs;
pub mod spawn;
pub mod tcp;
pub mod watchdog;

pub use collective::{Alone, Collective};
pub use replica::Replica;
