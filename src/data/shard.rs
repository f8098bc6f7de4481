//! Token shards: llm.c's version-1 container (karpathy/llm.c, dev/data/data_common.py, `write_datafile`).
//!
//! 256 little-endian 32-bit words of header, then the tokens as little-endian u16. llm.c reads words 0 to 2 (magic,
//! version, number of tokens) and leaves the rest zero; ours stand in words 8 to 15, behind a magic of their own, so that
//! llm.c and modded-nanogpt read our files and we read theirs.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::mapped::Mapped;

/// llm.c's magic number, word 0.
const MAGIC: u32 = 20_240_520;
/// llm.c's version with u16 tokens, word 1.
const VERSION: u32 = 1;
/// Version 2 of the container holds u32 tokens (Llama 3 in llm.c).
const VERSION_U32: u32 = 2;
const HEADER_WORDS: usize = 256;
const HEADER_BYTES: usize = HEADER_WORDS * 4;

/// Word 8: "TRNR", which says that words 9 to 15 are ours.
const OUR_MAGIC: u32 = u32::from_le_bytes(*b"TRNR");
/// Word 9: the layout of our words.
const OUR_LAYOUT: u32 = 1;
const OUR_WORDS: std::ops::Range<usize> = 8..16;

/// The token count is a signed 32-bit word in llm.c.
pub const MAX_SHARD_TOKENS: u64 = i32::MAX as u64;
/// Tokens are u16, so ids must be below this.
pub const MAX_VOCAB_SIZE: usize = 1 << 16;

/// What a shard of ours says about its tokens beyond llm.c's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardMeta {
    /// Ids are below this.
    pub vocab_size: u32,
    /// `Tokenizer::fingerprint` of the tokenizer that made the ids.
    pub tokenizer: u64,
    /// The id that ends each document.
    pub end_of_text: u32,
}

/// A finished shard's length and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    pub tokens: u64,
    /// CRC-32 (IEEE) of the token bytes.
    pub crc32: u32,
}

fn header(info: ShardInfo, meta: ShardMeta) -> [u8; HEADER_BYTES] {
    let mut words = [0u32; HEADER_WORDS];
    words[..3].copy_from_slice(&[MAGIC, VERSION, info.tokens as u32]);
    words[OUR_WORDS.start..OUR_WORDS.end - 1].copy_from_slice(&[
        OUR_MAGIC,
        OUR_LAYOUT,
        info.crc32,
        meta.vocab_size,
        meta.tokenizer as u32,
        (meta.tokenizer >> 32) as u32,
        meta.end_of_text,
    ]);
    let mut bytes = [0u8; HEADER_BYTES];
    for (chunk, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *chunk = word.to_le_bytes();
    }
    // The last of our words guards the header itself.
    let guarded = (OUR_WORDS.end - 1) * 4;
    let crc = crc32fast::hash(&bytes[..guarded]);
    bytes[guarded..guarded + 4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Whether a file that begins with these bytes is a token shard.
pub fn is_magic(start: [u8; 4]) -> bool {
    u32::from_le_bytes(start) == MAGIC
}

fn word(header: &[u8], index: usize) -> u32 {
    header[index * 4..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// A memory-mapped shard.
pub struct TokenShard {
    path: PathBuf,
    map: Mapped,
    tokens: u64,
    meta: Option<(ShardMeta, u32)>,
}

impl TokenShard {
    /// Maps a shard and checks its header and its length.
    ///
    /// # Errors
    /// No such file; not a shard; another version of the container; a length that does not match the header; a header
    /// that was damaged. Each names the file and says what was found.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        if length < HEADER_BYTES as u64 {
            return Err(Error::file(
                path,
                format!(
                    "expected a token shard (llm.c's format: {HEADER_BYTES} bytes of header, then tokens), found only \
                     {length} bytes: write it again, for example with `trainer prepare`"
                ),
            ));
        }
        let map = Mapped::new(&file, path).map_err(Error::io("map", path))?;
        let tokens = check_container(path, &map[..HEADER_BYTES], length)?;
        let meta = our_words(path, &map[..HEADER_BYTES])?;
        Ok(Self { path: path.to_path_buf(), map, tokens, meta })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of tokens.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// What we wrote about the tokens; `None` for a file of llm.c's.
    pub fn meta(&self) -> Option<ShardMeta> {
        self.meta.map(|(meta, _)| meta)
    }

    /// The checksum that the header holds; `None` for a file of llm.c's.
    pub fn stored_crc32(&self) -> Option<u32> {
        self.meta.map(|(_, crc)| crc)
    }

    /// The header and, since llm.c's has no checksum, both ends of the tokens: cheap to hash, different for different data.
    pub fn identity(&self) -> (&[u8], &[u8], &[u8]) {
        const SAMPLE: usize = 1 << 16;
        let (header, bytes) = self.map.split_at(HEADER_BYTES);
        let sample = bytes.len().min(SAMPLE);
        (header, &bytes[..sample], &bytes[bytes.len() - sample..])
    }

    /// The tokens as stored: little-endian u16.
    pub fn bytes(&self) -> &[u8] {
        &self.map[HEADER_BYTES..]
    }

    /// Copies tokens `start..start + out.len()` into `out`. The range must lie within the shard.
    pub fn read(&self, start: u64, out: &mut [u16]) {
        let first = start as usize * 2;
        let pairs = self.bytes()[first..first + out.len() * 2].as_chunks::<2>().0;
        for (token, pair) in out.iter_mut().zip(pairs) {
            *token = u16::from_le_bytes(*pair);
        }
    }

    /// Reads every token and compares the checksum with the header's. A file without one passes.
    pub fn verify(&self) -> Result<()> {
        let Some(stored) = self.stored_crc32() else { return Ok(()) };
        let found = crc32fast::hash(self.bytes());
        if found == stored {
            return Ok(());
        }
        Err(Error::file(
            &self.path,
            format!(
                "expected token bytes with CRC-32 {stored:08x}, found {found:08x}: the file was damaged after it was \
                 written; copy it again or run `trainer prepare` again"
            ),
        ))
    }
}

/// Checks llm.c's own words against the file's length; returns the number of tokens.
fn check_container(path: &Path, header: &[u8], length: u64) -> Result<u64> {
    let (magic, version, count) = (word(header, 0), word(header, 1), word(header, 2));
    if magic != MAGIC {
        return Err(Error::file(
            path,
            format!(
                "expected a token shard (magic {MAGIC}), found magic {magic}: this is some other kind of file; if it holds \
                 text, run `trainer prepare` on it first"
            ),
        ));
    }
    if version == VERSION_U32 {
        return Err(Error::file(
            path,
            "expected a version-1 shard (u16 tokens), found version 2 (u32 tokens, as llm.c writes for Llama 3): make it \
             with a vocabulary of at most 65536 ids",
        ));
    }
    if version != VERSION {
        return Err(Error::file(path, format!("expected shard version {VERSION}, found version {version}")));
    }
    if count > i32::MAX as u32 {
        return Err(Error::file(path, format!("its header says {} tokens: the header is damaged", count as i32)));
    }
    let expected = HEADER_BYTES as u64 + u64::from(count) * 2;
    if length != expected {
        let how = if length < expected { "is truncated" } else { "has trailing bytes" };
        return Err(Error::file(
            path,
            format!(
                "its header says {count} tokens, which is {expected} bytes, but the file has {length}: it {how}; copy it \
                 again or run `trainer prepare` again"
            ),
        ));
    }
    Ok(u64::from(count))
}

/// Our reserved words, where they are present.
fn our_words(path: &Path, header: &[u8]) -> Result<Option<(ShardMeta, u32)>> {
    let our = |offset: usize| word(header, OUR_WORDS.start + offset);
    let guarded = (OUR_WORDS.end - 1) * 4;
    let damaged = || {
        let what = "its header does not match the header's own checksum: the file was damaged; copy it again or run `trainer \
                    prepare` again";
        Err(Error::file(path, what))
    };
    if our(0) != OUR_MAGIC {
        // Another program's words, unless with our magic they were ours to the last bit.
        let mut ours = header[..guarded].to_vec();
        ours[OUR_WORDS.start * 4..][..4].copy_from_slice(&OUR_MAGIC.to_le_bytes());
        return if crc32fast::hash(&ours) == our(7) { damaged() } else { Ok(None) };
    }
    if crc32fast::hash(&header[..guarded]) != our(7) {
        return damaged();
    }
    if our(1) != OUR_LAYOUT {
        return Err(Error::file(
            path,
            format!(
                "expected layout {OUR_LAYOUT} of the shard header, found layout {}: a newer trainer wrote it; use that one",
                our(1)
            ),
        ));
    }
    let tokenizer = u64::from(our(4)) | u64::from(our(5)) << 32;
    Ok(Some((ShardMeta { vocab_size: our(3), tokenizer, end_of_text: our(6) }, our(2))))
}

/// Writes one shard: to `NAME.tmp` first, renamed to `NAME` once it is complete and on disk. Dropped before
/// [`ShardWriter::finish`], it leaves nothing behind.
pub struct ShardWriter {
    path: PathBuf,
    temporary: PathBuf,
    /// `None` once finished.
    file: Option<BufWriter<File>>,
    meta: ShardMeta,
    tokens: u64,
    hash: crc32fast::Hasher,
    bytes: Vec<u8>,
}

impl ShardWriter {
    /// # Errors
    /// The file cannot be created, or the vocabulary does not fit u16.
    pub fn create(path: &Path, meta: ShardMeta) -> Result<Self> {
        check_vocab_fits(meta.vocab_size as usize)?;
        let mut temporary = path.as_os_str().to_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = File::create(&temporary).map_err(Error::io("create", &temporary))?;
        let mut writer = Self {
            path: path.to_path_buf(),
            temporary,
            file: Some(BufWriter::with_capacity(1 << 20, file)),
            meta,
            tokens: 0,
            hash: crc32fast::Hasher::new(),
            bytes: Vec::new(),
        };
        writer.io("write", |file| file.write_all(&[0; HEADER_BYTES]))?;
        Ok(writer)
    }

    /// Number of tokens so far.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Appends tokens.
    ///
    /// # Errors
    /// The disk is full, an id is not below the vocabulary size, or the shard would exceed [`MAX_SHARD_TOKENS`].
    pub fn push(&mut self, tokens: &[u16]) -> Result<()> {
        if let Some(&id) = tokens.iter().find(|&&id| u32::from(id) >= self.meta.vocab_size) {
            return Err(Error::input(format!(
                "the tokenizer made id {id}, but says that its ids are below {}: its tokenizer.json is inconsistent",
                self.meta.vocab_size
            )));
        }
        if self.tokens + tokens.len() as u64 > MAX_SHARD_TOKENS {
            return Err(Error::input(format!("a shard holds at most {MAX_SHARD_TOKENS} tokens: use smaller shards")));
        }
        self.bytes.clear();
        self.bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
        self.hash.update(&self.bytes);
        self.tokens += tokens.len() as u64;
        let bytes = std::mem::take(&mut self.bytes);
        let written = self.io("write", |file| file.write_all(&bytes));
        self.bytes = bytes;
        written
    }

    /// Writes the header, syncs, and renames the file into place.
    pub fn finish(mut self) -> Result<ShardInfo> {
        let info = ShardInfo { tokens: self.tokens, crc32: self.hash.clone().finalize() };
        let header = header(info, self.meta);
        self.io("write", |file| {
            file.flush()?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&header)?;
            file.flush()?;
            file.get_ref().sync_all()
        })?;
        // Closed before the rename, which Windows needs.
        drop(self.file.take());
        if let Err(error) = fs::rename(&self.temporary, &self.path) {
            let _ = fs::remove_file(&self.temporary);
            return Err(Error::io("write", &self.path)(error));
        }
        Ok(info)
    }

    fn io(&mut self, action: &'static str, run: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
        match &mut self.file {
            Some(file) => run(file).map_err(Error::io(action, &self.temporary)),
            None => Ok(()),
        }
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // into_parts: what is still buffered must not be written to a file that is being thrown away.
            drop(file.into_parts());
            // Nothing can be done here about a file that cannot be removed; its name says that it is temporary.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// # Errors
/// More ids than u16 can hold.
pub fn check_vocab_fits(vocab_size: usize) -> Result<()> {
    if vocab_size <= MAX_VOCAB_SIZE {
        return Ok(());
    }
    Err(Error::input(format!(
        "token shards hold u16, so a vocabulary can have at most {MAX_VOCAB_SIZE} ids; this tokenizer has {vocab_size}: \
         choose a smaller one (codegen has 50295)"
    )))
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
