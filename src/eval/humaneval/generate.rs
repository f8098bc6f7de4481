//! The texts that a model continues prompts with, up to where a completion ends.

use trainer_backends::DecoderBackend;

use super::truncate::STOPS;
use crate::data::tokenizer::Tokenizer;
use crate::error::Result;
use crate::eval::generate::stop::Text;
use crate::eval::generate::{Generation, Next, Pace, complete};
use crate::model::{Buffers, Decoder};

/// Texts, one a prompt, with what they took.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// Not yet cut at the first stop.
    pub texts: Vec<String>,
    pub tokens: usize,
    pub pace: Pace,
}

/// Continues `prompts` until each text has come to a stop, to its end, or to `generation.max_tokens`.
///
/// # Errors
/// A prompt that the tokenizer cannot encode, tokens that it cannot decode.
pub fn texts<B: DecoderBackend>(
    decoder: &Decoder<B>,
    weights: &Buffers<B>,
    tokenizer: &Tokenizer,
    prompts: &[String],
    generation: &Generation,
) -> Result<Texts> {
    // In the code that a model was trained on, a line's end and the next line's blanks are one token: it begins with that.
    let prompts: Vec<Vec<u32>> =
        prompts.iter().map(|prompt| tokenizer.encode(prompt.trim_end())).collect::<Result<_>>()?;
    let stops = STOPS.map(str::to_owned);
    let mut texts: Vec<Text> = prompts.iter().map(|_| Text::new(tokenizer, &stops)).collect();
    let mut broken = Ok(());
    let (completions, pace) =
        complete(decoder, weights, &prompts, generation, |i, token| match texts[i].push(token) {
            Ok(false) => Next::Continue,
            Ok(true) => Next::Stop,
            Err(error) => {
                broken = Err(error);
                Next::Stop
            }
        })?;
    broken?;
    let tokens = completions.iter().map(|completion| completion.tokens.len()).sum();
    Ok(Texts { texts: texts.iter().map(Text::text).collect(), tokens, pace })
}
