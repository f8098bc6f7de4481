//! safetensors files: written a tensor at a time, read through a memory map.
//!
//! Format (github.com/huggingface/safetensors): u64 header length, a JSON header {name: {dtype, shape, data_offsets}},
//! then the tensors' bytes, little-endian, without gaps.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::element::{decode_f32, encode_f32};
use super::storage;
use crate::error::{Error, Result, Short};
use crate::mapped::Mapped;

/// Bytes of the length that stands before the header.
const LENGTH: usize = 8;

/// Takes a tensor's next bytes.
pub type Sink<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

type Produce<'a> = Box<dyn FnOnce(&mut Sink<'_>) -> Result<()> + Send + 'a>;

/// One tensor to be written. Its bytes are asked for when its turn comes, so that a file of any size needs the memory of
/// one tensor.
pub struct TensorEntry<'a> {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    produce: Produce<'a>,
}

impl<'a> TensorEntry<'a> {
    /// A tensor from its little-endian bytes.
    pub fn bytes(name: impl Into<String>, dtype: Dtype, shape: Vec<usize>, bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        let bytes = bytes.into();
        Self::lazy(name, dtype, shape, move || Ok(bytes))
    }

    /// A tensor whose little-endian bytes `produce` fetches when they are to be written (from a device).
    pub fn lazy(
        name: impl Into<String>,
        dtype: Dtype,
        shape: Vec<usize>,
        produce: impl FnOnce() -> Result<Cow<'a, [u8]>> + Send + 'a,
    ) -> Self {
        Self::in_parts(name, dtype, shape, move |sink| sink(&produce()?))
    }

    /// A tensor whose little-endian bytes `produce` gives to the sink part by part.
    pub fn in_parts(
        name: impl Into<String>,
        dtype: Dtype,
        shape: Vec<usize>,
        produce: impl FnOnce(&mut Sink<'_>) -> Result<()> + Send + 'a,
    ) -> Self {
        Self { name: name.into(), dtype, shape, produce: Box::new(produce) }
    }

    /// An f32 tensor.
    pub fn f32(name: impl Into<String>, shape: Vec<usize>, values: &'a [f32]) -> Self {
        Self::from_f32(name, shape, values, Dtype::F32)
    }

    /// f32 values, rounded to `dtype` as they are written.
    pub fn from_f32(name: impl Into<String>, shape: Vec<usize>, values: &'a [f32], dtype: Dtype) -> Self {
        Self::lazy(name, dtype, shape, move || encode_f32(values, dtype))
    }

    /// Bytes of the tensor by its shape and element type.
    pub fn byte_len(&self) -> Result<usize> {
        self.shape
            .iter()
            .try_fold(self.dtype.bitsize(), |bits, size| bits.checked_mul(*size))
            .map(|bits| bits / 8)
            .ok_or_else(|| Error::failed(format!("tensor {} has an impossible shape {:?}", self.name, self.shape)))
    }
}

impl fmt::Debug for TensorEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.name, self.dtype, self.shape)
    }
}

/// Writes a safetensors file and syncs it. On an error the file is removed.
///
/// Tensors are written in the order given but for wider element types first, which keeps each aligned to its own size.
///
/// # Errors
/// If two tensors have one name, a tensor's bytes are not those of its shape, a producer fails, or the disk does.
pub fn write_tensor_file(path: &Path, mut entries: Vec<TensorEntry<'_>>, metadata: &[(&str, &str)]) -> Result<()> {
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.dtype.bitsize()));
    let header = header(path, &entries, metadata)?;
    let file = File::create(path).map_err(storage::write_error("create", path))?;
    let written = write_body(path, file, &header, entries);
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// As `write_tensor_file`, to a place that a user named: beside it first, so that on an error what stood there still does.
///
/// # Errors
/// As `check_replaceable` and `write_tensor_file`.
pub fn replace_tensor_file(path: &Path, entries: Vec<TensorEntry<'_>>) -> Result<()> {
    check_replaceable(path)?;
    let partial = storage::sibling(path, ".partial");
    write_tensor_file(&partial, entries, &[])?;
    storage::rename(&partial, path).inspect_err(|_| _ = fs::remove_file(&partial))
}

/// # Errors
/// No folder to write the file in, or something else than a file in its place.
pub fn check_replaceable(path: &Path) -> Result<()> {
    let folder = storage::parent(path);
    if !folder.is_dir() {
        return Err(Error::file(folder, "there is no such folder: make it, or choose another"));
    }
    if path.exists() && !path.is_file() {
        return Err(Error::file(path, "is there and is no file: choose another name"));
    }
    Ok(())
}

fn header(path: &Path, entries: &[TensorEntry<'_>], metadata: &[(&str, &str)]) -> Result<Vec<u8>> {
    let (mut names, mut infos, mut offset) = (HashSet::new(), Vec::with_capacity(entries.len()), 0_usize);
    for entry in entries {
        if !names.insert(entry.name.as_str()) {
            return Err(Error::failed(format!("two tensors are called {} in {}", entry.name, path.display())));
        }
        let end =
            offset.checked_add(entry.byte_len()?).ok_or_else(|| Error::failed("the tensors are too many bytes"))?;
        let info = TensorInfo { dtype: entry.dtype, shape: entry.shape.clone(), data_offsets: (offset, end) };
        infos.push((entry.name.clone(), info));
        offset = end;
    }
    let metadata: HashMap<String, String> = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let refused = |error: &dyn fmt::Display| Error::failed(format!("cannot describe {}: {error}", path.display()));
    let metadata = Metadata::new((!metadata.is_empty()).then_some(metadata), infos).map_err(|error| refused(&error))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|error| refused(&error))?;
    json.resize(json.len().next_multiple_of(LENGTH), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}

fn write_body(path: &Path, file: File, header: &[u8], entries: Vec<TensorEntry<'_>>) -> Result<()> {
    let failed = || storage::write_error("write", path);
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.write_all(header).map_err(failed())?;
    for entry in entries {
        let (expected, mut found) = (entry.byte_len()?, 0);
        let TensorEntry { name, dtype, shape, produce } = entry;
        let wrong = |found| {
            Error::failed(format!(
                "tensor {name} of shape {shape:?} and type {dtype} is {expected} bytes, found {found}"
            ))
        };
        produce(&mut |bytes| {
            found += bytes.len();
            // Nothing is written where it would be in another tensor's place.
            if found > expected { Err(wrong(found)) } else { file.write_all(bytes).map_err(failed()) }
        })?;
        if found != expected {
            return Err(wrong(found));
        }
    }
    // Not by itself when it is dropped, which would tell nobody of an error.
    let file = file.into_inner().map_err(|error| failed()(error.into_error()))?;
    file.sync_all().map_err(failed())
}

/// A safetensors file, memory-mapped. Its header has been checked: every tensor lies inside the file and none overlaps
/// another.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: Mapped,
    /// Where the tensors' bytes begin.
    start: usize,
    metadata: Metadata,
}

impl TensorFile {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// [`Error::File`] that says what is wrong with a file that is truncated, damaged or of another format.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let map = Mapped::new(&file, path).map_err(Error::io("read", path))?;
        let (length, metadata) = parse(&map).map_err(|what| {
            Error::file(path, format!("not a whole safetensors file: {what}; fetch or write it again"))
        })?;
        Ok(Self { path: path.to_path_buf(), map, start: LENGTH + length, metadata })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors in the order of their bytes.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    pub fn contains(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.info(name)?.shape)
    }

    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        Ok(self.info(name)?.dtype)
    }

    /// A tensor's little-endian bytes, straight from the map; not necessarily aligned.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        let (from, to) = self.info(name)?.data_offsets;
        Ok(&self.map[self.start + from..self.start + to])
    }

    /// Converts an F32, F16 or BF16 tensor to f32.
    ///
    /// # Errors
    /// If there is no such tensor, it is of another type, or it does not have `out.len()` elements.
    pub fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<()> {
        decode_f32(self.dtype(name)?, self.bytes(name)?, out)
            .map_err(|error| Error::file(&self.path, format!("tensor {name}: {error}")))
    }

    /// The strings beside the tensors (`__metadata__`).
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.metadata.info(name).ok_or_else(|| Error::file(&self.path, format!("has no tensor {name}")))
    }
}

/// Length of the header in bytes, and the header; or what is wrong, in words.
fn parse(bytes: &[u8]) -> std::result::Result<(usize, Metadata), String> {
    let Some(length) = bytes.first_chunk::<LENGTH>().map(|length| u64::from_le_bytes(*length)) else {
        return Err(format!("it has {} bytes, expected at least {LENGTH}", bytes.len()));
    };
    let room = bytes.len() - LENGTH;
    let Some(header) = usize::try_from(length).ok().and_then(|length| bytes[LENGTH..].get(..length)) else {
        return Err(format!("its header should have {length} bytes, but {room} follow"));
    };
    // The crate adds up offsets without checking for overflow: none may lie outside the file.
    let data = room - header.len();
    let entries: HashMap<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(|error| format!("its header is not JSON ({})", Short(error)))?;
    for (name, entry) in entries.iter().filter(|(name, _)| *name != "__metadata__") {
        let offset = |index| entry.get("data_offsets")?.get(index)?.as_u64();
        let inside = |offset: u64| offset <= data as u64;
        let (Some(from), Some(to)) = (offset(0), offset(1)) else {
            return Err(format!("tensor {} has no data_offsets [from, to]", Short(name)));
        };
        if from > to || !inside(to) {
            let name = Short(name);
            return Err(format!("tensor {name} should lie at bytes {from}..{to}, but {data} follow the header"));
        }
    }
    SafeTensors::read_metadata(bytes).map_err(|error| match error {
        SafeTensorError::InvalidOffset(name) => {
            format!("tensor {} overlaps another or leaves a gap before it", Short(name))
        }
        SafeTensorError::TensorInvalidInfo => "a tensor's bytes are not those of its shape and type".to_string(),
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("its tensors do not fill the {data} bytes after the header")
        }
        SafeTensorError::HeaderTooLarge => format!("its header of {length} bytes is longer than the format allows"),
        other => Short(other).to_string(),
    })
}

#[cfg(test)]
#[path = "tensor_file_tests.rs"]
mod tests;
