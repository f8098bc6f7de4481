//! Reading the weights of a Hugging Face directory, in one file or in shards.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde::Deserialize;

use super::weight_layout::Source;
use super::{INDEX_FILE, SINGLE_FILE};
use crate::checkpoint::element;
use crate::checkpoint::tensor_file::TensorFile;
use crate::error::{Error, Result, Short};

/// Endings of tensors that some exports carry and that no model needs: they are computed from the configuration.
const BUFFERS: [&str; 4] =
    ["rotary_emb.inv_freq", "rotary_emb.original_inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached"];

/// What to do about weights that are pickled: they can run code when they are loaded, so we do not.
const CONVERT: &str = "only pytorch_model.bin is there, a pickle; write it as safetensors there, in Python: \
    import torch, safetensors.torch; \
    w = torch.load(\"pytorch_model.bin\", map_location=\"cpu\", weights_only=True); \
    safetensors.torch.save_file({k: v.clone() for k, v in w.items()}, \"model.safetensors\"); \
    or, where transformers loads the model, with its save_pretrained";

/// The weights of a model directory, memory-mapped.
#[derive(Debug)]
pub struct WeightsReader {
    dir: PathBuf,
    files: Vec<TensorFile>,
    /// The file that holds each tensor.
    holder: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl WeightsReader {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` lists (the order of transformers).
    ///
    /// # Errors
    /// If there are neither, a shard is missing (all are named), or a file is not a whole safetensors file.
    pub fn open(dir: &Path) -> Result<Self> {
        let single = dir.join(SINGLE_FILE);
        let index = dir.join(INDEX_FILE);
        if single.is_file() {
            return Self::from_files(dir, vec![TensorFile::open(&single)?]);
        }
        if index.is_file() {
            return Self::open_shards(dir, &index);
        }
        let pickled = dir.join("pytorch_model.bin").is_file() || dir.join("pytorch_model.bin.index.json").is_file();
        let hint = if pickled { CONVERT } else { "name a directory that holds the model's weights" };
        Err(Error::file(dir, format!("has no weights: expected {SINGLE_FILE} or {INDEX_FILE}; {hint}")))
    }

    fn open_shards(dir: &Path, index_path: &Path) -> Result<Self> {
        let bytes = fs::read(index_path).map_err(Error::io("read", index_path))?;
        let index: Index = serde_json::from_slice(&bytes).map_err(|error| {
            Error::file(
                index_path,
                format!("is no index of shards ({}): expected {{\"weight_map\": {{...}}}}", Short(error)),
            )
        })?;
        let shards: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
        // A name only: an index must not reach out of its directory.
        if let Some(odd) = shards.iter().find(|name| name.contains(['/', '\\']) || **name == "..") {
            return Err(Error::file(
                index_path,
                format!("lists the shard \"{}\": expected a file beside the index", Short(odd)),
            ));
        }
        let missing: Vec<&str> = shards.iter().copied().filter(|name| !dir.join(name).is_file()).collect();
        if !missing.is_empty() {
            let what = format!("lists shards that are missing: {}; fetch them again", list(&missing));
            return Err(Error::file(index_path, what));
        }
        let files = shards.iter().map(|name| TensorFile::open(&dir.join(name))).collect::<Result<_>>()?;
        let reader = Self::from_files(dir, files)?;
        let misplaced: Vec<&str> = index
            .weight_map
            .iter()
            .filter(|(name, shard)| reader.holding(name).is_none_or(|file| !file.path().ends_with(shard)))
            .map(|(name, _)| name.as_str())
            .collect();
        if !misplaced.is_empty() {
            let what = format!("its shards do not hold the tensors that it says: {}", list(&misplaced));
            return Err(Error::file(index_path, what));
        }
        Ok(reader)
    }

    fn from_files(dir: &Path, files: Vec<TensorFile>) -> Result<Self> {
        let mut holder = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            for name in file.names() {
                if let Some(other) = holder.insert(name.clone(), index) {
                    let other = files[other].path().display();
                    return Err(Error::file(
                        file.path(),
                        format!("holds {}, which {other} holds too: remove one", Short(name)),
                    ));
                }
            }
        }
        Ok(Self { dir: dir.to_path_buf(), files, holder })
    }

    /// Holds the weights against the tensors that a model needs, (name, shape) each.
    ///
    /// # Errors
    /// One error that names every tensor that is missing, extra, of another shape, or not F32, F16 or BF16.
    pub fn check(&self, expected: &[(String, Vec<usize>)]) -> Result<()> {
        let (mut missing, mut wrong) = (Vec::new(), Vec::new());
        for (name, shape) in expected {
            let Some(file) = self.holding(name) else {
                missing.push(name.as_str());
                continue;
            };
            let (found, dtype) = (file.shape(name)?, file.dtype(name)?);
            if found != shape.as_slice() {
                wrong.push(format!("{name} has shape {}, expected {shape:?}", Short(format!("{found:?}"))));
            }
            if element::torch_name(dtype).is_none() {
                wrong.push(format!("{name} is {dtype}, expected F32, F16 or BF16"));
            }
        }
        let needed: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let extra: Vec<&str> = self.names().filter(|name| !needed.contains(name) && !is_buffer(name)).collect();
        let mut problems = Vec::new();
        if !missing.is_empty() {
            problems.push(format!("missing: {}", list(&missing)));
        }
        if !extra.is_empty() {
            problems.push(format!("not part of the model: {}", list(&extra)));
        }
        problems.append(&mut wrong);
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::file(
            &self.dir,
            format!("the weights are not those of the model in config.json: {}", problems.join("; ")),
        ))
    }

    /// Every tensor's name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.holder.keys().map(String::as_str)
    }

    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        self.file(name)?.shape(name)
    }

    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        self.file(name)?.dtype(name)
    }

    /// A tensor's little-endian bytes, straight from the memory map; not necessarily aligned.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        self.file(name)?.bytes(name)
    }

    /// Converts a tensor to f32; `out` has as many elements as the tensor.
    pub fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<()> {
        self.file(name)?.read_f32(name, out)
    }

    /// Converts what `source` names to f32; `out` has as many elements. The source's shape was checked before.
    pub fn read_source(&self, source: &Source, out: &mut [f32]) -> Result<()> {
        let (dtype, mut rest) = (self.dtype(&source.name)?, out);
        for piece in &source.pieces {
            let (part, behind) = rest.split_at_mut(piece.len());
            element::decode_f32(dtype, self.piece(source, dtype, piece)?, part)?;
            rest = behind;
        }
        Ok(())
    }

    /// What `source` names as little-endian elements of `dtype`: straight from the memory map where the file has them
    /// so.
    ///
    /// # Errors
    /// A value that is too large for `dtype`.
    pub fn encoded(&self, source: &Source, dtype: Dtype) -> Result<Cow<'_, [u8]>> {
        let stored = self.dtype(&source.name)?;
        if stored == dtype {
            if let [piece] = &source.pieces[..] {
                return self.piece(source, stored, piece).map(Cow::Borrowed);
            }
            let pieces = source.pieces.iter().map(|piece| self.piece(source, stored, piece));
            return Ok(Cow::Owned(pieces.collect::<Result<Vec<_>>>()?.concat()));
        }
        let mut values = vec![0.0; source.pieces.iter().map(Range::len).sum()];
        self.read_source(source, &mut values)?;
        let encoded = element::encode_f32(&values, dtype);
        encoded
            .map(|bytes| Cow::Owned(bytes.into_owned()))
            .map_err(|error| Error::file(&self.dir, format!("tensor {}: {error}", source.name)))
    }

    fn piece(&self, source: &Source, dtype: Dtype, piece: &Range<usize>) -> Result<&[u8]> {
        let size = dtype.bitsize() / 8;
        let bytes = self.bytes(&source.name)?.get(piece.start * size..piece.end * size);
        bytes.ok_or_else(|| Error::file(&self.dir, format!("tensor {} is shorter than its model needs", source.name)))
    }

    fn holding(&self, name: &str) -> Option<&TensorFile> {
        self.holder.get(name).map(|index| &self.files[*index])
    }

    fn file(&self, name: &str) -> Result<&TensorFile> {
        self.holding(name).ok_or_else(|| Error::file(&self.dir, format!("has no tensor {name}")))
    }
}

/// Names from a file, which may be anything.
fn list(names: &[&str]) -> String {
    names.iter().map(|name| Short(name).to_string()).collect::<Vec<_>>().join(", ")
}

fn is_buffer(name: &str) -> bool {
    BUFFERS.iter().any(|buffer| name.ends_with(buffer))
}

#[cfg(test)]
#[path = "weights_tests.rs"]
mod tests;
