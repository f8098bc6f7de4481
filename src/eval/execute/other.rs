//! Where there are no process groups and resource limits (Windows): the time limit alone, on the interpreter alone.

use super::confinement::Layers;
use super::limits::Limits;
use super::python::Python;
use crate::error::Result;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

#[allow(dead_code)]
pub(super) struct Setting<'a> {
    pub limits: &'a Limits,
    pub layers: Layers,
    pub around: &'a Path,
    pub folder: &'a Path,
    pub python: &'a Python,
}

pub(super) fn prepare(_command: &mut Command, _setting: &Setting) -> Result<()> {
    Ok(())
}

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
