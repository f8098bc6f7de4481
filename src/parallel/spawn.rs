//! Starting the ranks of one machine: this process becomes their parent, which passes signals on, ends all when one fails,
//! and says how one has ended that could not say so itself.

use std::ffi::OsString;
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::launch::OWN;
use super::{session, tcp};
use crate::error::{Error, Result};
use crate::report::voice;
use crate::train::stop::AGAIN;

/// How long the others may take to end by themselves once a rank has failed: those that see it do so at once.
const GRACE: Duration = Duration::from_secs(1);
/// The same where the ranks end together, and a device's driver is still at work.
const PARTING: Duration = Duration::from_secs(30);
const PERIOD: Duration = Duration::from_millis(20);

/// A process that was started, and how it has ended.
struct Rank {
    child: Child,
    ended: Option<ExitStatus>,
    /// By us.
    killed: bool,
}

/// Starts `size` ranks of this program with `arguments`, and waits for them; they find each other within `patience`. Returns
/// the exit code for this process.
///
/// # Errors
/// A process that cannot be started.
pub fn ranks(size: usize, arguments: &[OsString], patience: Duration) -> Result<u8> {
    let failed = |what: &str, error: std::io::Error| Error::failed(format!("cannot {what}: {error}"));
    let program = std::env::current_exe().map_err(|error| failed("find this program's own file", error))?;
    let meeting = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| failed("listen for the ranks", error))?;
    let address = meeting.local_addr().map_err(|error| failed("listen for the ranks", error))?;
    let deadline = Instant::now() + patience;
    std::thread::spawn(move || tcp::serve(&meeting, size, deadline));
    signals::listen()?;
    let threads = (std::thread::available_parallelism().map_or(1, usize::from) / size).max(1);
    let mut ranks = Vec::with_capacity(size);
    for rank in 0..size {
        let mut command = Command::new(&program);
        command.args(arguments).stdin(Stdio::null());
        command.envs([(OWN[0], rank.to_string()), (OWN[1], size.to_string()), (OWN[2], address.to_string())]);
        if std::env::var_os("RAYON_NUM_THREADS").is_none() {
            // Cores are divided among the ranks.
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        signals::prepare(&mut command);
        match command.spawn() {
            Ok(child) => ranks.push(Rank { child, ended: None, killed: false }),
            Err(error) => {
                ranks.iter_mut().for_each(Rank::kill);
                return Err(failed("start a rank", error));
            }
        }
    }
    Ok(wait(&mut ranks))
}

impl Rank {
    fn kill(&mut self) {
        if self.ended.is_none() {
            self.killed = true;
            let _ = self.child.kill();
        }
    }
}

/// Waits for all ranks; where one fails, ends those that do not do so themselves.
fn wait(ranks: &mut [Rank]) -> u8 {
    let mut failed: Option<Instant> = None;
    let mut code = None;
    while ranks.iter().any(|rank| rank.ended.is_none()) {
        signals::pass_on(ranks.iter().filter(|rank| rank.ended.is_none()).map(|rank| rank.child.id()));
        for (number, rank) in ranks.iter_mut().enumerate().filter(|(_, rank)| rank.ended.is_none()) {
            // One that cannot be waited for is none of ours any more.
            rank.ended = rank.child.try_wait().unwrap_or_else(|_| Some(ExitStatus::default()));
            let Some(status) = rank.ended.filter(|status| !status.success() && !rank.killed) else { continue };
            failed.get_or_insert_with(Instant::now);
            if let Some(reason) = reason(number, rank.child.id(), status, code.is_none()) {
                code.get_or_insert(reason);
            }
        }
        let grace = if code == Some(AGAIN) { PARTING } else { GRACE };
        if failed.is_some_and(|since| since.elapsed() > grace) {
            ranks.iter_mut().for_each(Rank::kill);
        }
        std::thread::sleep(PERIOD);
    }
    // Ranks that have lost each other, and nobody knows why.
    code.unwrap_or(u8::from(failed.is_some()))
}

/// What a rank's end means for all: `None` where it has only lost another one. The first to fail is told, `first`, if it
/// could not do so itself.
fn reason(rank: usize, process: u32, status: ExitStatus, first: bool) -> Option<u8> {
    if let Some(code) = status.code() {
        return u8::try_from(code).ok().filter(|code| *code != session::LOST);
    }
    if first {
        voice::error(&format!(
            "rank {rank} on {} (process {process}) was ended from outside ({status}), and the others with it; go on from the \
             last checkpoint with --resume",
            session::host()
        ));
    }
    Some(1)
}

#[cfg(unix)]
mod signals {
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
    use nix::unistd::Pid;

    use crate::error::{Error, Result};

    /// How often each has come and is not yet passed on.
    static STOP: AtomicU32 = AtomicU32::new(0);
    static PREEMPT: AtomicU32 = AtomicU32::new(0);

    extern "C" fn note(signal: i32) {
        let count = if signal == Signal::SIGUSR1 as i32 { &PREEMPT } else { &STOP };
        count.fetch_add(1, Ordering::SeqCst);
    }

    pub fn listen() -> Result<()> {
        let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1] {
            // SAFETY: the handler only adds to an atomic, which POSIX allows in a signal handler.
            unsafe { sigaction(signal, &action) }
                .map_err(|error| Error::failed(format!("cannot listen for signals: {error}")))?;
        }
        Ok(())
    }

    /// A terminal's Ctrl-C reaches the parent alone, which passes it on once; a parent that is killed takes the ranks with
    /// it, who save first.
    pub fn prepare(command: &mut Command) {
        command.process_group(0);
        #[cfg(target_os = "linux")]
        // SAFETY: prctl is a system call, which is allowed between fork and exec.
        unsafe {
            command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(Into::into));
        }
    }

    pub fn pass_on(processes: impl Iterator<Item = u32>) {
        let (stops, preempts) = (STOP.swap(0, Ordering::SeqCst), PREEMPT.swap(0, Ordering::SeqCst));
        if stops + preempts == 0 {
            return;
        }
        for process in processes {
            let pid = Pid::from_raw(process as i32);
            let signals = std::iter::repeat_n(Signal::SIGTERM, stops as usize);
            for signal in signals.chain(std::iter::repeat_n(Signal::SIGUSR1, preempts as usize)) {
                // One that has just ended needs none.
                let _ = kill(pid, signal);
            }
        }
    }
}

#[cfg(not(unix))]
mod signals {
    use std::process::Command;

    use crate::error::Result;

    pub fn listen() -> Result<()> {
        Ok(())
    }

    pub fn prepare(_: &mut Command) {}

    pub fn pass_on(_: impl Iterator<Item = u32>) {}
}
