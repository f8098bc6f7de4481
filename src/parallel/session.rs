//! Starting and ending together.
//!
//! A rank that fails says so, with its number and host, and ends all others. What all ranks know together (they have
//! compared notes, or one has told the rest) ends each in order, and the first rank alone says it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::collective::Collective;
use super::hosted::Hosted;
use super::launch::{Engine, Launch, Launcher};
use super::tcp;
use super::watchdog::{self, COURTESY, Watchdog};
use crate::error::{Error, Result};
use crate::exit;
use crate::report::voice;

/// This process as one of several ranks.
struct Session {
    rank: usize,
    host: String,
    watchdog: Watchdog,
    abort: fn(u8) -> !,
}

static SESSION: OnceLock<Session> = OnceLock::new();
/// The exit code of a rank that this program has started and that has lost another one: the starter looks for the reason.
pub const LOST: u8 = 69;
/// Every rank knows of the error that is about to end it.
static AGREED: AtomicBool = AtomicBool::new(false);

/// The machine's name.
pub fn host() -> String {
    sysinfo::System::host_name().unwrap_or_else(|| "an unnamed host".into())
}

/// What ends this rank's part in order: it waits for the others to end theirs.
static ENDING: OnceLock<Mutex<Option<Ending>>> = OnceLock::new();

type Ending = Box<dyn FnOnce() + Send>;

/// Joins the other ranks.
///
/// # Errors
/// No engine for this launch in this build; ranks that do not find each other within `timeout`.
pub fn start(launch: &Launch, timeout: Duration) -> Result<Arc<dyn Collective>> {
    match launch.engine()? {
        Engine::Mpi => start_mpi(launch, timeout),
        Engine::Tcp { address, first_serves } => {
            let Launch { rank, size, .. } = *launch;
            let mesh = tcp::join(&address, rank, size, first_serves, timeout);
            let mesh = mesh.inspect_err(|error| {
                // The first rank's is said anyway; others may not even have found that one.
                if rank > 0 {
                    std::thread::sleep(COURTESY);
                    voice::error(&format!("rank {rank} on {}: {error}", host()));
                }
            })?;
            let own = launch.launcher == Launcher::Own;
            mesh.when_lost(move |peer, error| lost(rank, peer, error, own));
            let watchdog = begin(rank, size, timeout, exit::at_once);
            let group: Arc<dyn Collective> = Arc::new(Hosted::new(mesh, watchdog));
            let ending = group.clone();
            // A rank that left earlier would be missed by one that has still something to hear from a third.
            end_by(Box::new(move || ending.barrier()));
            Ok(group)
        }
    }
}

#[cfg(feature = "mpi")]
fn start_mpi(launch: &Launch, timeout: Duration) -> Result<Arc<dyn Collective>> {
    use super::hosted::Transport;
    use super::mpi;

    let (universe, world) = mpi::start()?;
    if world.size() != launch.size {
        return Err(Error::input(format!(
            "{} started {} ranks, but MPI knows of {}: start them so that they find each other (mpirun of the OpenMPI that \
             this program was built with, or srun --mpi=pmix)",
            launch.launcher,
            launch.size,
            world.size()
        )));
    }
    let watchdog = begin(world.rank(), world.size(), timeout, mpi::abort);
    // Ended by `finish` alone: a rank that fails must not wait for the others.
    end_by(Box::new(move || drop(universe)));
    Ok(Arc::new(Hosted::new(world, watchdog)))
}

#[cfg(not(feature = "mpi"))]
fn start_mpi(_: &Launch, _: Duration) -> Result<Arc<dyn Collective>> {
    Err(Error::failed("this program was built without MPI"))
}

fn begin(rank: usize, size: usize, timeout: Duration, abort: fn(u8) -> !) -> Watchdog {
    let host = host();
    let watchdog = Watchdog::start(watchdog::Rank { rank, size, host: host.clone(), timeout, abort });
    let _ = SESSION.set(Session { rank, host, watchdog: watchdog.clone(), abort });
    watchdog
}

fn end_by(ending: Ending) {
    let _ = ENDING.set(Mutex::new(Some(ending)));
}

/// The watchdog of this rank; where it is the only one, a watchdog that never barks.
pub fn watchdog() -> Watchdog {
    SESSION.get().map(|session| session.watchdog.clone()).unwrap_or_default()
}

/// A rank is gone that this one needs. Where this program has started the ranks, the starter says what has happened.
fn lost(rank: usize, peer: usize, error: &std::io::Error, own: bool) {
    if own {
        exit::at_once(LOST);
    }
    if rank > 0 {
        std::thread::sleep(COURTESY);
    }
    voice::error(&format!(
        "rank {rank} on {}: the connection to rank {peer} is gone ({error}), so that rank has ended; go on from the last \
         checkpoint with --resume",
        host()
    ));
}

/// The ranks now share this run directory: each tells there how far it is.
pub fn tell_in(run: &Path) {
    if let Some(session) = SESSION.get() {
        session.watchdog.tell_in(run.join(SIGNS));
    }
}

/// Where ranks tell how far they are, in a run directory.
pub const SIGNS: &str = ".ranks";

/// Ends this rank's part; waits for the others to end theirs. Nothing to do where there are none.
pub fn finish() {
    let Some(session) = SESSION.get() else { return };
    let ending = ENDING.get().and_then(|ending| ending.lock().ok()?.take());
    session.watchdog.enter("end of the run");
    ending.into_iter().for_each(|end| end());
    session.watchdog.leave();
    session.watchdog.end();
}

/// Ends this process, and the other ranks with it, for this reason.
pub fn fail(error: &Error) -> u8 {
    let Some(session) = SESSION.get() else {
        if voice::is_aloud() {
            voice::error(&error.to_string());
        }
        return error.exit_code();
    };
    if AGREED.load(Ordering::SeqCst) {
        if session.rank == 0 {
            voice::error(&error.to_string());
        }
        finish();
        return error.exit_code();
    }
    if session.rank > 0 {
        std::thread::sleep(COURTESY);
    }
    voice::error(&format!("rank {} on {}: {error}", session.rank, session.host));
    (session.abort)(error.exit_code())
}

/// A result as ranks tell it to each other.
#[derive(Serialize, Deserialize)]
struct Told<T> {
    /// An error is its message and exit code.
    result: std::result::Result<T, (String, u8)>,
    host: String,
}

impl<T> Told<T> {
    fn new(result: Result<T>) -> Self {
        Self { result: result.map_err(|error| (error.to_string(), error.exit_code())), host: host() }
    }
}

/// An error that every rank comes to by itself, from numbers that they share: it ends each in order.
pub fn shared(error: Error) -> Error {
    agreed(error.to_string(), error.exit_code())
}

/// Whether every rank knows of the error that is about to end it.
pub fn all_know() -> bool {
    AGREED.load(Ordering::SeqCst)
}

/// The run goes on in spite of an error that all ranks have heard of.
pub fn overcome() {
    AGREED.store(false, Ordering::SeqCst);
}

/// An error that every rank has.
pub(super) fn agreed(message: String, code: u8) -> Error {
    AGREED.store(true, Ordering::SeqCst);
    if code == 2 { Error::Input(message) } else { Error::Failed(message) }
}

fn to_json<T: Serialize>(told: &Told<T>) -> Result<Vec<u8>> {
    serde_json::to_vec(told).map_err(|error| Error::failed(format!("a message to the other ranks: {error}")))
}

fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<Told<T>> {
    serde_json::from_slice(json).map_err(|error| {
        Error::failed(format!("a message from another rank cannot be read ({error}): run the same program on all"))
    })
}

/// Does `work` on the first rank and gives every rank its result.
///
/// # Errors
/// Its error, on every rank.
pub fn lead<T: Serialize + DeserializeOwned>(group: &dyn Collective, work: impl FnOnce() -> Result<T>) -> Result<T> {
    if group.size() == 1 {
        return work();
    }
    let mine = if group.rank() == 0 { to_json(&Told::new(work()))? } else { Vec::new() };
    let told: Told<T> = from_json(&group.broadcast(&mine, 0))?;
    told.result.map_err(|(message, code)| agreed(message, code))
}

/// Every rank's value, by rank; or, where a rank has an error, that error on all.
///
/// # Errors
/// The ranks' errors as one, with rank and host where not all ranks say the same.
pub fn together<T: Serialize + DeserializeOwned>(group: &dyn Collective, mine: Result<T>) -> Result<Vec<(String, T)>> {
    if group.size() == 1 {
        return Ok(vec![(String::new(), mine?)]);
    }
    let told: Vec<Told<T>> =
        group.gather(&to_json(&Told::new(mine))?).iter().map(|json| from_json(json)).collect::<Result<_>>()?;
    let errors: Vec<_> = told
        .iter()
        .enumerate()
        .filter_map(|(rank, told)| Some((rank, &told.host, told.result.as_ref().err()?)))
        .collect();
    let Some((rank, host, (message, code))) = errors.first() else {
        return Ok(told.into_iter().filter_map(|told| Some((told.host, told.result.ok()?))).collect());
    };
    let everywhere = errors.len() == told.len() && errors.iter().all(|(.., error)| error.0 == *message);
    let message = if everywhere { message.clone() } else { format!("rank {rank} on {host}: {message}") };
    Err(agreed(message, *code))
}

/// A value of this rank's, where no rank has failed.
///
/// # Errors
/// As `together`.
pub fn every<T>(group: &dyn Collective, mine: Result<T>) -> Result<T> {
    let (value, told) = match mine {
        Ok(value) => (Some(value), Ok(())),
        Err(error) => (None, Err(error)),
    };
    together(group, told)?;
    value.ok_or_else(|| Error::failed("the ranks disagree on whether this rank has failed"))
}
