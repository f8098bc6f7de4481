//! What a run says on stderr. Where several ranks train together the first one speaks; each may have a log of its own.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::error::{Error, Result};

struct Voice {
    aloud: bool,
    log: Option<Mutex<File>>,
}

static VOICE: OnceLock<Voice> = OnceLock::new();

/// To be called once, before anything is said, by each of several ranks. `log_dir`: also write to a file there.
///
/// # Errors
/// A log that cannot be created.
pub fn of_rank(rank: usize, log_dir: Option<&Path>) -> Result<()> {
    // Silent first: should the log fail, the other ranks say so too.
    let log = log_dir.map(|dir| {
        let path = dir.join(format!("rank-{rank:05}.log"));
        let create = std::fs::create_dir_all(dir).and_then(|()| File::create(&path));
        create.map(Mutex::new).map_err(Error::io("create", &path))
    });
    let (log, failed) = match log.transpose() {
        Ok(log) => (log, Ok(())),
        Err(error) => (None, Err(error)),
    };
    let _ = VOICE.set(Voice { aloud: rank == 0, log });
    failed
}

/// Whether what is said here reaches stderr.
pub fn is_aloud() -> bool {
    VOICE.get().is_none_or(|voice| voice.aloud)
}

/// Says a line.
pub fn say(line: &str) {
    if is_aloud() {
        eprintln!("{line}");
    }
    log(line);
}

/// Only to this rank's log.
pub fn log(line: &str) {
    if let Some(log) = VOICE.get().and_then(|voice| voice.log.as_ref()) {
        // A log that cannot be written must not end the training.
        let _ = writeln!(log.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
    }
}

/// Says that this process ends, whichever rank it is.
pub fn error(message: &str) {
    eprintln!("error: {message}");
    log(&format!("error: {message}"));
}
