//! What an instruction did wrong, and where.

use std::fmt;

/// A violation: the launch stops at the first one. It travels as a panic payload from the instruction that raised it to
/// [`crate::launch::launch`], so that correct instructions pay nothing for it.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kernel: String,
    /// Line of the PTX, from 1.
    pub line: u32,
    pub block: [u32; 3],
    pub thread: Option<[u32; 3]>,
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, line, block, thread, message } = self;
        write!(f, "{message}\n  kernel {kernel}, PTX line {line}, block {block:?}")?;
        if let Some(thread) = thread {
            write!(f, ", thread {thread:?}")?;
        }
        Ok(())
    }
}

impl Fault {
    /// Leaves the kernel. No panic hook runs: the launch reports.
    pub fn raise(self) -> ! {
        std::panic::resume_unwind(Box::new(self))
    }
}
