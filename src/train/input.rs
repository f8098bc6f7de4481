//! What a run trains on.

use std::path::Path;

use super::step::Batches;
use crate::config::Config;
use crate::data::dataset::{Dataset, Split};
use crate::data::sampler::Sampler;
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// The training and validation tokens and the tokenizer that made them.
pub struct TrainingData {
    pub train: Dataset,
    pub val: Option<Dataset>,
    /// Saved with every model, so that it can be used without the data.
    pub tokenizer: Option<Tokenizer>,
}

impl TrainingData {
    /// Opens a directory that `trainer prepare` wrote, a directory of llm.c shards, or one shard. `with_validation`: the
    /// validation part is wanted too.
    ///
    /// # Errors
    /// Missing or damaged shards (every checksum is verified); no validation part though the configuration validates.
    pub fn open(path: &Path, with_validation: bool) -> Result<Self> {
        let train = Dataset::open(path, Split::Train)?;
        let val = if with_validation && path.is_dir() {
            Some(Dataset::open(path, Split::Val).map_err(|error| {
                Error::input(format!(
                    "{error}; the configuration validates (validation.every), so prepare a validation part \
                     (--val-fraction) or set validation.every=0"
                ))
            })?)
        } else {
            None
        };
        train.verify()?;
        val.as_ref().map_or(Ok(()), Dataset::verify)?;
        let tokenizer_path = path.join("tokenizer.json");
        let tokenizer = match tokenizer_path.to_str() {
            Some(name) if tokenizer_path.is_file() => Some(Tokenizer::load(name)?),
            _ => None,
        };
        Ok(Self { train, val, tokenizer })
    }

    /// # Errors
    /// Token ids that the model's vocabulary does not have.
    pub fn check_vocab(&self, vocab: usize) -> Result<()> {
        self.train.check_vocab(vocab)?;
        self.val.as_ref().map_or(Ok(()), |val| val.check_vocab(vocab))
    }
}

/// The order in which a run reads its training tokens.
pub struct TrainingBatches<'a> {
    pub dataset: &'a Dataset,
    pub sampler: Sampler,
}

impl<'a> TrainingBatches<'a> {
    pub fn new(dataset: &'a Dataset, config: &Config) -> Result<Self> {
        let sampler = Sampler::new(dataset.tokens(), config.model.seq_len, config.data.seed)?;
        Ok(Self { dataset, sampler })
    }
}

impl Batches for TrainingBatches<'_> {
    fn fill(&self, position: u64, inputs: &mut [i32], targets: &mut [i32]) -> Result<()> {
        self.sampler.fill(self.dataset, position, inputs, targets)
    }
}
