//! What a process takes of the machine's memory.

/// Bytes of this process's peak resident memory; `None` where the system does not tell.
pub fn peak_resident() -> Option<u64> {
    status("VmHWM:")
}

/// Bytes of this process's resident memory; `None` where the system does not tell.
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib << 10)
}

/// Bytes of memory that this process may use: the machine's, or those of its control group.
pub fn machine_memory() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let limit = system.cgroup_limits().map(|limits| limits.total_memory).filter(|limit| *limit > 0);
    limit.unwrap_or(u64::MAX).min(system.total_memory())
}
