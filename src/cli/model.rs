//! A model that a command was given, on its device.

use std::path::{Path, PathBuf};

use burn_tensor::DType;
use trainer_backends::DecoderBackend;

use crate::checkpoint::model_files::load_model;
use crate::checkpoint::resolve_model_dir;
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::model::{Architecture, Buffers, Decoder, HostBuffers};

/// Weights on the host and the tokenizer found beside them.
pub struct HostModel {
    pub arch: Architecture,
    pub weights: HostBuffers,
    pub tokenizer: Option<Tokenizer>,
    path: PathBuf,
}

impl HostModel {
    /// Reads a Hugging Face directory, a checkpoint's model or a run's latest one.
    pub fn load(path: &Path) -> Result<Self> {
        let location = resolve_model_dir(path)?;
        let (config, weights) = load_model(&location.model)?;
        let tokenizer = location.tokenizer.as_deref().map(load_tokenizer).transpose()?;
        Ok(Self { arch: config.architecture, weights, tokenizer, path: path.to_path_buf() })
    }

    /// The tokenizer: the model's own, or the built-in one of phi-1's vocabulary.
    pub fn tokenizer(&mut self) -> Result<Tokenizer> {
        if let Some(tokenizer) = self.tokenizer.take() {
            return Ok(tokenizer);
        }
        let codegen = Tokenizer::codegen();
        if self.arch.vocab >= codegen.vocab_size() {
            return Ok(codegen);
        }
        Err(Error::file(
            &self.path,
            format!(
                "has no tokenizer.json, and its vocabulary of {} is too small for the built-in one: put its tokenizer.json there",
                self.arch.vocab
            ),
        ))
    }

    /// Moves the weights to a device, in fp32. `seq` is the longest sequence that will be given.
    ///
    /// # Errors
    /// A longer sequence than the model's context.
    pub fn upload<B: DecoderBackend>(self, device: &B::Device, seq: usize) -> Result<(Decoder<B>, Buffers<B>)> {
        self.upload_as(device, seq, DType::F32)
    }

    /// As `upload`, in `dtype`, which the device must have.
    ///
    /// # Errors
    /// As `upload`.
    pub fn upload_as<B: DecoderBackend>(
        self,
        device: &B::Device,
        seq: usize,
        dtype: DType,
    ) -> Result<(Decoder<B>, Buffers<B>)> {
        if seq > self.arch.context {
            return Err(Error::input(format!(
                "a sequence of {seq} tokens is longer than the model's context of {}",
                self.arch.context
            )));
        }
        let weights = self.weights.upload::<B>(device, dtype);
        Ok((Decoder::new(self.arch, seq, device, crate::config::Recompute::None), weights))
    }
}

fn load_tokenizer(path: &Path) -> Result<Tokenizer> {
    let name = path.to_str().ok_or_else(|| Error::file(path, "this path is not UTF-8: move the tokenizer"))?;
    Tokenizer::load(name)
}
