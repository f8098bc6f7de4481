//! Writing the weights of a Hugging Face directory, in one file or in shards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{INDEX_FILE, SINGLE_FILE};
use crate::checkpoint::storage;
use crate::checkpoint::tensor_file::{TensorEntry, write_tensor_file};
use crate::error::{Error, Result};

/// Bytes of a shard where the user has not chosen: transformers' own 5 GB, so that phi-1 in fp16 is one file.
pub const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

/// Writes the tensors in the order given: `model.safetensors` if they fit `max_shard_bytes`, else
/// `model-00001-of-000NN.safetensors` with an index. A tensor larger than a shard is a shard of its own.
///
/// Tensors' bytes are asked for one tensor at a time. Weights that stood there before are replaced once the new ones are
/// written and synced; on an error before that, they stay and nothing else is left.
///
/// # Errors
/// As [`write_tensor_file`]; also if two tensors have one name.
pub fn write_weights<'a>(
    dir: &Path,
    tensors: impl IntoIterator<Item = TensorEntry<'a>>,
    max_shard_bytes: u64,
) -> Result<()> {
    let (shards, total) = split(tensors, max_shard_bytes)?;
    let count = shards.len();
    let mut weight_map = BTreeMap::new();
    let mut new_files = NewFiles { dir: dir.to_path_buf(), names: Vec::new() };
    storage::create_dir(dir)?;
    for (index, entries) in shards.into_iter().enumerate() {
        let name = match count {
            1 => SINGLE_FILE.to_string(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        for entry in &entries {
            if weight_map.insert(entry.name.clone(), name.clone()).is_some() {
                return Err(Error::failed(format!("two tensors are called {} in {}", entry.name, dir.display())));
            }
        }
        let temporary = new_files.add(name);
        // transformers refuses files without this entry.
        write_tensor_file(&temporary, entries, &[("format", "pt")])?;
    }
    if count > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        let temporary = new_files.add(INDEX_FILE.to_string());
        storage::write_synced(&temporary, format!("{index:#}\n").as_bytes())?;
    }
    new_files.put_in_place()
}

/// Consecutive tensors in shards, and their bytes in total.
fn split<'a>(
    tensors: impl IntoIterator<Item = TensorEntry<'a>>,
    max_shard_bytes: u64,
) -> Result<(Vec<Vec<TensorEntry<'a>>>, u64)> {
    let (mut shards, mut shard, mut shard_bytes, mut total) = (Vec::new(), Vec::new(), 0, 0);
    for entry in tensors {
        let bytes = entry.byte_len()? as u64;
        if !shard.is_empty() && shard_bytes + bytes > max_shard_bytes {
            shards.push(std::mem::take(&mut shard));
            shard_bytes = 0;
        }
        shard.push(entry);
        shard_bytes += bytes;
        total += bytes;
    }
    shards.push(shard);
    Ok((shards, total))
}

/// Files written under temporary names; removed again unless put in place.
struct NewFiles {
    dir: PathBuf,
    names: Vec<String>,
}

impl NewFiles {
    fn temporary(&self, name: &str) -> PathBuf {
        storage::sibling(&self.dir.join(name), ".tmp")
    }

    fn add(&mut self, name: String) -> PathBuf {
        let temporary = self.temporary(&name);
        self.names.push(name);
        temporary
    }

    // Files of an earlier export that the new one does not overwrite go first: a reader would prefer an old
    // model.safetensors to new shards.
    fn put_in_place(self) -> Result<()> {
        for entry in fs::read_dir(&self.dir).map_err(Error::io("read", &self.dir))? {
            let path = entry.map_err(Error::io("read", &self.dir))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if is_weights(name) && !self.names.iter().any(|new| new == name) {
                fs::remove_file(&path).map_err(storage::write_error("remove", &path))?;
            }
        }
        for name in &self.names {
            storage::rename(&self.temporary(name), &self.dir.join(name))?;
        }
        storage::sync_dir(&self.dir)
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = fs::remove_file(self.temporary(name));
        }
    }
}

/// The names that this module gives, from this or an earlier export.
fn is_weights(name: &str) -> bool {
    let shard = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    let numbered = |(index, count): (&str, &str)| {
        [index, count].iter().all(|number| number.len() == 5 && number.bytes().all(|digit| digit.is_ascii_digit()))
    };
    name == SINGLE_FILE || name == INDEX_FILE || shard.and_then(|shard| shard.split_once("-of-")).is_some_and(numbered)
}
