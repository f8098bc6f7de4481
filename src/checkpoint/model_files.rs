//! A decoder's weights from and to a Hugging Face directory.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use burn_tensor::Tensor;
use safetensors::Dtype;
use trainer_backends::DecoderBackend;

use super::element::encode_f32;
use super::hugging_face::{
    ConfigExtras, DEFAULT_SHARD_BYTES, ModelConfig, WeightsReader, read_config, write_config, write_weights,
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

/// Reads a model directory's configuration and weights, widened to fp32.
///
/// # Errors
/// As `read_config` and `WeightsReader`: all missing, extra and wrongly shaped tensors are named in one error.
pub fn load_model(dir: &Path) -> Result<(ModelConfig, HostBuffers)> {
    let config = read_config(dir)?;
    let table = ParameterTable::new(&config.architecture);
    let reader = WeightsReader::open(dir)?;
    reader.check(&table.names_and_shapes())?;
    let mut host = HostBuffers::zeros(&table);
    for entry in &table.entries {
        reader.read_f32(&entry.name, host.slice_mut(entry))?;
    }
    Ok((config, host))
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

/// As `save_model`, from host memory.
pub fn save_host_model(
    dir: &Path,
    arch: &crate::model::Architecture,
    extras: &ConfigExtras,
    table: &ParameterTable,
    weights: &HostBuffers,
) -> Result<()> {
    write_config(dir, arch, extras)?;
    let entries = table.entries.iter().map(|entry| {
        TensorEntry::from_f32(entry.name.clone(), entry.shape.clone(), weights.slice(entry), extras.dtype)
    });
    write_weights(dir, entries, DEFAULT_SHARD_BYTES)
}
