//! Reads a corpus of source code and text as a stream of documents, with bounded memory.
//!
//! One thread walks the sources in order and hands out [`Unit`]s: pieces of work of about a megabyte that are cheap to
//! make (a list of small files, a block of JSON lines, a batch of Parquet values). Any number of workers turn units into
//! documents. Order is fixed by the units' order, so the result does not depend on the number of workers.

mod json_lines;
mod large_text;
mod parquet_column;
mod parquet_pages;
mod sources;
mod unit;

pub use sources::{Compression, Format, Found, Source, find};
pub use unit::{Fragment, Stopped, Unit, read_units};

/// What could not be read, and why. Nothing is left out of a corpus without one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    pub path: std::path::PathBuf,
    pub reason: String,
    /// The line or row, counted from 1; `None` if it is the file as a whole.
    pub record: Option<u64>,
}

/// The field or column of a record that holds its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextField(Vec<String>);

impl TextField {
    /// The named field, or the first present of `text`, `content` and `code`.
    pub fn new(name: Option<&str>) -> Self {
        Self(match name {
            Some(name) => vec![name.to_string()],
            None => ["text", "content", "code"].map(str::to_string).to_vec(),
        })
    }

    /// Candidates, best first.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// "field `text`, `content` or `code`", for messages.
    fn describe(&self) -> String {
        match self.0.as_slice() {
            [name] => format!("`{name}`"),
            names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or "),
        }
    }
}

const NOT_UTF8: &str = "not UTF-8";
