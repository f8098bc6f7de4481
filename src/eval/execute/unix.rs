//! Limits and process groups, on unix.

use super::confinement::Layers;
use super::limits::Limits;
use super::python::Python;
use crate::error::Result;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

/// How a program is to be confined.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(super) struct Setting<'a> {
    pub limits: &'a Limits,
    pub layers: Layers,
    /// What it may write to, and the working directory in it.
    pub around: &'a Path,
    pub folder: &'a Path,
    pub python: &'a Python,
}

/// Open files of a process: more than a program needs, few enough to bound what it can hide in files without a name.
const OPEN_FILES: u64 = 128;

/// Makes the command's process start a group and take limits and confinement on itself before it becomes the interpreter.
pub(super) fn prepare(command: &mut Command, setting: &Setting) -> Result<()> {
    let limits = setting.limits;
    // Where seccomp refuses processes it lets threads through, and needs no count.
    let counted = !limits.children && !setting.layers.seccomp;
    let wanted = [
        Some((Resource::RLIMIT_CPU, limits.cpu_seconds)),
        // macOS answers EINVAL to any limit below what a process has mapped already.
        (!cfg!(target_vendor = "apple")).then_some((Resource::RLIMIT_AS, limits.memory_bytes)),
        Some((Resource::RLIMIT_FSIZE, limits.file_bytes)),
        Some((Resource::RLIMIT_NOFILE, OPEN_FILES)),
        // The kernel counts processes and threads by user, and does not hold root to it.
        counted.then_some((Resource::RLIMIT_NPROC, 1)),
        Some((Resource::RLIMIT_CORE, 0)),
    ];
    let allowed = wanted.map(|limit| {
        limit.map(|(resource, limit)| {
            // A hard limit can be lowered only.
            let ceiling = getrlimit(resource).map_or(rlim_t::MAX, |(_, hard)| hard);
            let soft = (limit as rlim_t).min(ceiling);
            // At the soft limit of CPU time comes SIGXCPU, which tells what happened; at the hard one SIGKILL.
            let hard = if resource == Resource::RLIMIT_CPU { soft.saturating_add(1).min(ceiling) } else { soft };
            (resource, soft, hard)
        })
    });
    command.process_group(0);
    let parent = Pid::this();
    #[cfg(target_os = "linux")]
    let mut cage = super::linux::Cage::new(setting)?;
    let take_limits = move || {
        leave_with(parent)?;
        #[cfg(target_os = "linux")]
        cage.enter()?;
        for (resource, soft, hard) in allowed.into_iter().flatten() {
            setrlimit(resource, soft, hard)?;
        }
        #[cfg(target_os = "linux")]
        cage.close()?;
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. The closure makes system calls through
    // nix, landlock and seccompiler, of things made before the fork, and converts an errno to an io::Error; on its way to
    // success none of it allocates, locks or touches memory that is shared.
    unsafe { command.pre_exec(take_limits) };
    Ok(())
}

/// Has the kernel kill this process when the thread that started it ends, so that a killed trainer leaves none behind.
#[cfg(target_os = "linux")]
fn leave_with(parent: Pid) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have ended between fork and the call above.
    if Pid::parent() != parent { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
}

#[cfg(not(target_os = "linux"))]
fn leave_with(_parent: Pid) -> io::Result<()> {
    Ok(())
}

/// Whether the process has ended; leaves it to be reaped, so that its group's number stays its own.
pub(super) fn has_ended(child: &mut Child) -> io::Result<bool> {
    // SAFETY: siginfo_t is a plain C struct for which all bits zero is a value, and waitid writes to it alone.
    let (answer, info) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        (libc::waitid(libc::P_PID, child.id() as libc::id_t, &mut info, flags), info)
    };
    match answer {
        // si_signo is SIGCHLD where a child was found and stays 0 where it still runs.
        0 => Ok(info.si_signo == libc::SIGCHLD),
        _ => match io::Error::last_os_error() {
            interrupted if interrupted.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
    }
}

/// Kills the process and its whole group.
pub(super) fn kill_all(child: &mut Child) {
    // It fails where nothing is left to kill, which is what is wanted.
    let _ = killpg(Pid::from_raw(child.id() as libc::pid_t), Signal::SIGKILL);
    let _ = child.kill();
}

pub(super) fn out_of_cpu_time(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::SIGXCPU as i32)
}
