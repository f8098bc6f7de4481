//! Optimizer state in one file or, where several ranks trained together, in one a rank: optimizer-00001-of-00004.safetensors.
//!
//! A rank alone writes whole tensors: `m.lm_head.weight`, of the weight's shape. One of several writes what it owns of each,
//! under a name that says which elements of the flattened tensor these are: `m.lm_head.weight[16384:32768]`, of one dimension.
//! So the files say themselves how they fit together, whatever number of ranks reads them.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use super::element::decode_f32;
use super::tensor_file::TensorFile;
use crate::error::{Error, Result};

/// The name of a rank's file.
pub fn file_name(rank: usize, ranks: usize) -> String {
    format!("optimizer-{rank:05}-of-{ranks:05}.safetensors")
}

/// The name of a part of a flattened tensor.
pub fn part_name(tensor: &str, part: &Range<usize>) -> String {
    format!("{tensor}[{}:{}]", part.start, part.end)
}

/// The inverse of `part_name`; `None` for a whole tensor.
fn parse_part(name: &str) -> Option<(&str, Range<usize>)> {
    let (tensor, range) = name.strip_suffix(']')?.rsplit_once('[')?;
    let (start, end) = range.split_once(':')?;
    Some((tensor, start.parse().ok()?..end.parse().ok()?))
}

/// Where elements of a tensor are.
struct Piece {
    file: usize,
    name: String,
    part: Range<usize>,
}

/// A checkpoint's optimizer state, for reading any part of it.
pub struct OptimizerFiles {
    dir: PathBuf,
    files: Vec<TensorFile>,
    pieces: HashMap<String, Vec<Piece>>,
}

impl OptimizerFiles {
    /// Maps the files of a checkpoint.
    ///
    /// # Errors
    /// No files, or not as many as their names say; damaged ones.
    pub fn open(dir: &Path) -> Result<Self> {
        let files: Vec<TensorFile> =
            names(dir)?.iter().map(|name| TensorFile::open(&dir.join(name))).collect::<Result<_>>()?;
        let mut pieces: HashMap<String, Vec<Piece>> = HashMap::new();
        for (file, tensors) in files.iter().enumerate() {
            for name in tensors.names() {
                let (tensor, part) = match parse_part(&name) {
                    Some((tensor, part)) => (tensor.to_owned(), part),
                    None => (name.clone(), 0..tensors.shape(&name)?.iter().product()),
                };
                pieces.entry(tensor).or_default().push(Piece { file, name, part });
            }
        }
        pieces.values_mut().for_each(|pieces| pieces.sort_by_key(|piece| piece.part.start));
        Ok(Self { dir: dir.to_path_buf(), files, pieces })
    }

    /// Reads the elements `range` of a flattened fp32 tensor.
    ///
    /// # Errors
    /// A tensor that is not there, or not all of it.
    pub fn read(&self, tensor: &str, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        let mut next = range.start;
        for piece in self.pieces.get(tensor).map_or(&[][..], Vec::as_slice) {
            let wanted = next.max(piece.part.start)..range.end.min(piece.part.end);
            if wanted.is_empty() || wanted.start != next {
                continue;
            }
            let file = &self.files[piece.file];
            let (bytes, dtype) = (file.bytes(&piece.name)?, file.dtype(&piece.name)?);
            let size = dtype.bitsize() / 8;
            let offset = |element: usize| (element - piece.part.start) * size;
            let bytes = bytes.get(offset(wanted.start)..offset(wanted.end)).unwrap_or_default();
            decode_f32(dtype, bytes, &mut out[wanted.start - range.start..wanted.end - range.start])
                .map_err(|error| Error::file(file.path(), format!("tensor {}: {error}", piece.name)))?;
            next = wanted.end;
        }
        if next < range.end { Err(self.lacks(tensor, next..range.end)) } else { Ok(()) }
    }

    /// Whether all `len` elements of a flattened tensor are there, and are fp32. Reads no values.
    ///
    /// # Errors
    /// As [`OptimizerFiles::read`].
    pub fn check(&self, tensor: &str, len: usize) -> Result<()> {
        let mut next = 0;
        for piece in self.pieces.get(tensor).map_or(&[][..], Vec::as_slice) {
            let file = &self.files[piece.file];
            if file.dtype(&piece.name)? != Dtype::F32 || file.bytes(&piece.name)?.len() / 4 != piece.part.len() {
                let what = format!("tensor {}: expected {} elements of F32", piece.name, piece.part.len());
                return Err(Error::file(file.path(), what));
            }
            if piece.part.start <= next {
                next = next.max(piece.part.end);
            }
        }
        if next < len { Err(self.lacks(tensor, next..len)) } else { Ok(()) }
    }

    fn lacks(&self, tensor: &str, missing: Range<usize>) -> Error {
        let what = format!(
            "holds no elements {} to {} of {tensor} in its optimizer files: take another checkpoint, or start a new run from \
             its weights with --init-from",
            missing.start, missing.end
        );
        Error::file(&self.dir, what)
    }
}

/// The optimizer files' names, in order.
fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let name = entry.map_err(Error::io("read", dir))?.file_name();
        names.extend(name.to_str().filter(|name| name.starts_with("optimizer-")).map(str::to_owned));
    }
    names.sort();
    let expected: Vec<String> = (0..names.len()).map(|rank| file_name(rank, names.len())).collect();
    if names.is_empty() || names != expected {
        let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(Error::file(
            dir,
            format!("should hold optimizer files 00000 to the last of as many, found {found}: take another checkpoint"),
        ));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::TensorEntry;
    use crate::checkpoint::tensor_file::write_tensor_file;

    #[test]
    fn any_part_is_read_from_any_division() {
        let values: Vec<f32> = (0..100).map(|i| i as f32).collect();
        for parts in [vec![0..100], vec![0..30, 30..30, 30..100], vec![0..1, 1..2, 2..60, 60..100]] {
            let dir = tempfile::tempdir().unwrap();
            for (rank, part) in parts.iter().enumerate() {
                let (name, shape) = match parts.len() {
                    1 => ("m.a".to_owned(), vec![10, 10]),
                    _ => (part_name("m.a", part), vec![part.len()]),
                };
                let entry = TensorEntry::f32(name, shape, &values[part.clone()]);
                write_tensor_file(&dir.path().join(file_name(rank, parts.len())), vec![entry], &[]).unwrap();
            }
            let files = OptimizerFiles::open(dir.path()).unwrap();
            for range in [0..100, 0..0, 29..31, 1..99, 60..61] {
                let mut out = vec![-1.0; range.len()];
                files.read("m.a", range.clone(), &mut out).unwrap();
                assert_eq!(out, values[range]);
            }
            assert!(files.read("m.a", 90..101, &mut [0.0; 11]).unwrap_err().to_string().contains("100 to 101 of m.a"));
            assert!(files.read("m.b", 0..1, &mut [0.0]).is_err());
            files.check("m.a", 100).unwrap();
            assert!(files.check("m.a", 101).unwrap_err().to_string().contains("100 to 101 of m.a"));
            assert!(files.check("m.b", 1).is_err());
            fs::remove_file(dir.path().join(file_name(parts.len() - 1, parts.len()))).unwrap();
            assert!(OptimizerFiles::open(dir.path()).is_err());
        }
    }
}
