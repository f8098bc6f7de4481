//! Units of work: made by one reading thread, turned into documents by any number of workers.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Format, NOT_UTF8, Skip, Source, TextField, json_lines, large_text, parquet_column};

/// A unit of small files holds about this many bytes, at most this many files.
const FILES_BYTES: u64 = 1 << 19;
const FILES_MAX: usize = 256;

/// A piece of work. `source_bytes` in each is what it accounts for of the corpus's size on disk.
pub enum Unit {
    /// Whole text files, not read yet.
    Files { files: Vec<PathBuf>, source_bytes: u64 },
    /// A range of one large text file, not read yet.
    Range { path: PathBuf, start: u64, end: u64, last: bool, hash: u64 },
    /// Whole lines of a JSON-lines file.
    Lines { path: PathBuf, block: json_lines::Block },
    /// Values of a Parquet file.
    Rows { path: PathBuf, batch: parquet_column::Batch },
    /// A file, or the rest of one, that cannot be read.
    Unreadable(Skip),
}

/// A document, or a part of one.
pub struct Fragment<'a> {
    pub text: &'a str,
    /// A hash of the whole document's text: equal documents have equal hashes, on every machine.
    pub hash: u64,
    /// Whether the document ends with this fragment.
    pub last: bool,
}

/// Whoever takes the units wants no more of them.
#[derive(Debug)]
pub struct Stopped;

/// Makes the units of `sources`, in order.
///
/// # Errors
/// [`Stopped`] as soon as `emit` says so.
pub fn read_units(
    sources: &[Source],
    field: &TextField,
    mut emit: impl FnMut(Unit) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let (mut files, mut source_bytes) = (Vec::new(), 0);
    for Source { path, bytes, format } in sources {
        let small = *format == Format::Text && *bytes <= large_text::LARGE;
        let full = source_bytes >= FILES_BYTES || files.len() >= FILES_MAX;
        if (full || !small) && !files.is_empty() {
            emit(Unit::Files { files: std::mem::take(&mut files), source_bytes: std::mem::take(&mut source_bytes) })?;
        }
        let outcome = match format {
            Format::Text if small => {
                files.push(path.clone());
                source_bytes += bytes;
                Ok(())
            }
            Format::Text => large_file(path, &mut emit)?,
            Format::JsonLines(compression) => {
                json_lines::blocks(path, *compression, |block| emit(Unit::Lines { path: path.clone(), block }))?
            }
            Format::Parquet => {
                parquet_column::batches(path, *bytes, field, |batch| emit(Unit::Rows { path: path.clone(), batch }))?
            }
        };
        if let Err(reason) = outcome {
            emit(Unit::Unreadable(Skip { path: path.clone(), reason, record: None }))?;
        }
    }
    if files.is_empty() { Ok(()) } else { emit(Unit::Files { files, source_bytes }) }
}

fn large_file(path: &Path, emit: &mut impl FnMut(Unit) -> Result<(), Stopped>) -> Result<Result<(), String>, Stopped> {
    let cuts = match large_text::cuts(path) {
        Ok(cuts) => cuts,
        Err(reason) => return Ok(Err(reason)),
    };
    let total = cuts.ends.last().copied().unwrap_or(0);
    let mut start = 0;
    for end in cuts.ends {
        let hash = document_hash(cuts.crc32, total);
        emit(Unit::Range { path: path.to_path_buf(), start, end, last: end == total, hash })?;
        start = end;
    }
    Ok(Ok(()))
}

/// A document's hash, of its length and the CRC-32 of its bytes: computed at gigabytes a second, also over a stream.
fn document_hash(crc32: u32, length: u64) -> u64 {
    u64::from(crc32) | length << 32
}

fn fragment(text: &str) -> Fragment<'_> {
    Fragment { text, hash: document_hash(crc32fast::hash(text.as_bytes()), text.len() as u64), last: true }
}

/// A byte-order mark says how a file is encoded, and is none of its text.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

impl Unit {
    /// Bytes of the corpus's size on disk that this unit accounts for.
    pub fn source_bytes(&self) -> u64 {
        match self {
            Self::Files { source_bytes, .. } => *source_bytes,
            Self::Range { start, end, .. } => end - start,
            Self::Lines { block, .. } => block.source_bytes,
            Self::Rows { batch, .. } => batch.source_bytes,
            Self::Unreadable(_) => 0,
        }
    }

    /// Reads and parses what the unit names: `each` gets every document or fragment, `skip` what cannot be read.
    ///
    /// # Errors
    /// `each`'s own; or that a large file, which was read once before, has changed meanwhile.
    pub fn for_each<E: From<io::Error>>(
        self,
        field: &TextField,
        mut each: impl FnMut(Fragment) -> Result<(), E>,
        mut skip: impl FnMut(Skip),
    ) -> Result<(), E> {
        match self {
            Self::Files { files, .. } => {
                for path in files {
                    match fs::read(&path).map(String::from_utf8) {
                        Ok(Ok(text)) => each(fragment(without_mark(&text)))?,
                        Ok(Err(_)) => skip(Skip { path, reason: NOT_UTF8.to_string(), record: None }),
                        Err(error) => skip(Skip { path, reason: format!("cannot be read: {error}"), record: None }),
                    }
                }
            }
            Self::Range { path, start, end, last, hash } => {
                let text = read_range(&path, start, end)?;
                let text = if start == 0 { without_mark(&text) } else { text.as_str() };
                each(Fragment { text, hash, last })?;
            }
            Self::Lines { path, block } => {
                for (number, line) in (block.first_line..).zip(block.lines.split(|&byte| byte == b'\n')) {
                    match json_lines::text_of(line, field) {
                        Ok(Some(text)) => each(fragment(&text))?,
                        Ok(None) => {}
                        Err(reason) => skip(Skip { path: path.clone(), reason, record: Some(number) }),
                    }
                }
            }
            Self::Rows { path, batch } => {
                for text in &batch.texts {
                    each(fragment(text))?;
                }
                for (row, reason) in batch.skipped {
                    skip(Skip { path: path.clone(), reason, record: Some(row) });
                }
            }
            Self::Unreadable(unreadable) => skip(unreadable),
        }
        Ok(())
    }
}

fn read_range(path: &Path, start: u64, end: u64) -> io::Result<String> {
    let read = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![0; (end - start) as usize];
        file.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| io::Error::other("it is no longer UTF-8"))
    };
    read().map_err(|error: io::Error| {
        io::Error::new(error.kind(), format!("{} changed while it was being read: {error}", path.display()))
    })
}
