//! One split of a data set: a row of memory-mapped shards that reads as one array of tokens.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::manifest::{MANIFEST, Manifest, ShardEntry};
use super::sampler::mix;
use super::shard::{ShardMeta, TokenShard};
use crate::error::{Error, Result, Short};

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    Train,
    Val,
}

impl Split {
    /// `train` or `val`, as file names have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
        }
    }
}

/// The tokens of one split.
pub struct Dataset {
    storage: Storage,
    tokens: u64,
    /// Where it came from, for messages.
    source: PathBuf,
    meta: Option<ShardMeta>,
}

enum Storage {
    /// Shards, and the position of each one's first token.
    Shards(Vec<TokenShard>, Vec<u64>),
    Memory(Vec<u16>),
}

impl Dataset {
    /// Opens `path`: a directory that `trainer prepare` wrote, a directory of llm.c shards with `train` or `val` in their
    /// names, or one shard (which is then the whole split).
    ///
    /// # Errors
    /// Nothing there, a damaged shard, a split without tokens, shards of different tokenizers; `Error::Failed` for a shard
    /// that the manifest lists and that is missing.
    pub fn open(path: &Path, split: Split) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::file(path, "there is no such file or folder: name what `trainer prepare` wrote")
            }
            _ => Error::io("open", path)(error),
        })?;
        if !metadata.is_dir() {
            return Self::from_shards(path, vec![TokenShard::open(path)?]);
        }
        let shards = match Manifest::read(path)? {
            Some(manifest) => shards_of_manifest(path, &manifest, split)?,
            None => shards_by_name(path, split)?,
        };
        Self::from_shards(path, shards)
    }

    /// A data set in memory, for a corpus that the program makes itself. `vocab_size`: ids are below it, if known.
    ///
    /// # Errors
    /// An id that is not below `vocab_size`.
    pub fn from_tokens(tokens: Vec<u16>, vocab_size: Option<usize>) -> Result<Self> {
        let source = PathBuf::from("the built-in corpus");
        let dataset = Self { tokens: tokens.len() as u64, storage: Storage::Memory(tokens), source, meta: None };
        if let Some(vocab_size) = vocab_size {
            dataset.check_vocab(vocab_size)?;
        }
        Ok(dataset)
    }

    fn from_shards(source: &Path, shards: Vec<TokenShard>) -> Result<Self> {
        let meta = shards.first().and_then(TokenShard::meta);
        if let Some(other) = shards.iter().find(|shard| shard.meta() != meta) {
            return Err(Error::file(
                other.path(),
                format!(
                    "was made with another tokenizer than {}: the shards of a split must come from one `trainer prepare`",
                    shards[0].path().display()
                ),
            ));
        }
        let mut tokens = 0;
        let starts = shards
            .iter()
            .map(|shard| {
                let start = tokens;
                tokens += shard.tokens();
                start
            })
            .collect();
        if tokens == 0 {
            return Err(Error::file(source, "holds no tokens: prepare it from more text"));
        }
        Ok(Self { storage: Storage::Shards(shards, starts), tokens, source: source.to_path_buf(), meta })
    }

    /// Number of tokens of the split.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Ids are below this, where the shards say so.
    pub fn vocab_size(&self) -> Option<usize> {
        self.meta.map(|meta| meta.vocab_size as usize)
    }

    /// `Tokenizer::fingerprint` of the tokenizer that made the ids, where the shards say so.
    pub fn tokenizer_fingerprint(&self) -> Option<u64> {
        self.meta.map(|meta| meta.tokenizer)
    }

    /// The id that ends each document, where the shards say so.
    pub fn end_of_text(&self) -> Option<u32> {
        self.meta.map(|meta| meta.end_of_text)
    }

    /// Copies tokens `start..start + out.len()` into `out`, across the borders of shards.
    ///
    /// # Errors
    /// A range past the end.
    pub fn read(&self, start: u64, out: &mut [u16]) -> Result<()> {
        let end = start.checked_add(out.len() as u64).filter(|&end| end <= self.tokens).ok_or_else(|| {
            Error::failed(format!(
                "{}: expected to read {} tokens at {start}, but it holds {}: the data set is not the one that the run \
                 started with",
                self.source.display(),
                out.len(),
                self.tokens
            ))
        })?;
        match &self.storage {
            Storage::Memory(tokens) => out.copy_from_slice(&tokens[start as usize..end as usize]),
            Storage::Shards(shards, starts) => {
                let (mut rest, mut at) = (out, start);
                let mut index = starts.partition_point(|&first| first <= start).saturating_sub(1);
                while !rest.is_empty() {
                    let offset = at - starts[index];
                    let here = rest.len().min((shards[index].tokens() - offset) as usize);
                    let (now, later) = std::mem::take(&mut rest).split_at_mut(here);
                    shards[index].read(offset, now);
                    (rest, at, index) = (later, at + here as u64, index + 1);
                }
            }
        }
        Ok(())
    }

    /// A hash that tells one data set from another, so that a resumed run can refuse other data: over the shards' headers
    /// (which hold checksums) and both ends of their tokens. It does not read the data whole; [`Dataset::verify`] does.
    pub fn fingerprint(&self) -> u64 {
        let fold = |hash: u64, bytes: &[u8]| mix(hash ^ u64::from(crc32fast::hash(bytes)) ^ (bytes.len() as u64) << 32);
        match &self.storage {
            Storage::Memory(tokens) => tokens.chunks(1 << 16).fold(mix(self.tokens), |hash, chunk| {
                fold(hash, &chunk.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>())
            }),
            Storage::Shards(shards, _) => shards.iter().fold(mix(self.tokens), |hash, shard| {
                let (header, first, last) = shard.identity();
                fold(fold(fold(hash, header), first), last)
            }),
        }
    }

    /// Checks that every id is below `vocab`, the vocabulary of a model that is still to be made. Shards of ours say so in
    /// their header; others are read.
    ///
    /// # Errors
    /// An id, or a vocabulary, that the model would not have.
    pub fn check_vocab(&self, vocab: usize) -> Result<()> {
        self.check_ids(vocab, |needed| {
            format!("set model.vocab to at least {needed}, or prepare the data with another tokenizer")
        })
    }

    /// As `check_vocab`, of a model that is made already: its vocabulary is what it is.
    ///
    /// # Errors
    /// An id, or a vocabulary, that the model does not have.
    pub fn check_vocab_of_trained(&self, vocab: usize) -> Result<()> {
        self.check_ids(vocab, |_| {
            "prepare the data with the model's own tokenizer (`trainer prepare --tokenizer MODEL/tokenizer.json`)"
                .into()
        })
    }

    /// `advice`: what to do where the data needs this many ids, and the model has fewer.
    fn check_ids(&self, vocab: usize, advice: impl FnOnce(usize) -> String) -> Result<()> {
        let own = self.vocab_size();
        let needed = own.unwrap_or_else(|| usize::from(self.highest_id()) + 1);
        if needed <= vocab {
            return Ok(());
        }
        let what = match own {
            Some(own) => format!("was prepared with a vocabulary of {own} ids, but the model has {vocab}"),
            None => format!("holds token id {}, but the model's vocabulary has only {vocab} ids", needed - 1),
        };
        Err(Error::file(&self.source, format!("{what}: {}", advice(needed))))
    }

    /// The highest id in the data. Reads all of it.
    pub fn highest_id(&self) -> u16 {
        match &self.storage {
            Storage::Memory(tokens) => tokens.iter().copied().max().unwrap_or(0),
            Storage::Shards(shards, _) => shards
                .par_iter()
                .flat_map(|shard| shard.bytes().par_chunks(1 << 20))
                .map(|chunk| chunk.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).max().unwrap_or(0))
                .max()
                .unwrap_or(0),
        }
    }

    /// Reads every shard and compares it with its checksum, where it has one, on all cores.
    ///
    /// # Errors
    /// A damaged shard, by name.
    pub fn verify(&self) -> Result<()> {
        match &self.storage {
            Storage::Memory(_) => Ok(()),
            Storage::Shards(shards, _) => shards.par_iter().try_for_each(TokenShard::verify),
        }
    }

    /// As `verify`, on this thread alone: the others train. Once `cancelled` is set, no further shard is read.
    ///
    /// # Errors
    /// As `verify`.
    pub fn verify_quietly(&self, cancelled: &AtomicBool) -> Result<()> {
        match &self.storage {
            Storage::Memory(_) => Ok(()),
            Storage::Shards(shards, _) => {
                shards.iter().take_while(|_| !cancelled.load(Ordering::Relaxed)).try_for_each(TokenShard::verify)
            }
        }
    }
}

/// The shards that the manifest lists, each one there and as long as the manifest says.
fn shards_of_manifest(dir: &Path, manifest: &Manifest, split: Split) -> Result<Vec<TokenShard>> {
    let part = manifest.part(split);
    if part.shards.is_empty() {
        return Err(Error::file(
            dir,
            match split {
                Split::Train => "has no training tokens: prepare it from more text".to_string(),
                Split::Val => "has no validation part: run `trainer prepare` again with at least two documents and \
                               --val-fraction above 0, or train with --set validation.every=0"
                    .to_string(),
            },
        ));
    }
    let open = |entry: &ShardEntry| match open_listed(dir, entry) {
        // What was there once has gone: nothing that was given is wrong.
        Err(error) if !dir.join(&entry.file).exists() => Err(Error::failed(error.to_string())),
        opened => opened,
    };
    part.shards.iter().map(open).collect()
}

/// The shard that a manifest lists, known by its header to be that one and no other.
///
/// # Errors
/// No such file, a damaged header, or another shard under this name.
pub fn open_listed(dir: &Path, entry: &ShardEntry) -> Result<TokenShard> {
    let path = dir.join(&entry.file);
    if !path.exists() {
        return Err(Error::file(
            &path,
            format!("is missing, but {MANIFEST} lists it: copy it here or run `trainer prepare` again"),
        ));
    }
    let shard = TokenShard::open(&path)?;
    let expected = (entry.tokens, Some(entry.crc32.as_str()));
    let stored = shard.stored_crc32().map(|crc| format!("{crc:08x}"));
    if (shard.tokens(), stored.as_deref()) == expected {
        return Ok(shard);
    }
    Err(Error::file(
        &path,
        format!(
            "expected the shard that {MANIFEST} lists ({} tokens, CRC-32 {}), found another ({} tokens, CRC-32 {}): the \
             directory mixes two data sets; run `trainer prepare` again",
            entry.tokens,
            Short(&entry.crc32),
            shard.tokens(),
            stored.as_deref().unwrap_or("none")
        ),
    ))
}

/// Whether a file's name has a split's name as a word: between other signs than letters, digits behind it aside.
fn is_named(name: &str, split: Split) -> bool {
    let names: &[&str] = match split {
        Split::Train => &["train", "training"],
        Split::Val => &["val", "valid", "validation"],
    };
    let words = name.split(|c: char| !c.is_alphanumeric());
    words
        .map(|word| word.trim_end_matches(|c: char| c.is_ascii_digit()))
        .any(|word| names.iter().any(|name| word.eq_ignore_ascii_case(name)))
}

/// The .bin files with the split's name in theirs, in the order of their names.
fn shards_by_name(dir: &Path, split: Split) -> Result<Vec<TokenShard>> {
    let (mut paths, mut others) = (Vec::new(), false);
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let path = entry.map_err(Error::io("read", dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with(".bin") {
            continue;
        }
        match (is_named(&name, Split::Train), is_named(&name, Split::Val)) {
            (true, true) => {
                let what = "has both train and val in its name: rename it, so that it belongs to one of them";
                return Err(Error::file(&path, what));
            }
            (train, val) if train && split == Split::Train || val && split == Split::Val => paths.push(path),
            _ => others = true,
        }
    }
    if paths.is_empty() && others && split == Split::Val {
        return Err(Error::file(
            dir,
            "has no validation part: add .bin shards with val in their names, or train with --set validation.every=0",
        ));
    }
    if paths.is_empty() {
        return Err(Error::file(
            dir,
            format!(
                "expected a data set ({MANIFEST} from `trainer prepare`, or .bin shards with {} in their names), found \
                 neither",
                split.name()
            ),
        ));
    }
    paths.sort();
    let shards = paths.iter().map(|path| TokenShard::open(path)).collect::<Result<Vec<_>>>()?;
    // Ours come with a manifest, which is written last.
    if shards.iter().any(|shard| shard.meta().is_some()) {
        return Err(Error::file(
            dir,
            format!(
                "holds shards of `trainer prepare` without their {MANIFEST}: the data set is not whole; prepare it again"
            ),
        ));
    }
    Ok(shards)
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
mod tests;
