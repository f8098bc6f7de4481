//! The best checkpoint by what the model solves, where that is asked for.

use std::sync::Arc;
use std::time::Duration;

use trainer_backends::DecoderBackend;

use crate::config::{Config, Select};
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::eval::execute::{Python, Verdict, run_many};
use crate::eval::generate::{Generation, Sampling};
use crate::eval::humaneval::generate::texts;
use crate::eval::humaneval::problems::Problems;
use crate::eval::humaneval::score::limits;
use crate::eval::humaneval::truncate::truncate;
use crate::model::{Buffers, Decoder};
use crate::train::input::TrainingData;

/// Of a completion, at most: as `trainer humaneval`.
const MAX_TOKENS: usize = 512;
/// Of a program: as the official harness.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Problems, and what it takes to judge answers to them.
pub(super) struct Selection {
    problems: Problems,
    tokenizer: Arc<Tokenizer>,
    python: Python,
}

impl Selection {
    /// `None` where the validation loss decides.
    ///
    /// # Errors
    /// No problems, no tokenizer beside the data, no Python.
    pub fn open(config: &Config, data: &TrainingData) -> Result<Option<Self>> {
        let (Select::Humaneval, Some(path)) = (config.validation.select, &config.validation.problems) else {
            return Ok(None);
        };
        let problems = Problems::read(path)?;
        let tokenizer = data.tokenizer.clone().ok_or_else(|| {
            Error::input(
                "--select humaneval needs the data's tokenizer.json to write text with, and the data has none: prepare it \
                 with `trainer prepare`",
            )
        })?;
        let python = Python::find()
            .ok_or_else(|| Error::input("--select humaneval runs what the model writes: install python3"))?;
        Ok(Some(Self { problems, tokenizer, python }))
    }

    /// The share of problems whose likeliest completion passes, which is pass@1 of one greedy sample each.
    ///
    /// # Errors
    /// A program that cannot be run.
    pub fn pass_at_1<B: DecoderBackend>(&self, decoder: &Decoder<B>, weights: &Buffers<B>) -> Result<f64> {
        let problems = self.problems.all();
        let prompts: Vec<String> = problems.iter().map(|problem| problem.prompt.clone()).collect();
        let generation = Generation {
            max_tokens: MAX_TOKENS,
            end_of_text: Some(self.tokenizer.end_of_text()),
            sampling: Sampling::GREEDY,
            streams: Vec::new(),
            batch: Generation::BATCH,
            cache: true,
        };
        let written = texts(decoder, weights, &self.tokenizer, &prompts, &generation)?;
        let programs: Vec<String> =
            problems.iter().zip(&written.texts).map(|(problem, text)| problem.program(truncate(text))).collect();
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let verdicts = run_many(&self.python, &programs, &limits(TIMEOUT), jobs)?;
        let passed = verdicts.iter().filter(|verdict| **verdict == Verdict::Passed).count();
        Ok(passed as f64 / problems.len() as f64)
    }
}
