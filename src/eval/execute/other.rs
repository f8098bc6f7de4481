//! Where there are no process groups and resource limits (Windows): the time limit alone, on the interpreter alone.

use super::Limits;
use std::io;
use std::process::{Child, Command, ExitStatus};

pub(super) fn prepare(_command: &mut Command, _limits: &Limits) {}

pub(super) fn has_ended(child: &mut Child) -> io::Result<bool> {
    child.try_wait().map(|status| status.is_some())
}

pub(super) fn kill_all(child: &mut Child) {
    // It fails where the process has ended already.
    let _ = child.kill();
}

pub(super) fn out_of_cpu_time(_status: ExitStatus) -> bool {
    false
}
