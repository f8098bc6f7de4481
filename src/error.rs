//! The crate's one error type.

use std::io;
use std::path::{Path, PathBuf};

/// What went wrong, in a sentence that says what was expected, what was found and what to do.
///
/// The variant decides the process's exit code: 2 for what the user gave us, 1 for what happened while running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Wrong usage, configuration or input data. Exit code 2.
    #[error("{0}")]
    Input(String),
    /// A file that the user named is not what it should be. Exit code 2.
    #[error("{}: {what}", path.display())]
    File { path: PathBuf, what: String },
    /// The operating system refused something. Exit code 1 (2 where the user's own path does not exist).
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// A verb: "read", "write", "create".
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Training or evaluation could not go on. Exit code 1.
    #[error("{0}")]
    Failed(String),
}

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn input(message: impl Into<String>) -> Self {
        Self::Input(message.into())
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    pub fn file(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().to_path_buf(), what: what.into() }
    }

    /// For `map_err`: `fs::read(&path).map_err(Error::io("read", &path))`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_) | Self::File { .. } => 2,
            Self::Io { action: "read" | "open", source, .. } if source.kind() == io::ErrorKind::NotFound => 2,
            Self::Io { .. } | Self::Failed(_) => 1,
        }
    }
}
