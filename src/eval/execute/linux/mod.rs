//! What Linux offers beyond limits: namespaces, Landlock, seccomp.

mod file_access;
mod namespaces;
mod system_calls;

use super::confine::Setting;
use crate::error::Result;
use file_access::FileAccess;
use namespaces::Namespaces;
use nix::libc;
use std::io;
use system_calls::SystemCalls;

/// The layers of one program, made before the fork, so that between fork and exec they only have to be put in force.
pub(super) struct Cage {
    namespaces: Option<Namespaces>,
    file_access: Option<FileAccess>,
    system_calls: Option<SystemCalls>,
}

impl Cage {
    pub(super) fn new(setting: &Setting) -> Result<Self> {
        let layers = setting.layers;
        Ok(Self {
            namespaces: layers.namespaces.then(|| Namespaces::new(setting)).transpose()?,
            file_access: layers.landlock.then(|| FileAccess::new(setting)).transpose()?,
            system_calls: layers.seccomp.then(|| SystemCalls::new(setting.limits.children)).transpose()?,
        })
    }

    /// What needs rights that the others take away. It forks: the caller goes on as the child, and its former self stands by to end
    /// as the child does.
    pub(super) fn enter(&self) -> io::Result<()> {
        self.namespaces.as_ref().map_or(Ok(()), Namespaces::enter)
    }

    /// All the others; from here on nothing is given back.
    pub(super) fn close(&mut self) -> io::Result<()> {
        // Root's programs would get root's capabilities back from exec otherwise. It fails where there are none to lose.
        let bits = libc::SECBIT_NOROOT | libc::SECBIT_NOROOT_LOCKED;
        // SAFETY: both calls take plain numbers and change flags of this process alone.
        unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits as libc::c_ulong, 0, 0, 0) };
        nix::sys::prctl::set_no_new_privs()?;
        if let Some(file_access) = &mut self.file_access {
            file_access.restrict()?;
        }
        self.system_calls.as_mut().map_or(Ok(()), SystemCalls::restrict)
    }
}
