//! Every shard against its checksum, while training starts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

use super::input::TrainingData;
use crate::error::{Error, Result};

/// Data that is checked within this time is checked before anything is written; a few hundred megabytes are.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads the shards in a thread of its own. No checkpoint is made before it has finished.
pub struct DataCheck {
    result: Receiver<Result<()>>,
    done: bool,
    cancelled: Arc<AtomicBool>,
}

impl DataCheck {
    /// Starts, and waits a moment.
    ///
    /// # Errors
    /// A damaged shard, by name, where it is found in that time.
    pub fn start(data: &TrainingData) -> Result<Self> {
        let (sender, result) = channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let (train, val, cancel) = (data.train.clone(), data.val.clone(), cancelled.clone());
        let check = move || {
            let checked =
                train.verify_quietly(&cancel).and_then(|()| val.map_or(Ok(()), |val| val.verify_quietly(&cancel)));
            // Nobody listens any more where the run has ended.
            let _ = sender.send(checked);
        };
        let thread = std::thread::Builder::new().name("data check".into()).spawn(check);
        thread.map_err(|error| Error::failed(format!("cannot start a thread that checks the data: {error}")))?;
        let mut check = Self { result, done: false, cancelled };
        match check.result.recv_timeout(PATIENCE) {
            Ok(checked) => checked.map(|()| check.done = true)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(broken_down()),
        }
        Ok(check)
    }

    /// # Errors
    /// A damaged shard that was found by now.
    pub fn poll(&mut self) -> Result<()> {
        if self.done {
            return Ok(());
        }
        match self.result.try_recv() {
            Ok(checked) => checked.map(|()| self.done = true),
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => Err(broken_down()),
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// A damaged shard.
    pub fn settle(&mut self) -> Result<()> {
        if self.done {
            return Ok(());
        }
        self.result.recv().map_err(|_| broken_down())?.map(|()| self.done = true)
    }
}

impl Drop for DataCheck {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

fn broken_down() -> Error {
    Error::failed("the check of the data broke down; the message above says where")
}
