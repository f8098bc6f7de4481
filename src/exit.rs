//! How this process ends: without what libraries have registered to run at the end of a process.
//!
//! LLVM takes its own tables apart there. A software Vulkan device compiles kernels by LLVM in threads of its own, and one
//! that is at it then ends the process by a segmentation fault, its work done or not (llvm/llvm-project issue 132452).
//! Everything of this program that has to end in order has ended when these are called.

use std::io::{self, Write};

/// Ends the process with what it printed; `main`'s last call.
pub fn after_work(code: u8) -> ! {
    // A reader that has gone away is no failure.
    let _ = io::stdout().flush();
    at_once(code)
}

/// Ends the process from any thread: nothing is waited for, be it a lock, other ranks, or a device that waits for them.
pub fn at_once(code: u8) -> ! {
    #[cfg(unix)]
    // SAFETY: ends the process without running anything of it.
    unsafe {
        nix::libc::_exit(i32::from(code))
    }
    #[cfg(not(unix))]
    std::process::exit(i32::from(code))
}
