//! Seccomp: what the kernel refuses a program, root or not.
//!
//! A list of what is refused, not of what is allowed: interpreters and libraries differ too much in what they call.

use crate::error::{Error, Result};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};
use std::collections::BTreeMap;
use std::io;

/// Refused always.
#[rustfmt::skip]
const REFUSED: &[libc::c_long] = &[
    // Network. Pairs of connected sockets stay: they reach nobody else.
    libc::SYS_socket,
    // Signals to other processes and their insides.
    libc::SYS_kill, libc::SYS_tkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo, libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal, libc::SYS_pidfd_getfd, libc::SYS_ptrace, libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev, libc::SYS_process_madvise, libc::SYS_kcmp,
    // Ways around this list.
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    // What outlasts a process, or counts to no limit of it.
    libc::SYS_shmget, libc::SYS_msgget, libc::SYS_semget, libc::SYS_mq_open, libc::SYS_memfd_create, libc::SYS_memfd_secret,
    libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl,
    // Parts of the kernel that no program of this kind needs.
    libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_fanotify_init, libc::SYS_mount,
    libc::SYS_umount2, libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_fsmount, libc::SYS_open_tree,
    libc::SYS_mount_setattr, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_unshare, libc::SYS_setns,
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load, libc::SYS_reboot,
    libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct, libc::SYS_quotactl, libc::SYS_settimeofday,
    libc::SYS_clock_settime, libc::SYS_adjtimex, libc::SYS_clock_adjtime, libc::SYS_sethostname,
    libc::SYS_setdomainname, libc::SYS_syslog,
];
/// x86-64 numbers a call a second time with this bit for its 32-bit pointers.
const X32: libc::c_long = 0x4000_0000;
/// Stands in the filter for the process's own id, which is known after the fork only. No id is so large.
const OWN_ID: u32 = 0x7ACE_C0DE;

pub(super) struct SystemCalls {
    filters: Vec<BpfProgram>,
}

impl SystemCalls {
    pub(super) fn new(children: bool) -> Result<Self> {
        let broken = |error: seccompiler::BackendError| Error::failed(format!("seccomp: {error}"));
        Ok(Self { filters: filters(children).map_err(broken)? })
    }

    pub(super) fn restrict(&mut self) -> io::Result<()> {
        let own = std::process::id();
        for instruction in self.filters.iter_mut().flatten().filter(|instruction| instruction.k == OWN_ID) {
            instruction.k = own;
        }
        self.filters.iter().try_for_each(|filter| apply_filter(filter).map_err(|_| io::Error::last_os_error()))
    }
}

fn filters(children: bool) -> std::result::Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut refuse = |call: libc::c_long, rules: Vec<SeccompRule>| {
        if cfg!(target_arch = "x86_64") {
            refused.insert(call | X32, rules.clone());
        }
        refused.insert(call, rules);
    };
    // No rules: whatever its arguments.
    REFUSED.iter().for_each(|call| refuse(*call, Vec::new()));
    // The C library's raise and abort send themselves a signal this way.
    refuse(libc::SYS_tgkill, vec![condition(SeccompCmpOp::Ne, u64::from(OWN_ID))?]);
    // And it asks for the limits of process 0, which is the caller.
    refuse(libc::SYS_prlimit64, vec![condition(SeccompCmpOp::Ne, 0)?]);
    let mut filters = Vec::new();
    if !children {
        // The one sort of limit that holds for root, too, and lets threads through.
        let thread = libc::CLONE_THREAD as u64;
        refuse(libc::SYS_clone, vec![condition(SeccompCmpOp::MaskedEq(thread), 0)?]);
        #[cfg(target_arch = "x86_64")]
        [libc::SYS_fork, libc::SYS_vfork].into_iter().for_each(|call| refuse(call, Vec::new()));
        // Its flags are behind a pointer, where no filter sees them. At ENOSYS the C library takes clone.
        let newer = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        filters.push(compile(newer, libc::ENOSYS)?);
    }
    filters.push(compile(refused, libc::EPERM)?);
    Ok(filters)
}

/// On the lower half of a call's first argument.
fn condition(operator: SeccompCmpOp, value: u64) -> std::result::Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Dword, operator, value)?])
}

fn compile(
    refused: BTreeMap<i64, Vec<SeccompRule>>,
    errno: libc::c_int,
) -> std::result::Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(refused, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)?.try_into()
}
