//! What ends a run before its last step, in order: signals, and the hours that it was given.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::parallel::signs::{Sign, Signs};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static PREEMPTED: AtomicBool = AtomicBool::new(false);
static INSTALLED: OnceLock<std::result::Result<(), String>> = OnceLock::new();

/// Exit code of a run that was stopped by a second signal, as shells report SIGINT.
const TWICE: u8 = 130;
/// Exit code of a run that is saved and to be started again (sysexits.h's EX_TEMPFAIL): what a job script looks for.
pub const AGAIN: u8 = 75;

/// Why a run ended before its last step, with everything saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Ctrl-C or SIGTERM: somebody wants it to end.
    Interrupted,
    /// SIGUSR1: the machine is about to be taken away.
    Preempted,
    /// The hours that it was given are over.
    TimeUp,
}

impl Stop {
    /// What the ranks' signs say, the first of several reasons.
    pub fn of(signs: &Signs) -> Option<Self> {
        let reasons =
            [(Sign::Interrupted, Self::Interrupted), (Sign::Preempted, Self::Preempted), (Sign::TimeUp, Self::TimeUp)];
        reasons.into_iter().find(|(sign, _)| signs.any(*sign)).map(|(_, stop)| stop)
    }

    /// The process's: 0 where somebody asked for the end, 75 where the run wants to go on.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Interrupted => 0,
            Self::Preempted | Self::TimeUp => AGAIN,
        }
    }
}

/// Whether Ctrl-C or SIGTERM has asked for the end.
pub fn is_asked() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Starts to listen: Ctrl-C and SIGTERM ask the run to finish its step, save and exit; a second one exits at once. SIGUSR1,
/// which Slurm sends on request before a job's time is up, does as the first. May be called more than once.
pub fn listen() -> Result<()> {
    let installed = INSTALLED.get_or_init(|| {
        ctrlc::set_handler(|| {
            if INTERRUPTED.swap(true, Ordering::SeqCst) {
                crate::exit::at_once(TWICE);
            }
            crate::report::voice::say("\nstopping after this step; once more to stop at once");
        })
        .map_err(|error| error.to_string())?;
        #[cfg(unix)]
        preemption::listen().map_err(|error| error.to_string())?;
        Ok(())
    });
    installed.clone().map_err(|error| Error::failed(format!("cannot listen for signals: {error}")))
}

#[cfg(unix)]
mod preemption {
    use std::sync::atomic::Ordering;

    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

    extern "C" fn handle(_: i32) {
        super::PREEMPTED.store(true, Ordering::SeqCst);
    }

    pub fn listen() -> nix::Result<()> {
        let action = SigAction::new(SigHandler::Handler(handle), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler only stores to an atomic, which POSIX allows in a signal handler.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.map(drop)
    }
}

/// Whether a signal has come.
pub fn requested() -> bool {
    INTERRUPTED.load(Ordering::SeqCst) || PREEMPTED.load(Ordering::SeqCst)
}

/// The hours that a run was given.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    begun: Instant,
    time: Option<Duration>,
}

impl Allowance {
    /// From now on; `None`: as long as it takes.
    pub fn new(hours: Option<f64>) -> Self {
        let time = hours.and_then(|hours| Duration::try_from_secs_f64(hours * 3600.0).ok());
        Self { begun: Instant::now(), time }
    }

    pub fn is_used_up(&self) -> bool {
        self.time.is_some_and(|time| self.begun.elapsed() >= time)
    }
}

/// What this process has to tell of the end. `first`: this rank's clock counts.
pub fn signs(allowance: &Allowance, first: bool) -> impl Iterator<Item = Sign> {
    let shown = [
        (Sign::Interrupted, INTERRUPTED.load(Ordering::SeqCst)),
        (Sign::Preempted, PREEMPTED.load(Ordering::SeqCst)),
        (Sign::TimeUp, first && allowance.is_used_up()),
    ];
    shown.into_iter().filter_map(|(sign, shown)| shown.then_some(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_an_order_and_codes() {
        assert_eq!(Stop::of(&Signs::default()), None);
        assert_eq!(Stop::of(&Signs::of([Sign::TimeUp, Sign::Interrupted])), Some(Stop::Interrupted));
        assert_eq!(Stop::of(&Signs::of([Sign::TimeUp, Sign::Written])), Some(Stop::TimeUp));
        assert_eq!(Stop::Interrupted.exit_code(), 0);
        assert_eq!(Stop::Preempted.exit_code(), 75);
    }

    #[test]
    fn hours_are_used_up_by_time_alone() {
        assert!(!Allowance::new(None).is_used_up() && !Allowance::new(Some(1.0)).is_used_up());
        let moment = Allowance::new(Some(1e-9));
        std::thread::sleep(Duration::from_millis(1));
        assert!(moment.is_used_up());
        // More than a Duration holds is for ever.
        assert!(!Allowance::new(Some(f64::MAX)).is_used_up());
    }
}
