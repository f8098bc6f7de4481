//! What a run trains on.

use std::path::Path;
use std::sync::Arc;

use super::step::Batches;
use crate::config::Config;
use crate::data::dataset::{Dataset, Split};
use crate::data::sampler::Sampler;
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// The training and validation tokens and the tokenizer that made them.
pub struct TrainingData {
    pub train: Arc<Dataset>,
    pub val: Option<Arc<Dataset>>,
    /// Saved with every model, so that it can be used without the data.
    pub tokenizer: Option<Arc<Tokenizer>>,
}

impl TrainingData {
    /// Opens a directory that `trainer prepare` wrote, a directory of llm.c shards, or one shard. `with_validation`: the
    /// validation part is wanted too.
    ///
    /// # Errors
    /// Missing shards, or ones whose header or length is wrong (their tokens are for `DataCheck`); no validation part though
    /// the configuration validates.
    pub fn open(path: &Path, with_validation: bool) -> Result<Self> {
        if matches!(path.try_exists(), Ok(false)) {
            let what = "there is no such file or folder: name what `trainer prepare --out` wrote with --data";
            return Err(Error::file(path, what));
        }
        let train = Dataset::open(path, Split::Train)?;
        let val = match with_validation && path.is_dir() {
            true => Some(Dataset::open(path, Split::Val)?),
            false => None,
        };
        let tokenizer_path = path.join("tokenizer.json");
        let tokenizer = match tokenizer_path.to_str() {
            Some(name) if tokenizer_path.is_file() => Some(Arc::new(Tokenizer::load(name)?)),
            _ => None,
        };
        Ok(Self { train: Arc::new(train), val: val.map(Arc::new), tokenizer })
    }

    /// # Errors
    /// Token ids that the model's vocabulary does not have.
    pub fn check_vocab(&self, vocab: usize) -> Result<()> {
        self.train.check_vocab(vocab)?;
        self.val.as_ref().map_or(Ok(()), |val| val.check_vocab(vocab))
    }

    /// # Errors
    /// A validation part that does not fill one sequence of `seq_len`.
    pub fn check_validation(&self, seq_len: usize) -> Result<()> {
        let Some(val) = &self.val else { return Ok(()) };
        let (tokens, needed) = (val.tokens(), seq_len as u64 + 1);
        if tokens >= needed {
            return Ok(());
        }
        Err(Error::input(format!(
            "the validation part has {tokens} tokens, but one sequence needs {needed}: run `trainer prepare` again with a \
             larger --val-fraction (say 0.05), or train with --set validation.every=0"
        )))
    }
}

/// The order in which a run reads its training tokens.
pub struct TrainingBatches<'a> {
    dataset: &'a Dataset,
    sampler: Sampler,
    /// Sequences a step.
    batch: u64,
    /// Batches that no step reads, ascending.
    left_out: Vec<u64>,
}

impl<'a> TrainingBatches<'a> {
    /// All batches, in order.
    ///
    /// # Errors
    /// Fewer tokens than a sequence takes.
    pub fn new(dataset: &'a Dataset, config: &Config) -> Result<Self> {
        let sampler = Sampler::new(dataset.tokens(), config.model.seq_len, config.data.seed)?;
        Ok(Self { dataset, sampler, batch: config.train.batch as u64, left_out: Vec::new() })
    }

    /// From now on steps read the batches that are not among `left_out`, which is ascending.
    pub fn leave_out(&mut self, left_out: &[u64]) {
        self.left_out = left_out.to_vec();
    }

    /// The batch that step `step` reads; batch 0 is the first one.
    pub fn batch_of(&self, step: u64) -> u64 {
        self.left_out.iter().fold(step - 1, |batch, left_out| batch + u64::from(*left_out <= batch))
    }

    /// Where the sequences of a batch begin in the split, as numbers of sequences.
    pub fn sequences(&self, batch: u64) -> Vec<u64> {
        (batch * self.batch..(batch + 1) * self.batch).map(|position| self.sampler.sequence_at(position)).collect()
    }

    /// The epoch that a batch begins in, from 0.
    pub fn epoch(&self, batch: u64) -> u64 {
        self.sampler.epoch(batch * self.batch)
    }
}

impl Batches for TrainingBatches<'_> {
    fn fill(&self, position: u64, inputs: &mut [i32], targets: &mut [i32]) -> Result<()> {
        // A micro-batch lies within one step's batch.
        let batch = self.batch_of(position / self.batch + 1);
        self.sampler.fill(self.dataset, batch * self.batch + position % self.batch, inputs, targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_pass_over_the_batches_that_are_left_out() {
        let dataset = Dataset::from_tokens((0..10_000).collect(), None).unwrap();
        let sets = ["model.seq_len=10".to_string(), "train.batch=4".into(), "train.micro_batch=2".into()];
        let config = Config::resolve(Some("demo"), None, &sets).unwrap();
        let mut batches = TrainingBatches::new(&dataset, &config).unwrap();
        let read = |batches: &TrainingBatches<'_>, step: u64| {
            let (mut inputs, mut targets) = (vec![0; 20], vec![0; 20]);
            let mut starts = Vec::new();
            for micro_batch in 0..2 {
                batches.fill((step - 1) * 4 + 2 * micro_batch, &mut inputs, &mut targets).unwrap();
                starts.extend(inputs.iter().step_by(10).map(|token| *token as u64 / 10));
            }
            starts
        };
        let all: Vec<_> = (1..9).map(|step| read(&batches, step)).collect();
        assert_eq!(all[2], batches.sequences(2));
        batches.leave_out(&[0, 3, 4]);
        let expected = [1, 2, 5, 6, 7];
        for (step, batch) in (1..).zip(expected) {
            assert_eq!(batches.batch_of(step), batch);
            assert_eq!(read(&batches, step), all[batch as usize]);
        }
    }
}
