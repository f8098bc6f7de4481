//! Text from a model, a token at a time, several sequences side by side.

mod engine;
mod sampling;
pub mod stop;

use std::ops::Range;
use std::time::Instant;

use rayon::prelude::*;
use trainer_backends::DecoderBackend;
use trainer_backends::dropout::mix64;

use engine::{Engine, Row};
pub use sampling::{Sampling, choose};

use crate::breakdown;
use crate::error::{Error, Result};
use crate::model::{Buffers, Decoder};

/// How completions are made.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Of each prompt, at most.
    pub max_tokens: usize,
    /// The token that ends a completion.
    pub end_of_text: Option<u32>,
    pub sampling: Sampling,
    /// Of each prompt: what its random numbers depend on beside the seed. Empty: its index.
    pub streams: Vec<u64>,
    /// Sequences at a time: as one ends, the next prompt takes its place.
    pub batch: usize,
    /// Keep keys and values; without, every token computes the whole sequence again.
    pub cache: bool,
}

impl Generation {
    /// Sequences at a time where nothing else is said.
    pub const BATCH: usize = 16;
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    EndOfText,
    Length,
    /// The caller had enough.
    Stopped,
}

/// What the caller wants after a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Continue,
    Stop,
}

/// One prompt's continuation, without the prompt and without the end-of-text token.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    pub tokens: Vec<u32>,
    pub ending: Ending,
}

/// What completions took.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Pace {
    pub prompt_tokens: usize,
    /// Taking up prompts (and windows that moved), their first tokens included.
    pub prompt_seconds: f64,
    /// Tokens after each prompt's first.
    pub tokens: usize,
    pub seconds: f64,
}

impl Pace {
    /// Tokens a second once prompts are taken up.
    pub fn tokens_per_s(&self) -> f64 {
        if self.seconds > 0.0 { self.tokens as f64 / self.seconds } else { 0.0 }
    }

    pub fn prompt_tokens_per_s(&self) -> f64 {
        if self.prompt_seconds > 0.0 { self.prompt_tokens as f64 / self.prompt_seconds } else { 0.0 }
    }
}

/// A sequence that is being continued.
struct Sequence {
    /// Index of its prompt.
    prompt: usize,
    stream: u64,
    slot: usize,
    tokens: Vec<u32>,
    /// Tokens of the prompt.
    given: usize,
}

/// The last tokens of a sequence of `len` that a model with `context` positions sees. A sequence that outgrows the context
/// drops its older half each time, so that keys and values serve for many tokens before they are computed again.
fn window(len: usize, context: usize) -> Range<usize> {
    let dropped = len.saturating_sub(context).div_ceil((context / 2).max(1)) * (context / 2).max(1);
    dropped.min(len - 1)..len
}

/// Continues each prompt. `sampled` is called with each prompt's index and each token that it got, end of text aside.
///
/// What a sequence gets depends on the seed, its stream and its tokens, whatever is computed beside it.
///
/// # Errors
/// A prompt without tokens.
pub fn complete<B: DecoderBackend>(
    decoder: &Decoder<B>,
    weights: &Buffers<B>,
    prompts: &[Vec<u32>],
    generation: &Generation,
    mut sampled: impl FnMut(usize, u32) -> Next,
) -> Result<(Vec<Completion>, Pace)> {
    if prompts.iter().any(Vec::is_empty) {
        return Err(Error::input("the prompt is empty: give at least one token of text"));
    }
    let Generation { max_tokens, end_of_text, sampling, cache, .. } = *generation;
    assert!(generation.streams.is_empty() || generation.streams.len() == prompts.len(), "a stream for each prompt");
    let context = decoder.arch.context;
    let slots = generation.batch.clamp(1, prompts.len().max(1));
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(1) + max_tokens;
    let mut engine = Engine::new(decoder, weights, slots, longest.min(context), cache);
    let mut pace = Pace::default();
    let mut completions: Vec<Option<Completion>> = vec![None; prompts.len()];
    let mut waiting = prompts.iter().enumerate();
    let mut free: Vec<usize> = (0..slots).rev().collect();
    let mut live: Vec<Sequence> = Vec::new();
    loop {
        while let Some(slot) = free.pop() {
            let Some((prompt, tokens)) = waiting.next() else { break };
            let stream = generation.streams.get(prompt).copied().unwrap_or(prompt as u64);
            live.push(Sequence { prompt, stream, slot, tokens: tokens.clone(), given: tokens.len() });
        }
        if live.is_empty() {
            break;
        }
        let rows: Vec<Row> = live.iter().map(|sequence| row(sequence, context)).collect();
        let started = Instant::now();
        let (of_prompts, logits) = engine.logits(&rows);
        breakdown::check()?;
        let pick = |(sequence, logits): (&Sequence, &[f32])| choose(logits, sampling, draw(sampling, sequence));
        let chosen: Vec<u32> = match &live[..] {
            // Another thread would take longer to wake than this takes.
            [one] => vec![pick((one, &logits))],
            several => several.par_iter().zip(logits.par_chunks_exact(decoder.arch.vocab)).map(pick).collect(),
        };
        let elapsed = started.elapsed().as_secs_f64();
        if of_prompts > 0 {
            pace.prompt_tokens += of_prompts;
            pace.prompt_seconds += elapsed;
        } else {
            pace.tokens += chosen.len();
            pace.seconds += elapsed;
        }
        let mut rest = Vec::with_capacity(live.len());
        for (mut sequence, token) in live.drain(..).zip(chosen) {
            let ending = if Some(token) == end_of_text {
                Some(Ending::EndOfText)
            } else {
                sequence.tokens.push(token);
                match sampled(sequence.prompt, token) {
                    Next::Stop => Some(Ending::Stopped),
                    Next::Continue if sequence.tokens.len() - sequence.given >= max_tokens => Some(Ending::Length),
                    Next::Continue => None,
                }
            };
            match ending {
                None => rest.push(sequence),
                Some(ending) => {
                    free.push(sequence.slot);
                    let tokens = sequence.tokens.split_off(sequence.given);
                    completions[sequence.prompt] = Some(Completion { tokens, ending });
                }
            }
        }
        live = rest;
    }
    Ok((completions.into_iter().flatten().collect(), pace))
}

/// What the engine has to know of a sequence.
fn row(sequence: &Sequence, context: usize) -> Row<'_> {
    let len = sequence.tokens.len();
    let now = window(len, context);
    let goes_on = len > sequence.given && window(len - 1, context).start == now.start;
    Row { slot: sequence.slot, window: &sequence.tokens[now], goes_on }
}

/// The randomness of a sequence's next token.
fn draw(sampling: Sampling, sequence: &Sequence) -> u64 {
    let round = (sequence.tokens.len() - sequence.given) as u64;
    mix64(mix64(sampling.seed ^ mix64(sequence.stream)) ^ round)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_fit_and_move_by_halves() {
        for context in [1, 2, 3, 8, 9] {
            let mut starts = Vec::new();
            for len in 1..60 {
                let window = window(len, context);
                assert_eq!(window.end, len);
                assert!(!window.is_empty() && window.len() <= context, "{len} in {context}: {window:?}");
                assert!(len <= context || window.len() > context - (context / 2).max(1), "{len} in {context}");
                starts.push(window.start);
            }
            assert!(starts.is_sorted());
        }
        assert_eq!(window(8, 8), 0..8);
        assert_eq!(window(9, 8), 4..9);
        assert_eq!(window(12, 8), 4..12);
        assert_eq!(window(13, 8), 8..13);
    }
}
