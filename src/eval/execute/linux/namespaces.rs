//! Namespaces: a program that sees no other process, no network and a read-only file system with one folder in memory.

use super::super::confine::Setting;
use crate::error::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, fork, write};
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;

/// The user and group that a program takes itself for: not 0, so that exec drops the capabilities of the new namespace.
const INNER_ID: u32 = 1000;
/// Files and folders that fit into the folder.
const INODES: u32 = 4096;

pub(super) struct Namespaces {
    folder: CString,
    folder_options: CString,
    users: CString,
    groups: CString,
    cpu_seconds: u64,
}

impl Namespaces {
    pub(super) fn new(setting: &Setting) -> Result<Self> {
        // SAFETY: these two calls always succeed and touch no memory.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        let text = |text: Vec<u8>| CString::new(text).map_err(|_| Error::failed("a path holds a zero byte"));
        let bytes = setting.limits.folder_bytes;
        Ok(Self {
            folder: text(setting.folder.as_os_str().as_bytes().to_vec())?,
            folder_options: text(format!("size={bytes},nr_inodes={INODES},mode=0700").into_bytes())?,
            users: text(format!("{INNER_ID} {user} 1").into_bytes())?,
            groups: text(format!("{INNER_ID} {group} 1").into_bytes())?,
            cpu_seconds: setting.limits.cpu_seconds,
        })
    }

    pub(super) fn enter(&self) -> io::Result<()> {
        let own_user = CloneFlags::CLONE_NEWUSER;
        let rest = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        unshare(own_user | rest | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
        // Without this no unprivileged process may map groups (user_namespaces(7)).
        tell(c"/proc/self/setgroups", c"deny")?;
        tell(c"/proc/self/uid_map", &self.users)?;
        tell(c"/proc/self/gid_map", &self.groups)?;
        read_only()?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let options = Some(self.folder_options.as_c_str());
        mount(Some(c"tmpfs"), self.folder.as_c_str(), Some(c"tmpfs"), flags, options)?;
        // The working directory is still the one below.
        chdir(self.folder.as_c_str())?;
        // The one who unshares stays outside of the new process namespace; its next child is the first one in it.
        // SAFETY: this process has one thread, and both sides go on with system calls only.
        match unsafe { fork()? } {
            ForkResult::Child => Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?),
            ForkResult::Parent { child } => stand_by(child, self.cpu_seconds),
        }
    }
}

/// Makes every mount read-only, for this namespace alone.
fn read_only() -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let size = std::mem::size_of_val(&attributes);
    let flags = libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the call reads a path that ends with a zero byte and `size` bytes of attributes.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, c"/".as_ptr(), flags, &raw const attributes, size)
    };
    Errno::result(done)?;
    Ok(())
}

fn tell(path: &CStr, text: &CStr) -> io::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(&file, text.to_bytes())?;
    Ok(())
}

/// Waits for the program and ends as it does. When this process is killed, the kernel kills the program, the first of its
/// namespace, and with it all others of it.
fn stand_by(program: Pid, cpu_seconds: u64) -> ! {
    // Whoever started this process waits for the end of a pipe that exec closes, and here is no exec.
    // SAFETY: nothing of this process uses a file from here on.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    let code = loop {
        match waitpid(program, None) {
            Ok(WaitStatus::Exited(_, code)) => break code,
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                // The first of a namespace has no default action for SIGXCPU: the hard limit's SIGKILL ends it.
                let out_of_time = signal == Signal::SIGKILL
                    && getrusage(UsageWho::RUSAGE_CHILDREN).is_ok_and(|usage| {
                        usage.user_time().tv_sec() + usage.system_time().tv_sec() >= cpu_seconds as libc::time_t
                    });
                let _ = kill(Pid::this(), if out_of_time { Signal::SIGXCPU } else { signal });
                break 128 + signal as i32;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => break 1,
        }
    };
    // SAFETY: ends the process without running anything of the parent's.
    unsafe { libc::_exit(code) }
}
