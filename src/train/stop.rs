//! Ctrl-C and SIGTERM: the first asks the run to finish its step, save and exit; a second one exits at once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static INSTALLED: OnceLock<std::result::Result<(), String>> = OnceLock::new();

/// Exit code of a run that was stopped by a second signal, as shells report SIGINT.
const INTERRUPTED: i32 = 130;

/// Starts to listen. May be called more than once.
pub fn listen() -> Result<()> {
    let installed = INSTALLED.get_or_init(|| {
        ctrlc::set_handler(|| {
            if REQUESTED.swap(true, Ordering::SeqCst) {
                std::process::exit(INTERRUPTED);
            }
            crate::report::voice::say("\nstopping after this step; once more to stop at once");
        })
        .map_err(|error| error.to_string())
    });
    installed.clone().map_err(|error| Error::failed(format!("cannot listen for Ctrl-C: {error}")))
}

/// Whether a signal has come.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
