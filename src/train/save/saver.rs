//! Checkpoints written while the next steps are made.
//!
//! Training waits only until its state is copied to host memory; threads of their own write, sync and rename. At most one
//! checkpoint is outstanding: the next one waits for it. Where several ranks write one checkpoint together, each tells with
//! every step's numbers whether its part is written (`Sign`); once all are, the first rank puts the checkpoint in place.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::loop_state::LoopState;
use super::snapshot::Snapshot;
use super::write::{Description, Share};
use crate::checkpoint::{self, CheckpointWriter, Retention};
use crate::error::{Error, Result};
use crate::parallel::Replica;
use crate::parallel::session::{every, lead};
use crate::parallel::signs::{Sign, Signs};

/// A checkpoint that is in place.
#[derive(Debug)]
pub struct Saved {
    pub step: u64,
    /// What it took in the background.
    pub writing: Duration,
    /// Why `best` does not name it, or why earlier ones could not be removed.
    pub tidying: Result<()>,
}

/// Writes a run's checkpoints, at most one at a time.
pub struct Saver {
    run_dir: PathBuf,
    description: Arc<Description>,
    share: Arc<Share>,
    retention: Retention,
    outstanding: Option<Outstanding>,
    /// The step of the newest checkpoint that is in place; 0 before the first one.
    saved: u64,
}

/// The checkpoint that is being written.
struct Outstanding {
    step: u64,
    begun: Instant,
    is_best: bool,
    phase: Phase,
}

enum Phase {
    /// This rank's files, one of several ranks' parts.
    Writing(Writing),
    /// The first rank (one that is alone: from the start) does the rest; the others have nothing left to do.
    Committing(Option<Commit>),
}

/// Comes to an error where the checkpoint is not in place, else to what came of the tidying.
type Commit = JoinHandle<Result<Result<()>>>;

struct Writing {
    /// The writer comes back in any case: what it has begun may be removed only once no rank writes there any more.
    thread: JoinHandle<(Result<()>, CheckpointWriter)>,
    sign: Arc<AtomicU8>,
}

const UNDECIDED: u8 = 0;
const WRITTEN: u8 = 1;
const NOT_WRITTEN: u8 = 2;

impl Saver {
    /// `saved`: the step of the checkpoint that the run goes on from.
    pub fn new(run_dir: &Path, description: Description, share: Share, retention: Retention, saved: u64) -> Self {
        let (description, share) = (Arc::new(description), Arc::new(share));
        Self { run_dir: run_dir.to_path_buf(), description, share, retention, outstanding: None, saved }
    }

    /// The step of the newest checkpoint that is in place or being written; 0 before the first one.
    pub fn newest(&self) -> u64 {
        self.outstanding.as_ref().map_or(self.saved, |outstanding| outstanding.step)
    }

    /// Starts to write a checkpoint; nothing may be outstanding. All ranks call it.
    ///
    /// # Errors
    /// It cannot be begun, on any rank: nothing of it is left.
    pub fn begin(&mut self, snapshot: Snapshot, loop_state: LoopState, replica: &Replica) -> Result<()> {
        debug_assert!(self.outstanding.is_none());
        let group = &*replica.group;
        let step = snapshot.step;
        let mut writer = CheckpointWriter::join(&self.run_dir, step);
        lead(group, || {
            writer = CheckpointWriter::begin(&self.run_dir, step)?;
            Ok(())
        })?;
        let is_best = loop_state.best.is_some_and(|best| best.step == step);
        let (description, share) = (self.description.clone(), self.share.clone());
        let write = move |writer: &CheckpointWriter| description.write(writer, &snapshot, &loop_state, &share);
        let phase = if replica.is_alone() {
            let commit = self.commit(step, is_best);
            Phase::Committing(Some(start(move || write(&writer).and_then(|()| commit(writer)))?))
        } else {
            let sign = Arc::new(AtomicU8::new(UNDECIDED));
            let told = sign.clone();
            let thread = start(move || {
                // A panic must not leave the sign undecided for ever.
                let work = std::panic::AssertUnwindSafe(|| write(&writer));
                let written = std::panic::catch_unwind(work).unwrap_or_else(|_| Err(broken_down(step)));
                told.store(if written.is_ok() { WRITTEN } else { NOT_WRITTEN }, Ordering::Release);
                (written, writer)
            });
            Phase::Writing(Writing { thread: every(group, thread)?, sign })
        };
        self.outstanding = Some(Outstanding { step, begun: Instant::now(), is_best, phase });
        Ok(())
    }

    /// What this rank has to tell the others.
    pub fn sign(&self) -> Option<Sign> {
        let Phase::Writing(writing) = &self.outstanding.as_ref()?.phase else { return None };
        match writing.sign.load(Ordering::Acquire) {
            WRITTEN => Some(Sign::Written),
            NOT_WRITTEN => Some(Sign::NotWritten),
            _ => None,
        }
    }

    /// Takes an outstanding checkpoint as far as it can be taken without waiting, after all ranks have told `signs`. All
    /// ranks call it. Returns a checkpoint that has come into place, on the first rank.
    ///
    /// # Errors
    /// It could not be written, on every rank, or not be put in place, on the first: nothing of it is left, the one before
    /// is intact, and the run may go on.
    pub fn poll(&mut self, signs: &Signs, replica: &Replica) -> Result<Option<Saved>> {
        let Some(Outstanding { step, begun, is_best, phase }) = self.outstanding.take() else { return Ok(None) };
        let phase = match phase {
            Phase::Writing(writing)
                if signs.any(Sign::NotWritten) || signs.all(Sign::Written, replica.group.size()) =>
            {
                Phase::Committing(self.written(writing, step, is_best, replica)?)
            }
            Phase::Committing(thread) if thread.as_ref().is_none_or(JoinHandle::is_finished) => {
                return self.committed(step, begun, thread);
            }
            phase => phase,
        };
        self.outstanding = Some(Outstanding { step, begun, is_best, phase });
        Ok(None)
    }

    /// Waits until nothing is outstanding. All ranks call it.
    ///
    /// # Errors
    /// As `poll`, on every rank.
    pub fn settle(&mut self, replica: &Replica) -> Result<Option<Saved>> {
        let waiting = match self.outstanding.take() {
            Some(Outstanding { step, begun, is_best, phase: Phase::Writing(writing) }) => {
                Some((step, begun, self.written(writing, step, is_best, replica)?))
            }
            Some(Outstanding { step, begun, phase: Phase::Committing(thread), .. }) => Some((step, begun, thread)),
            None => None,
        };
        let mut done = None;
        // Only the first rank knows whether a checkpoint has come into place.
        self.saved = lead(&*replica.group, || {
            if let Some((step, begun, thread)) = waiting {
                done = self.committed(step, begun, thread)?;
            }
            Ok(self.saved)
        })?;
        Ok(done)
    }

    /// Once every rank has written: the first one starts on the rest.
    fn written(&self, writing: Writing, step: u64, is_best: bool, replica: &Replica) -> Result<Option<Commit>> {
        let joined = writing.thread.join().map_err(|_| broken_down(step));
        let (written, writer) = match joined {
            Ok((written, writer)) => (written, Some(writer)),
            Err(error) => (Err(error), None),
        };
        every(&*replica.group, written)?;
        let commit = self.commit(step, is_best);
        writer.filter(|_| replica.is_first()).map(|writer| start(move || commit(writer))).transpose()
    }

    /// Puts a checkpoint whose files are written in place, and removes those that are no longer kept.
    fn commit(&self, step: u64, is_best: bool) -> impl FnOnce(CheckpointWriter) -> Result<Result<()>> + Send + 'static {
        let (run_dir, retention) = (self.run_dir.clone(), self.retention);
        let tidy = move || {
            if is_best {
                checkpoint::mark_best(&run_dir, step)?;
            }
            checkpoint::retain(&run_dir, &retention, training_hours).map(drop)
        };
        move |writer| writer.commit().map(|_| tidy())
    }

    fn committed(&mut self, step: u64, begun: Instant, thread: Option<Commit>) -> Result<Option<Saved>> {
        let tidying = thread.map(|thread| thread.join().unwrap_or_else(|_| Err(broken_down(step)))).transpose()?;
        self.saved = step;
        Ok(tidying.map(|tidying| Saved { step, writing: begun.elapsed(), tidying }))
    }
}

/// How long a checkpoint's run had trained; `None` where it does not tell.
fn training_hours(checkpoint: &Path) -> Option<f64> {
    LoopState::read(checkpoint).ok().map(|state| state.seconds / 3600.0)
}

fn broken_down(step: u64) -> Error {
    Error::failed(format!("writing the checkpoint of step {step} broke down; earlier ones are intact"))
}

fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(work);
    thread.map_err(|error| Error::failed(format!("cannot start a thread that writes a checkpoint: {error}")))
}

#[cfg(test)]
#[path = "saver_tests.rs"]
mod tests;
