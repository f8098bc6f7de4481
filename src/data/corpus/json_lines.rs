//! JSON lines, plain or compressed: one object a line, with a text field.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{Compression, NOT_UTF8, TextField};

/// Blocks handed to workers are about this long.
const BLOCK: usize = 1 << 20;
/// The longest that zstd writes, with `--long=31`; a decoder refuses more than 27 unless it is told.
const LONGEST_WINDOW_LOG: u32 = 31;
/// A line, which has to be in memory whole, may be this long.
const LONGEST_LINE: usize = 1 << 30;

/// A number of whole lines.
pub struct Block {
    pub lines: Vec<u8>,
    /// Number of the first line, counted from 1.
    pub first_line: u64,
    /// Bytes of the file, compressed, that were read for it.
    pub source_bytes: u64,
}

/// Counts what is read from the file beneath a decompressor.
struct Counting<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Reads a file as blocks of whole lines. `emit` returns whether to go on; its error is passed through.
///
/// # Errors
/// In the inner result: the reason why the file cannot be read (to its end: the blocks before it were emitted).
pub fn blocks<E>(
    path: &Path,
    compression: Compression,
    mut emit: impl FnMut(Block) -> Result<(), E>,
) -> Result<Result<(), String>, E> {
    let bytes = Arc::new(AtomicU64::new(0));
    let mut reader = match open(path, compression, bytes.clone()) {
        Ok(reader) => reader,
        Err(error) => return Ok(Err(format!("cannot be read: {error}"))),
    };
    let (mut buffer, mut first_line, mut counted) = (Vec::new(), 1, 0);
    loop {
        let before = buffer.len();
        let outcome = reader.by_ref().take(BLOCK as u64).read_to_end(&mut buffer);
        let ended = !matches!(outcome, Ok(read) if read > 0);
        // After an error the last line may be cut: only the lines before it are whole.
        let whole = if outcome.is_ok() && ended {
            buffer.len()
        } else {
            // Only what is new can hold the last line break: the rest of the previous block has none.
            buffer[before..].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| before + at + 1)
        };
        if whole > 0 {
            let rest = buffer.split_off(whole);
            let lines = std::mem::replace(&mut buffer, rest);
            let count = lines.iter().filter(|&&byte| byte == b'\n').count() as u64;
            let total = bytes.load(Ordering::Relaxed);
            emit(Block { lines, first_line, source_bytes: total - counted })?;
            (first_line, counted) = (first_line + count, total);
        }
        match outcome {
            Err(error) => return Ok(Err(format!("cannot be read past line {}: {error}", first_line - 1))),
            Ok(_) if ended => return Ok(Ok(())),
            Ok(_) if buffer.len() > LONGEST_LINE => {
                return Ok(Err(format!("line {first_line} is longer than 1 GiB: not read from there on")));
            }
            Ok(_) => {}
        }
    }
}

fn open(path: &Path, compression: Compression, bytes: Arc<AtomicU64>) -> io::Result<Box<dyn Read>> {
    let file = BufReader::with_capacity(1 << 17, Counting { inner: File::open(path)?, bytes });
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(file)?;
            decoder.window_log_max(LONGEST_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

/// The text of one line; `Ok(None)` for a blank one.
///
/// # Errors
/// The reason why it has none.
pub fn text_of(line: &[u8], field: &TextField) -> Result<Option<String>, String> {
    let line = std::str::from_utf8(line).map_err(|_| NOT_UTF8.to_string())?.trim_start_matches('\u{feff}').trim();
    if line.is_empty() {
        return Ok(None);
    }
    let mut json = serde_json::Deserializer::from_str(line);
    let found = FindText(field).deserialize(&mut json).and_then(|found| json.end().map(|()| found));
    match found {
        // JSON of another kind; what serde says beyond that quotes the line, and reasons are counted by their words.
        Err(error) if error.is_data() => Err("not a JSON object".to_string()),
        Err(error) => {
            let why = error.to_string();
            Err(format!("not a JSON object: {}", why.split(" at line ").next().unwrap_or(&why)))
        }
        Ok(Found::Text(text)) => Ok(Some(text)),
        Ok(Found::NotText) => Err(format!("its field {} is not a string", field.describe())),
        Ok(Found::Nothing) => Err(format!("has no field {}", field.describe())),
    }
}

enum Found {
    Text(String),
    /// The field is there, but it is a number, a list, null, ...
    NotText,
    Nothing,
}

/// Reads an object's text field and passes over everything else without building it. Of several fields of one name the last
/// counts, as in Python.
struct FindText<'a>(&'a TextField);

impl<'de> DeserializeSeed<'de> for FindText<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FindText<'_> {
    type Value = Found;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let names = self.0.names();
        let mut values: Vec<Found> = names.iter().map(|_| Found::Nothing).collect();
        while let Some(key) = map.next_key::<String>()? {
            match names.iter().position(|name| *name == key) {
                Some(rank) => {
                    values[rank] = match map.next_value::<serde_json::Value>()? {
                        serde_json::Value::String(text) => Found::Text(text),
                        _ => Found::NotText,
                    };
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let none = values.iter().all(|value| matches!(value, Found::Nothing));
        let text = values.into_iter().find(|value| matches!(value, Found::Text(_)));
        Ok(text.unwrap_or(if none { Found::Nothing } else { Found::NotText }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &str, field: Option<&str>) -> Result<Option<String>, String> {
        text_of(line.as_bytes(), &TextField::new(field))
    }

    #[test]
    fn the_best_field_is_taken() {
        assert_eq!(text(r#"{"id":1,"code":"c","text":"t\u00e9\n","content":"d"}"#, None), Ok(Some("té\n".into())));
        assert_eq!(text(r#"{"meta":{"text":"no"},"content":"d","code":"c"}"#, None), Ok(Some("d".into())));
        assert_eq!(text(r#"{"text":null,"code":"c"}"#, None), Ok(Some("c".into())));
        assert_eq!(text(r#"{"body":"b","text":"t"}"#, Some("body")), Ok(Some("b".into())));
        assert_eq!(text("\u{feff}{\"text\":\"t\"} \r", None), Ok(Some("t".into())));
        assert_eq!(text("  ", None), Ok(None));
        assert_eq!(text(r#"{"text":"a","text":"b"}"#, None), Ok(Some("b".into())));
        assert_eq!(text(r#"{"text":"a","code":"c","text":null}"#, None), Ok(Some("c".into())));
    }

    #[test]
    fn every_line_without_text_says_why() {
        assert_eq!(text(r#"{"text":"#, None), Err("not a JSON object: EOF while parsing a value".into()));
        assert_eq!(text(r#"{"text":"a"} x"#, None), Err("not a JSON object: trailing characters".into()));
        for other in ["[1]", "\"text\"", "7"] {
            assert_eq!(text(other, None), Err("not a JSON object".into()));
        }
        assert_eq!(
            text(r#"{"text":[1]}"#, None),
            Err("its field `text` or `content` or `code` is not a string".into())
        );
        assert_eq!(text(r#"{"a":"b"}"#, Some("body")), Err("has no field `body`".into()));
        assert_eq!(text_of(b"{\"text\":\"\xff\"}", &TextField::new(None)), Err(NOT_UTF8.into()));
    }

    /// All lines, (first line, source bytes) of each block, and the outcome.
    type Read = (Vec<u8>, Vec<(u64, u64)>, Result<(), String>);

    fn read(path: &Path, compression: Compression) -> Read {
        let (mut all, mut blocks_read) = (Vec::new(), Vec::new());
        let outcome = blocks::<()>(path, compression, |block| {
            all.extend(block.lines);
            blocks_read.push((block.first_line, block.source_bytes));
            Ok(())
        });
        (all, blocks_read, outcome.unwrap())
    }

    #[test]
    fn blocks_hold_whole_lines_in_every_compression() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut text = Vec::new();
        for i in 0..60_000 {
            text.extend(format!("{{\"text\":\"line {i} {}\"}}\n", "x".repeat(i % 90)).bytes());
        }
        text.extend(b"{\"text\":\"no line break at the end\"}");
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let (first, second) = text.split_at(text.len() / 3);
            // Two members or frames after one another are one stream.
            let packed = [first, second].map(|part| match compression {
                Compression::None => part.to_vec(),
                Compression::Gzip => {
                    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    io::Write::write_all(&mut encoder, part).unwrap();
                    encoder.finish().unwrap()
                }
                Compression::Zstd => zstd::encode_all(part, 1).unwrap(),
            });
            std::fs::write(&path, packed.concat()).unwrap();
            let (all, parts, outcome) = read(&path, compression);
            assert_eq!(outcome, Ok(()));
            assert!(all == text, "{compression:?}");
            assert!(parts.len() > 2);
            assert_eq!(parts.iter().map(|(_, bytes)| bytes).sum::<u64>(), std::fs::metadata(&path).unwrap().len());
            let lines_before = |at: usize| 1 + text[..at].iter().filter(|&&b| b == b'\n').count() as u64;
            assert_eq!(parts[0].0, lines_before(0));
            assert!(parts.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }

    #[test]
    fn a_cut_file_gives_its_whole_lines_and_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let text: Vec<u8> =
            (0..200_000u32).flat_map(|i| format!("{}\n", i.wrapping_mul(2_654_435_761)).into_bytes()).collect();
        let packed = zstd::encode_all(text.as_slice(), 1).unwrap();
        std::fs::write(&path, &packed[..packed.len() / 2]).unwrap();
        let (all, _, outcome) = read(&path, Compression::Zstd);
        assert!(!all.is_empty() && text.starts_with(&all) && all.ends_with(b"\n"));
        assert!(outcome.unwrap_err().starts_with("cannot be read past line"));
    }
}
