//! manifest.json: what a prepared data set holds and how it was made. Its presence says that the data set is whole.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::dataset::Split;
use crate::error::{Error, Result, Short};

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "trainer-dataset";
const VERSION: u32 = 1;

/// A prepared data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// `trainer-dataset`.
    pub format: String,
    pub version: u32,
    /// The version of the program that wrote it.
    pub trainer: String,
    pub tokenizer: TokenizerEntry,
    pub train: Part,
    pub val: Part,
    /// Documents without any text, which are left out.
    pub empty_documents: u64,
    /// Files in the folders read whose kind is not read.
    pub other_files: u64,
    /// Files, and records in files, that could not be read.
    pub skipped: Vec<Skipped>,
    pub options: Options,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerEntry {
    pub name: String,
    /// 16 hexadecimal digits.
    pub fingerprint: String,
    pub vocab_size: usize,
    pub end_of_text: u32,
}

/// One split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub documents: u64,
    /// Bytes of UTF-8 text.
    pub bytes: u64,
    /// End-of-text tokens included.
    pub tokens: u64,
    pub shards: Vec<ShardEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    pub file: String,
    pub tokens: u64,
    /// CRC-32 of the token bytes, 8 hexadecimal digits.
    pub crc32: String,
}

/// A file, or records of one kind in a file, that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    pub path: String,
    pub reason: String,
    /// Number of lines or rows; `None` where the reason is about the file, not about records in it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub records: Option<u64>,
    /// The first such line or row, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first: Option<u64>,
}

/// What the data set was asked to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    pub inputs: Vec<String>,
    pub val_fraction: f64,
    pub shard_tokens: u64,
    pub seed: u64,
    pub text_field: Option<String>,
}

impl Manifest {
    /// The two constants that mark a manifest of this version.
    pub fn mark() -> (String, u32) {
        (FORMAT.to_string(), VERSION)
    }

    pub fn part(&self, split: Split) -> &Part {
        match split {
            Split::Train => &self.train,
            Split::Val => &self.val,
        }
    }

    /// The manifest in `dir`; `None` where there is no such file.
    ///
    /// # Errors
    /// A file of that name that is not a manifest of ours, or one of another version.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Mark {
            format: String,
            version: u32,
        }
        let path = dir.join(MANIFEST);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let refuse = |error: serde_json::Error| {
            Error::file(
                &path,
                format!("expected the manifest of a prepared data set, but it does not parse: {}", Short(error)),
            )
        };
        let mark: Mark = serde_json::from_slice(&text).map_err(refuse)?;
        if (mark.format.as_str(), mark.version) != (FORMAT, VERSION) {
            return Err(Error::file(
                &path,
                format!(
                    "expected format {FORMAT} version {VERSION}, found {} version {}: prepare the data with this version of \
                     trainer",
                    Short(mark.format),
                    mark.version
                ),
            ));
        }
        let manifest: Self = serde_json::from_slice(&text).map_err(refuse)?;
        // A name only: a manifest must not reach out of its directory.
        let mut files = manifest.train.shards.iter().chain(&manifest.val.shards).map(|entry| entry.file.as_str());
        match files.find(|name| name.is_empty() || name.contains(['/', '\\']) || *name == "..") {
            Some(odd) => {
                Err(Error::file(&path, format!("lists the shard \"{}\": expected a file beside it", Short(odd))))
            }
            None => Ok(Some(manifest)),
        }
    }

    /// Writes the manifest into `dir` and syncs it.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(MANIFEST);
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::failed(format!("cannot write {}: {error}", path.display())))?;
        let write = || {
            use std::io::Write;
            let mut file = fs::File::create(&path)?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()
        };
        write().map_err(Error::io("write", &path))
    }
}
