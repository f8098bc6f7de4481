//! What a program may use, and how it ended.

use std::fmt;
use std::time::Duration;

/// What a program may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time from the program's first line (the interpreter has started by then) to its end. All platforms.
    pub wall: Duration,
    /// CPU time of a process, whole seconds. Unix.
    pub cpu_seconds: u64,
    /// Address space of a process. Unix but macOS, whose kernel refuses it.
    pub memory_bytes: u64,
    /// Standard output and standard error together. All platforms.
    pub output_bytes: u64,
    /// Largest file that it may write. Unix.
    pub file_bytes: u64,
    /// All of its folder. All platforms; where namespaces are not in force, what is above it for some milliseconds stays unseen.
    pub folder_bytes: u64,
    /// Whether it may start processes. Threads it always may. See [`Layers`](super::Layers) for who enforces it.
    pub children: bool,
}

impl Default for Limits {
    /// Enough for an exercise: 5 s, 512 MiB, 1 MiB of output, 16 MiB a file, 64 MiB of files, no children.
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(5),
            cpu_seconds: 5,
            memory_bytes: 512 << 20,
            output_bytes: 1 << 20,
            file_bytes: 16 << 20,
            folder_bytes: 64 << 20,
            children: false,
        }
    }
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It ran to its last line without an exception.
    Passed,
    /// It raised an exception, left early, or was killed by a signal.
    Failed(Failure),
    /// It was still running at the limit of wall or CPU time.
    TimedOut,
    /// It wrote more than the limit to standard output and standard error.
    TooMuchOutput,
}

/// What a program failed of. Its text is "AssertionError: sums", without control characters, which could be meant for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The type of the exception that ended it; `None` where none did.
    pub exception: Option<String>,
    /// The exception's message as it is, of 1000 characters at most, or a sentence on how the program ended.
    pub message: String,
}

impl Failure {
    pub(super) fn without_exception(message: impl Into<String>) -> Self {
        Self { exception: None, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (&self.exception, self.message.as_str()) {
            (None, message) => message.to_string(),
            (Some(exception), "") => exception.clone(),
            (Some(exception), message) => format!("{exception}: {message}"),
        };
        let shown: String = text.chars().filter(|c| !c.is_control()).collect();
        f.write_str(shown.trim())
    }
}
