//! Cuts a split's stream of tokens into shards.

use std::path::{Path, PathBuf};

use crate::data::dataset::Split;
use crate::data::manifest::{Part, ShardEntry};
use crate::data::shard::{ShardMeta, ShardWriter};
use crate::error::Result;

/// Writes `train-00000.bin`, `train-00001.bin`, ... of `shard_tokens` tokens each; the last may be shorter.
pub struct SplitWriter {
    dir: PathBuf,
    split: Split,
    meta: ShardMeta,
    shard_tokens: u64,
    open: Option<ShardWriter>,
    part: Part,
}

impl SplitWriter {
    pub fn new(dir: &Path, split: Split, meta: ShardMeta, shard_tokens: u64) -> Self {
        Self { dir: dir.to_path_buf(), split, meta, shard_tokens, open: None, part: Part::default() }
    }

    /// Appends a fragment of a document of `bytes` bytes of text; `last` ends the document.
    pub fn push(&mut self, tokens: &[u16], bytes: u64, last: bool) -> Result<()> {
        self.part.bytes += bytes;
        self.append(tokens)?;
        if last {
            self.part.documents += 1;
            self.append(&[self.meta.end_of_text as u16])?;
        }
        Ok(())
    }

    fn append(&mut self, mut tokens: &[u16]) -> Result<()> {
        while !tokens.is_empty() {
            let mut writer = match self.open.take() {
                Some(writer) => writer,
                None => ShardWriter::create(&self.dir.join(self.file_name()), self.meta)?,
            };
            let room = (self.shard_tokens - writer.tokens()).min(tokens.len() as u64) as usize;
            let (now, later) = tokens.split_at(room);
            writer.push(now)?;
            tokens = later;
            if writer.tokens() < self.shard_tokens {
                self.open = Some(writer);
            } else {
                self.close(writer)?;
            }
        }
        Ok(())
    }

    fn file_name(&self) -> String {
        format!("{}-{:05}.bin", self.split.name(), self.part.shards.len())
    }

    fn close(&mut self, writer: ShardWriter) -> Result<()> {
        let file = self.file_name();
        let info = writer.finish()?;
        self.part.tokens += info.tokens;
        self.part.shards.push(ShardEntry { file, tokens: info.tokens, crc32: format!("{:08x}", info.crc32) });
        Ok(())
    }

    /// Finishes the last shard.
    pub fn finish(mut self) -> Result<Part> {
        if let Some(writer) = self.open.take() {
            self.close(writer)?;
        }
        Ok(self.part)
    }
}
