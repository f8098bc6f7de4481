//! What the model writes as it learns, for people to look at.

use std::sync::Arc;

use trainer_backends::DecoderBackend;

use crate::config::Config;
use crate::data::tokenizer::Tokenizer;
use crate::error::Result;
use crate::eval::generate::{Generation, Next, Sampling, complete};
use crate::model::{Buffers, Decoder};
use crate::report::samples::SampleRecord;
use crate::train::input::TrainingData;

/// Tokens of a beginning, and of what is written behind it, at most.
const PROMPT: usize = 32;
const TOKENS: usize = 64;

/// Beginnings out of the validation part, the same at every validation.
pub(super) struct Samples {
    prompts: Vec<Vec<u32>>,
    tokenizer: Arc<Tokenizer>,
}

impl Samples {
    /// `None` where none are wanted, and where there is no validation or nothing to write text with.
    ///
    /// # Errors
    /// Validation data that cannot be read.
    pub fn open(config: &Config, data: &TrainingData) -> Result<Option<Self>> {
        let count = config.validation.samples;
        let (Some(val), Some(tokenizer)) = (&data.val, &data.tokenizer) else { return Ok(None) };
        let len = PROMPT.min(config.model.seq_len / 2).max(1);
        if count == 0 || config.validation.every == 0 || val.tokens() < len as u64 {
            return Ok(None);
        }
        // Spread over the part, whose documents may be of several kinds.
        let places = (val.tokens() - len as u64) / count as u64;
        let prompt = |i: u64| -> Result<Vec<u32>> {
            let mut tokens = vec![0u16; len];
            val.read(i * places, &mut tokens)?;
            Ok(tokens.into_iter().map(u32::from).collect())
        };
        let prompts = (0..count as u64).map(prompt).collect::<Result<_>>()?;
        Ok(Some(Self { prompts, tokenizer: tokenizer.clone() }))
    }

    /// The likeliest continuation of each.
    ///
    /// # Errors
    /// The device has broken down; tokens that the tokenizer cannot decode.
    pub fn write<B: DecoderBackend>(
        &self,
        decoder: &Decoder<B>,
        weights: &Buffers<B>,
        step: u64,
    ) -> Result<Vec<SampleRecord>> {
        let room = decoder.arch.context.saturating_sub(self.prompts[0].len());
        let generation = Generation {
            max_tokens: TOKENS.min(room).max(1),
            end_of_text: Some(self.tokenizer.end_of_text()),
            sampling: Sampling::GREEDY,
            streams: Vec::new(),
            batch: Generation::BATCH,
            cache: true,
        };
        let (completions, _) = complete(decoder, weights, &self.prompts, &generation, |_, _| Next::Continue)?;
        let decode = |(prompt, tokens): (&Vec<u32>, Vec<u32>)| {
            Ok(SampleRecord { step, prompt: self.tokenizer.decode(prompt)?, text: self.tokenizer.decode(&tokens)? })
        };
        self.prompts.iter().zip(completions.into_iter().map(|completion| completion.tokens)).map(decode).collect()
    }
}
