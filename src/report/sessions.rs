//! RUN/sessions.jsonl: a line when a process begins to train a run, and one when it ends. Only what people are shown
//! depends on it: on what the run was trained, and how it ended.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The name of the file in a run directory.
pub const FILE_NAME: &str = "sessions.jsonl";

/// The beginning of a session, written with its first step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// Seconds since 1970.
    pub started: f64,
    /// Steps made before it.
    pub step: u64,
    /// Of the program.
    pub version: String,
    /// "cpu: AMD EPYC (...)".
    pub device: String,
    pub ranks: usize,
    pub host: String,
    pub system: String,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Finished,
    /// By a signal, with everything saved.
    Stopped,
    Failed,
}

/// The end of a session. A process that is killed writes none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Seconds since 1970.
    pub ended: f64,
    /// Steps made.
    pub step: u64,
    pub outcome: Outcome,
    /// The error of a session that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Bytes: of the device as its allocator counts them, of the process on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
}

/// One process's part of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Session {
    #[serde(flatten)]
    pub start: Started,
    /// `None` while it lasts, and where it was killed.
    pub end: Option<Ended>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Ended(Ended),
    Started(Started),
}

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Writes a session's two lines. What cannot be written is left out: training does not need it.
#[derive(Debug)]
pub struct SessionLog {
    path: PathBuf,
    start: Started,
    begun: bool,
}

impl SessionLog {
    /// Writes nothing yet.
    pub fn new(run_dir: &Path, step: u64, device: &str, ranks: usize) -> Self {
        let start = Started {
            started: now().floor(),
            step,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: device.to_owned(),
            ranks,
            host: sysinfo::System::host_name().unwrap_or_default(),
            system: sysinfo::System::long_os_version().unwrap_or_default(),
        };
        Self { path: run_dir.join(FILE_NAME), start, begun: false }
    }

    /// To be called with every step: the first one writes the beginning.
    pub fn step(&mut self) {
        if !self.begun {
            self.begun = true;
            append(&self.path, &self.start);
        }
    }

    /// Writes the end of a session that made a step.
    pub fn end(&self, end: &Ended) {
        if self.begun {
            append(&self.path, end);
        }
    }
}

fn append(path: &Path, line: &impl Serialize) {
    let Ok(json) = serde_json::to_string(line) else { return };
    // The torn last line of an earlier process must not take this one with it.
    let torn = fs::read(path).is_ok_and(|bytes| bytes.last().is_some_and(|byte| *byte != b'\n'));
    let text = format!("{}{json}\n", if torn { "\n" } else { "" });
    let _ =
        OpenOptions::new().create(true).append(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
}

/// The sessions of a run, in order; none where nothing was recorded. A line that is no record is left out.
pub fn read(run_dir: &Path) -> Vec<Session> {
    let bytes = fs::read(run_dir.join(FILE_NAME)).unwrap_or_default();
    let mut sessions: Vec<Session> = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(Line::Started(start)) => sessions.push(Session { start, end: None }),
            Ok(Line::Ended(end)) => {
                if let Some(session) = sessions.last_mut() {
                    session.end.get_or_insert(end);
                }
            }
            Err(_) => {}
        }
    }
    sessions
}

/// Of a sessions file: its sessions, and the lines that a kill tore.
///
/// # Errors
/// The number, counted from 1, of the first line that is neither a record nor the beginning of one.
pub fn check(bytes: &[u8]) -> Result<(usize, usize), usize> {
    let (mut sessions, mut torn) = (0, 0);
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        match serde_json::from_slice(line) {
            Ok(Line::Started(_)) => sessions += 1,
            Ok(Line::Ended(_)) => {}
            Err(_) if line.is_empty() => {}
            // Of a torn line only the end is missing.
            Err(_) if is_cut(line) => torn += 1,
            Err(_) => return Err(number),
        }
    }
    Ok((sessions, torn))
}

fn is_cut(line: &[u8]) -> bool {
    line.starts_with(b"{") && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_err_and(|error| error.is_eof())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(outcome: Outcome) -> Ended {
        Ended { ended: now(), step: 5, outcome, message: None, peak_memory: Some(1 << 20) }
    }

    #[test]
    fn a_session_that_makes_no_step_leaves_nothing() {
        let run = tempfile::tempdir().unwrap();
        SessionLog::new(run.path(), 40, "cpu", 1).end(&end(Outcome::Finished));
        assert!(!run.path().join(FILE_NAME).exists());
        assert_eq!(read(run.path()), []);
    }

    #[test]
    fn sessions_read_back_also_after_one_that_was_killed() {
        let run = tempfile::tempdir().unwrap();
        let mut killed = SessionLog::new(run.path(), 0, "cpu: \"a\"\n", 1);
        killed.step();
        killed.step();
        let path = run.path().join(FILE_NAME);
        let torn = [&fs::read(&path).unwrap()[..], b"{\"ended\":17"].concat();
        fs::write(&path, torn).unwrap();
        let mut second = SessionLog::new(run.path(), 3, "cpu", 2);
        second.step();
        second.end(&end(Outcome::Stopped));
        let bytes = fs::read(&path).unwrap();
        assert_eq!(check(&bytes), Ok((2, 1)));
        assert_eq!(check(&[&bytes[..], b"{\"started\":1}\n"].concat()), Err(5));
        let sessions = read(run.path());
        assert_eq!(sessions.len(), 2);
        assert_eq!((&sessions[0].start, &sessions[0].end), (&killed.start, &None));
        assert_eq!(sessions[1].start.step, 3);
        assert_eq!(
            sessions[1].end.as_ref().map(|end| (end.outcome, end.peak_memory)),
            Some((Outcome::Stopped, Some(1 << 20)))
        );
    }
}
