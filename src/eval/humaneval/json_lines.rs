//! Files of one JSON object a line: read whole, or appended to by one process at a time.

use crate::error::{Error, Result, Short};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes of the longest line that is read. A line has to be in memory whole, and a small .gz can hold an endless one.
const LONGEST_LINE: u64 = 256 << 20;

/// The objects of a file, in order; blank lines are passed over. A name that ends with .gz is decompressed.
///
/// # Errors
/// A file that cannot be read, or the first line that is no `T`, by its number.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    read_with(path, LONGEST_LINE)
}

fn read_with<T: DeserializeOwned>(path: &Path, longest: u64) -> Result<Vec<T>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let gz = path.extension().is_some_and(|extension| extension == "gz");
    let decoded: Box<dyn Read> = if gz { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut objects = Vec::new();
    let mut reader = BufReader::with_capacity(1 << 17, decoded);
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = reader.by_ref().take(longest).read_until(b'\n', &mut line);
        let bad = |why: String| Error::file(path, format!("line {number} {why}"));
        match read {
            Err(error) => return Err(bad(format!("cannot be read: {error}"))),
            Ok(0) => break,
            Ok(bytes) if bytes as u64 == longest && !line.ends_with(b"\n") => {
                return Err(bad(format!("is longer than {longest} bytes: expected one JSON object a line")));
            }
            Ok(_) => {}
        }
        let text = std::str::from_utf8(&line).map_err(|_| bad("is not UTF-8: expected a JSON object".to_string()))?;
        if !text.trim().is_empty() {
            objects.push(parse(text).map_err(|why| Error::file(path, format!("line {number}: {why}")))?);
        }
    }
    Ok(objects)
}

fn parse<T: DeserializeOwned>(line: &str) -> std::result::Result<T, String> {
    serde_json::from_str(line).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            Short(error.to_string().split(" at line ").next().unwrap_or_default()).to_string()
        }
        _ => "expected a JSON object".to_string(),
    })
}

/// A file that lines are appended to, each in one write. Another process that opens it meanwhile is refused.
#[derive(Debug)]
pub struct Appender {
    file: File,
    path: PathBuf,
}

impl Appender {
    /// Opens or creates `path` and reads what it holds. A last line without its end, which a kill left, is cut off, but only when
    /// `check` has accepted the whole lines before it: a file that is something else stays as it is.
    ///
    /// # Errors
    /// A file in use, or one that holds a line that is no `T` or that `check` does not accept.
    pub fn open<T: DeserializeOwned>(path: &Path, check: impl FnOnce(&[T]) -> Result<()>) -> Result<(Self, Vec<T>)> {
        if path.extension().is_some_and(|extension| extension == "gz") {
            return Err(Error::file(
                path,
                "is appended to line by line, which compressed files are not: name it .jsonl",
            ));
        }
        let options = OpenOptions::new().create(true).truncate(false).read(true).append(true).open(path);
        let file = options.map_err(Error::io("create", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::failed(format!(
                    "{} is being written by another process: wait for it",
                    path.display()
                )));
            }
            // Some network file systems have no locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
        }
        // From here on a lock is let go by its own way (`drop`).
        let mut appender = Self { file, path: path.to_path_buf() };
        let mut bytes = Vec::new();
        appender.file.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let torn = &bytes[whole..];
        let not_ours = || Error::file(path, "holds something else than expected: choose another --out, or remove it");
        if !torn.is_empty() && torn[0] != b'{' {
            return Err(not_ours());
        }
        let text = std::str::from_utf8(&bytes[..whole]).map_err(|_| not_ours())?;
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let objects: Vec<T> = lines.map(|line| parse(line).map_err(|_| not_ours())).collect::<Result<_>>()?;
        check(&objects)?;
        if !torn.is_empty() {
            appender.file.set_len(whole as u64).map_err(Error::io("write", path))?;
        }
        Ok((appender, objects))
    }

    /// Appends one line.
    pub fn append(&mut self, object: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(object).map_err(|error| Error::failed(format!("JSON: {error}")))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(Error::io("write", &self.path))
    }
}

impl Drop for Appender {
    /// A process forked meanwhile holds the file open too until it becomes another program, and the lock with it: closing is not enough.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::fs;

    fn accept(_: &[Value]) -> Result<()> {
        Ok(())
    }

    #[test]
    fn a_torn_line_is_cut_and_whole_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines.jsonl");
        let (mut appender, found) = Appender::open(&path, accept).unwrap();
        assert!(found.is_empty());
        appender.append(&json!({ "a": "x\ny" })).unwrap();
        appender.append(&json!({ "a": 2 })).unwrap();
        assert!(Appender::open(&path, accept).unwrap_err().to_string().contains("another process"));
        drop(appender);
        let whole = fs::read(&path).unwrap();
        for cut in 1..9 {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let (mut appender, found) = Appender::open(&path, accept).unwrap();
            assert_eq!(found, [json!({ "a": "x\ny" })]);
            appender.append(&json!({ "a": 2 })).unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
        assert_eq!(read::<Value>(&path).unwrap().len(), 2);
    }

    #[test]
    fn a_foreign_file_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.jsonl");
        for text in ["my notes", "my notes\n", "{\"a\": 1}\nnotes", "[1]\n{\"", "\u{0}\n"] {
            fs::write(&path, text).unwrap();
            let refused = Appender::open::<std::collections::BTreeMap<String, u64>>(&path, |_| Ok(())).unwrap_err();
            assert_eq!(refused.exit_code(), 2);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, "{\"a\": 1}\n{\"a").unwrap();
        Appender::open::<Value>(&path, |_| Err(Error::input("no"))).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"a\": 1}\n{\"a");
        assert!(Appender::open(&dir.path().join("x.jsonl.gz"), accept).is_err());
    }

    #[test]
    fn reading_names_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines.jsonl");
        fs::write(&path, "{\"a\": 1}\n\n \n{\"a\": \n").unwrap();
        let message = read::<Value>(&path).unwrap_err().to_string();
        assert!(message.contains("line 4: expected a JSON object"), "{message}");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(b"{\"a\": 1}\n{\"a\": 2}\n").unwrap();
        let path = dir.path().join("lines.jsonl.gz");
        fs::write(&path, gz.finish().unwrap()).unwrap();
        assert_eq!(read::<Value>(&path).unwrap(), [json!({ "a": 1 }), json!({ "a": 2 })]);
        assert_eq!(read::<Value>(&dir.path().join("none")).unwrap_err().exit_code(), 2);
        assert_eq!(read_with::<Value>(&path, 9).unwrap().len(), 2);
        let message = read_with::<Value>(&path, 8).unwrap_err().to_string();
        assert!(message.contains("line 1 is longer than 8 bytes"), "{message}");
    }
}
