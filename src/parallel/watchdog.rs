//! A rank that does not arrive: found by those that wait for it, within a stated time.
//!
//! Each rank has a thread beside its training that knows how long the rank has been in a collective. Past the timeout it
//! says who is missing, as far as can be told, and ends all ranks. Who is missing is read from small files on the file
//! system that the ranks share (RUN/.ranks): each rank's thread writes there how many collectives its rank has entered.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::report::voice;

/// Ranks other than the first hold their message back for this long: where several have the same to say, one says it.
/// Longer than the two seconds that OpenMPI takes to end the others.
pub const COURTESY: Duration = Duration::from_secs(3);

/// Watches one rank's collectives. Clones watch the same.
#[derive(Clone, Default)]
pub struct Watchdog(Option<Arc<Watched>>);

/// Who is watched, and what to do past the timeout.
pub struct Rank {
    pub rank: usize,
    pub size: usize,
    pub host: String,
    /// A collective that takes longer than this has lost a rank.
    pub timeout: Duration,
    /// Ends all ranks with an exit code.
    pub abort: fn(u8) -> !,
}

struct Watched {
    rank: Rank,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Collectives entered.
    entered: u64,
    waiting: Option<(&'static str, Instant)>,
    /// Where the ranks write how far they are.
    signs: Option<PathBuf>,
    over: bool,
}

/// What another rank's file says.
struct Sign {
    entered: u64,
    place: String,
    written: SystemTime,
}

impl Watchdog {
    /// One that never barks.
    pub fn idle() -> Self {
        Self::default()
    }

    pub fn start(rank: Rank) -> Self {
        let watched = Arc::new(Watched { rank, state: Mutex::default() });
        let thread = watched.clone();
        std::thread::spawn(move || thread.watch());
        Self(Some(watched))
    }

    pub fn enter(&self, name: &'static str) {
        if let Some(watched) = &self.0 {
            let mut state = watched.state();
            state.entered += 1;
            state.waiting = Some((name, Instant::now()));
        }
    }

    pub fn leave(&self) {
        if let Some(watched) = &self.0 {
            watched.state().waiting = None;
        }
    }

    /// From now on the ranks tell in `dir`, which they share, how far they are.
    pub fn tell_in(&self, dir: PathBuf) {
        if let Some(watched) = &self.0 {
            let mut state = watched.state();
            state.signs = Some(dir);
            watched.give_sign(&state);
        }
    }

    /// No more signs of life: the run ends in order.
    pub fn end(&self) {
        if let Some(watched) = &self.0 {
            let mut state = watched.state();
            state.over = true;
            if let Some(dir) = state.signs.take() {
                // The last one removes the directory; until then that fails.
                let _ = fs::remove_file(dir.join(sign_name(watched.rank.rank)));
                let _ = fs::remove_dir(dir);
            }
        }
    }
}

fn sign_name(rank: usize) -> String {
    format!("rank-{rank:05}")
}

impl Watched {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn period(&self) -> Duration {
        (self.rank.timeout / 4).clamp(Duration::from_millis(50), Duration::from_secs(5))
    }

    fn watch(&self) {
        loop {
            let late = {
                let state = self.state();
                if state.over {
                    return;
                }
                self.give_sign(&state);
                state.waiting.filter(|(_, since)| since.elapsed() > self.rank.timeout).map(|(name, _)| name)
            };
            if let Some(name) = late {
                self.bark(name);
            }
            std::thread::sleep(self.period());
        }
    }

    fn give_sign(&self, state: &State) {
        let Some(dir) = &state.signs else { return };
        let sign = format!("{} {} process {}\n", state.entered, self.rank.host, std::process::id());
        // A disk that takes no sign is the training's to find, not ours.
        let _ = fs::create_dir_all(dir).and_then(|()| fs::write(dir.join(sign_name(self.rank.rank)), sign));
    }

    fn bark(&self, name: &str) {
        if self.rank.rank > 0 {
            std::thread::sleep(COURTESY);
        }
        let state = self.state();
        // It may have come through while this thread slept.
        let Some((_, since)) = state.waiting.filter(|(_, since)| since.elapsed() > self.rank.timeout) else { return };
        let Rank { rank, host, timeout, .. } = &self.rank;
        voice::error(&format!(
            "rank {rank} on {host} has waited {:.1} s in collective {} ({name}), longer than --timeout {}: {}; the last \
             checkpoint is whole: go on from it with --resume",
            since.elapsed().as_secs_f64(),
            state.entered,
            timeout.as_secs_f64(),
            self.missing(&state)
        ));
        (self.rank.abort)(1)
    }

    /// Who has not arrived, as far as the signs tell.
    fn missing(&self, state: &State) -> String {
        let Some(dir) = &state.signs else { return "which rank is missing is not known this early".into() };
        self.give_sign(state);
        let read = |rank: usize| -> Option<Sign> {
            let path = dir.join(sign_name(rank));
            let text = fs::read_to_string(&path).ok()?;
            let (entered, place) = text.trim().split_once(' ')?;
            let written = fs::metadata(&path).and_then(|file| file.modified()).ok()?;
            Some(Sign { entered: entered.parse().ok()?, place: place.to_owned(), written })
        };
        // By the file system's clock, which the ranks share.
        let now = read(self.rank.rank).map_or_else(SystemTime::now, |own| own.written);
        let others = (0..self.rank.size).filter(|rank| *rank != self.rank.rank);
        // A rank that is behind gives signs all the same where it is stuck, or where what was sent to it got lost.
        let mut all_alive = true;
        let late: Vec<String> = others
            .filter_map(|rank| {
                let Some(sign) = read(rank) else {
                    all_alive = false;
                    return Some(format!("rank {rank} has given no sign of life"));
                };
                let age = now.duration_since(sign.written).unwrap_or_default();
                let silent = age > self.rank.timeout / 2 + 2 * self.period();
                all_alive &= !silent;
                (silent || sign.entered < state.entered).then(|| {
                    format!(
                        "rank {rank} ({}) has not arrived: last sign of life {:.1} s ago, in collective {}",
                        sign.place,
                        age.as_secs_f64(),
                        sign.entered
                    )
                })
            })
            .collect();
        match (late.is_empty(), all_alive) {
            (true, _) => "every rank says that it is here, so the network between them may be down".into(),
            (false, true) => format!("{}: stuck, or the network between them may be down", late.join("; ")),
            (false, false) => late.join("; "),
        }
    }
}
