//! A decoder's weights from and to a Hugging Face directory.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use burn_tensor::Tensor;
use safetensors::Dtype;
use trainer_backends::DecoderBackend;

use super::element::encode_f32;
use super::hugging_face::{
    ConfigExtras, DEFAULT_SHARD_BYTES, ModelConfig, Source, WeightLayout, WeightsReader, names_and_shapes, read_config,
    write_config, write_weights,
};
use super::optimizer_files::part_name;
use super::tensor_file::TensorEntry;
use crate::config::Precision;
use crate::error::Result;
use crate::model::table::Entry;
use crate::model::weights::download_one;
use crate::model::{Buffers, HostBuffers, ParameterTable};

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

/// One tensor of flat device buffers, fetched when it is written, in `dtype`.
pub fn device_entry<'a, B: DecoderBackend>(
    prefix: &str,
    entry: &'a Entry,
    buffers: &'a Buffers<B>,
    dtype: Dtype,
) -> TensorEntry<'a> {
    let group = buffers[entry.group].clone();
    TensorEntry::lazy(format!("{prefix}{}", entry.name), dtype, entry.shape.clone(), move || {
        let values = download_one(&group.slice([entry.range()]));
        Ok(Cow::Owned(encode_f32(&values, dtype)?.into_owned()))
    })
}

/// Of a flattened tensor, the elements `part`, from a flat device buffer where they begin at `start`; fp32.
pub fn device_part<'a, B: DecoderBackend>(
    name: &str,
    buffer: &Tensor<B, 1>,
    part: &Range<usize>,
    start: usize,
) -> TensorEntry<'a> {
    let (buffer, len) = (buffer.clone(), part.len());
    TensorEntry::lazy(part_name(name, part), Dtype::F32, vec![len], move || {
        let values = download_one(&buffer.slice([start..start + len]));
        Ok(Cow::Owned(encode_f32(&values, Dtype::F32)?.into_owned()))
    })
}

/// Writes config.json, generation_config.json and the weights, in `extras.dtype`, from a device.
pub fn save_model<B: DecoderBackend>(
    dir: &Path,
    arch: &crate::model::Architecture,
    extras: &ConfigExtras,
    table: &ParameterTable,
    weights: &Buffers<B>,
) -> Result<()> {
    write_config(dir, arch, extras)?;
    let entries = table.entries.iter().map(|entry| device_entry::<B>("", entry, weights, extras.dtype));
    write_weights(dir, entries, DEFAULT_SHARD_BYTES)
}
