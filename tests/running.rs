//! A trainer that runs while a test does something to it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::Place;

/// No test waits longer than this for a moment to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running trainer; what it says goes to a file.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    pub fn start(place: &Place, command: &mut Command) -> Self {
        let log = place.path("stderr.txt");
        let child = command.stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        Self { child, log }
    }

    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for a moment; false if the process ended before it came.
    #[track_caller]
    pub fn wait_for(&mut self, moment: impl Fn(&Self) -> bool) -> bool {
        let started = Instant::now();
        while !moment(self) {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(started.elapsed() < PATIENCE, "the moment did not come: {}", self.said());
            std::thread::sleep(Duration::from_micros(200));
        }
        true
    }

    /// Kills it as `kill -9` does; true if that found it alive. A process that ended by itself must have done so in peace.
    #[track_caller]
    pub fn kill(mut self) -> bool {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        let said = self.said();
        assert!(!said.contains("error") && !said.contains("panicked"), "{status}: {said}");
        !status.success()
    }

    /// Waits for its end.
    pub fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.said())
    }
}

#[cfg(unix)]
pub fn send(running: &Running, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(running.child.id() as i32), signal).unwrap();
}
