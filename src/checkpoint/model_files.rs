//! A model directory's weights, and the same in other files.

use std::path::Path;

use safetensors::Dtype;

use super::hugging_face::{
    ModelConfig, Source, WeightLayout, WeightsReader, names_and_shapes, read_config, write_weights,
};
use super::tensor_file::TensorEntry;
use crate::config::Precision;
use crate::error::Result;
use crate::model::{HostBuffers, ParameterTable};

/// safetensors' name of a precision.
pub fn dtype(precision: Precision) -> Dtype {
    match precision {
        Precision::Fp32 => Dtype::F32,
        Precision::Fp16 => Dtype::F16,
        Precision::Bf16 => Dtype::BF16,
    }
}

/// A model directory, opened: its configuration, and mapped weights that are known to fit it.
pub struct ModelFiles {
    pub config: ModelConfig,
    table: ParameterTable,
    reader: WeightsReader,
    /// Where the directory keeps each entry of the table.
    sources: Vec<Source>,
}

impl ModelFiles {
    /// Opens a directory of transformers, of this program or of Microsoft (see [`WeightLayout`]). Reads no weights yet.
    ///
    /// # Errors
    /// As `read_config` and `WeightsReader`: all missing, extra and wrongly shaped tensors are named in one error.
    pub fn open(dir: &Path) -> Result<Self> {
        let config = read_config(dir)?;
        let reader = WeightsReader::open(dir)?;
        let table = ParameterTable::new(&config.architecture);
        let sources = WeightLayout::of(&reader).sources(&config.architecture, &table);
        reader.check(&names_and_shapes(&sources))?;
        Ok(Self { config, table, reader, sources })
    }

    /// The element type that the weights are stored in; of several, the embedding's.
    pub fn dtype(&self) -> Result<Dtype> {
        self.reader.dtype(&self.sources[0].name)
    }

    /// Every parameter, in the order of this program.
    pub fn table(&self) -> &ParameterTable {
        &self.table
    }

    /// The weights as their files have them.
    pub fn reader(&self) -> &WeightsReader {
        &self.reader
    }

    /// The weights, widened to fp32.
    pub fn load(&self) -> Result<HostBuffers> {
        let mut host = HostBuffers::zeros(&self.table);
        for (entry, source) in self.table.entries.iter().zip(&self.sources) {
            self.reader.read_source(source, host.slice_mut(entry))?;
        }
        Ok(host)
    }

    /// Writes the weights into `dir` under today's names, in `dtype`, in files of at most `max_shard_bytes`. Goes from
    /// the memory map to the disk a tensor at a time: no more memory than the largest tensor. `written` is called with
    /// the parameters of each tensor as its turn comes.
    ///
    /// # Errors
    /// A value that is too large for `dtype`, and what the disk refuses.
    pub fn write_weights(
        &self,
        dir: &Path,
        dtype: Dtype,
        max_shard_bytes: u64,
        written: impl Fn(u64) + Sync,
    ) -> Result<()> {
        let written = &written;
        let entries = self.table.entries.iter().zip(&self.sources).map(|(entry, source)| {
            TensorEntry::lazy(entry.name.clone(), dtype, entry.shape.clone(), move || {
                written(entry.len() as u64);
                self.reader.encoded(source, dtype)
            })
        });
        write_weights(dir, entries, max_shard_bytes)
    }
}

/// Reads a model directory's configuration and weights, widened to fp32.
///
/// # Errors
/// As [`ModelFiles::open`].
pub fn load_model(dir: &Path) -> Result<(ModelConfig, HostBuffers)> {
    let files = ModelFiles::open(dir)?;
    let weights = files.load()?;
    Ok((files.config, weights))
}
