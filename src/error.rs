//! The crate's one error type.

use std::fmt::{self, Write};
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong, in a sentence that says what was expected, what was found and what to do.
///
/// The variant decides the process's exit code: 2 for what the user gave us, 1 for what happened while running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Wrong usage, configuration or input data. Exit code 2.
    #[error("{}", OneLine(.0))]
    Input(String),
    /// A file that the user named is not what it should be. Exit code 2.
    #[error("{}: {}", OneLine(path.display()), OneLine(what))]
    File { path: PathBuf, what: String },
    /// The operating system refused something. Exit code 1 (2 where the user's own path does not exist).
    #[error("cannot {action} {}: {source}", OneLine(path.display()))]
    Io {
        /// A verb: "read", "write", "create".
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Training or evaluation could not go on. Exit code 1.
    #[error("{}", OneLine(.0))]
    Failed(String),
}

/// Shows text on one line. Messages quote names and values from files and the command line, and those may hold line breaks
/// or control codes that would write over the terminal: such characters are shown as in Rust, `\n` or `\u{1b}`.
pub(crate) struct OneLine<T>(pub T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaped(f), "{}", self.0)
    }
}

/// Shows the beginning of a value that a message quotes: a damaged file may hold one of any length.
pub(crate) struct Short<T>(pub T);

impl<T: fmt::Display> fmt::Display for Short<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHARACTERS: usize = 200;
        let text = self.0.to_string();
        match text.char_indices().nth(CHARACTERS) {
            None => f.write_str(&text),
            Some((end, _)) => write!(f, "{}... ({} bytes)", &text[..end], text.len()),
        }
    }
}

struct Escaped<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match is_plain(c) {
            true => self.0.write_char(c),
            false => write!(self.0, "{}", c.escape_default()),
        })
    }
}

/// Neither a control code, nor what ends a line or turns the direction of writing.
fn is_plain(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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

    /// As `io`, for a file that the user named to be read: one that is not there, or a folder, is wrong usage.
    pub fn input_file(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::NotFound => Self::file(path, "there is no such file"),
            io::ErrorKind::IsADirectory => Self::file(path, "is a folder: expected a file"),
            _ => Self::Io { action, path, source },
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_it_quotes() {
        let odd = "a\nb\u{1b}[2J\u{2028}c";
        let shown = r"a\nb\u{1b}[2J\u{2028}c";
        assert_eq!(Error::input(odd).to_string(), shown);
        assert_eq!(Error::failed(odd).to_string(), shown);
        assert_eq!(Error::file(odd, odd).to_string(), format!("{shown}: {shown}"));
        let io = Error::io("read", odd)(io::ErrorKind::NotFound.into()).to_string();
        assert!(io.starts_with(&format!("cannot read {shown}: ")), "{io}");
        assert_eq!(Error::input("été 東京 🚀").to_string(), "été 東京 🚀");
        let long = format!("é{}", "x".repeat(500));
        assert_eq!(Short(&long).to_string(), format!("é{}... (502 bytes)", "x".repeat(199)));
        assert_eq!(Short("short").to_string(), "short");
    }
}
