//! Text from a model, a token at a time.

use trainer_backends::DecoderBackend;
use trainer_backends::dropout::mix64;

use crate::error::{Error, Result};
use crate::model::weights::download_one;
use crate::model::{Buffers, Decoder};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0: always the likeliest token.
    pub temperature: f64,
    /// Only the likeliest tokens that together have this probability.
    pub top_p: f64,
    /// Only this many of the likeliest tokens.
    pub top_k: Option<usize>,
    pub seed: u64,
}

impl Sampling {
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0, top_k: None, seed: 0 };
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    EndOfText,
    Length,
}

/// One prompt's continuation, without the prompt and without the end-of-text token.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    pub tokens: Vec<u32>,
    pub ending: Ending,
}

/// Continues each prompt by up to `max_tokens` tokens, all prompts at once.
///
/// Sequences are padded on the right: attention is causal, so what follows a position does not reach it. A sequence that
/// outgrows the model's context goes on with its last `context` tokens.
/// `sampled` is called after each round with the index of each sequence that got a token, and the token.
///
/// # Errors
/// A prompt without tokens.
pub fn complete<B: DecoderBackend>(
    decoder: &Decoder<B>,
    weights: &Buffers<B>,
    prompts: &[Vec<u32>],
    end_of_text: Option<u32>,
    max_tokens: usize,
    sampling: Sampling,
    mut sampled: impl FnMut(usize, u32),
) -> Result<Vec<Completion>> {
    if prompts.iter().any(Vec::is_empty) {
        return Err(Error::input("the prompt is empty: give at least one token of text"));
    }
    let context = decoder.arch.context;
    let mut sequences = prompts.to_vec();
    let mut endings: Vec<Option<Ending>> = vec![None; prompts.len()];
    for round in 0..max_tokens {
        let live: Vec<usize> = (0..prompts.len()).filter(|i| endings[*i].is_none()).collect();
        if live.is_empty() {
            break;
        }
        let windows: Vec<&[u32]> =
            live.iter().map(|&i| &sequences[i][sequences[i].len().saturating_sub(context)..]).collect();
        let seq = windows.iter().map(|window| window.len()).max().unwrap_or(1);
        let mut inputs = vec![0i32; windows.len() * seq];
        for (row, window) in inputs.chunks_exact_mut(seq).zip(&windows) {
            row.iter_mut().zip(*window).for_each(|(input, token)| *input = *token as i32);
        }
        let positions: Vec<usize> = windows.iter().map(|window| window.len() - 1).collect();
        let logits = download_one(&decoder.logits_at(weights, &inputs, &positions));
        let vocab = decoder.arch.vocab;
        for (row, &i) in logits.chunks_exact(vocab).zip(&live) {
            // A draw depends on the seed, the sequence and the round only, whatever else is in the batch.
            let draw = mix64(mix64(sampling.seed ^ mix64(i as u64)) ^ round as u64);
            let token = choose(row, sampling, draw);
            if Some(token) == end_of_text {
                endings[i] = Some(Ending::EndOfText);
            } else {
                sequences[i].push(token);
                sampled(i, token);
            }
        }
    }
    let completions = sequences.into_iter().zip(prompts).zip(endings);
    Ok(completions
        .map(|((sequence, prompt), ending)| Completion {
            tokens: sequence[prompt.len()..].to_vec(),
            ending: ending.unwrap_or(Ending::Length),
        })
        .collect())
}

/// The next token by `logits` `[V]`; `draw` supplies the randomness.
pub fn choose(logits: &[f32], sampling: Sampling, draw: u64) -> u32 {
    let likeliest = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    let Sampling { temperature, top_p, top_k, .. } = sampling;
    let mut order: Vec<usize> = (0..logits.len()).filter(|i| !logits[*i].is_nan()).collect();
    let Some(best) = order.iter().copied().min_by(likeliest) else { return 0 };
    if temperature <= 0.0 {
        return best as u32;
    }
    order.sort_unstable_by(likeliest);
    order.truncate(top_k.unwrap_or(usize::MAX).max(1));
    let top = f64::from(logits[best]);
    let weights: Vec<f64> = order.iter().map(|&i| ((f64::from(logits[i]) - top) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut kept = 0.0;
    let mut nucleus = 0;
    while nucleus < weights.len() && (nucleus == 0 || kept < top_p * total) {
        kept += weights[nucleus];
        nucleus += 1;
    }
    // 53 bits: a uniform number in [0, 1).
    let mut left = (draw >> 11) as f64 / (1u64 << 53) as f64 * kept;
    for (&i, weight) in order[..nucleus].iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return i as u32;
        }
    }
    order[nucleus - 1] as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for i in 0..20_000 {
            counts[choose(logits, sampling, mix64(i)) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_likeliest() {
        assert_eq!(choose(&[0.0, 3.0, 3.0, -1.0], Sampling::GREEDY, 7), 1);
        assert_eq!(choose(&[f32::NAN, -2.0], Sampling::GREEDY, 7), 1);
    }

    #[test]
    fn sampling_follows_the_distribution() {
        // Probabilities 0.5, 0.25, 0.125, 0.125.
        let logits = [2f32.ln() * 2.0, 2f32.ln(), 0.0, 0.0];
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, top_k: None, seed: 0 };
        // Standard deviation of a share: at most 0.0035; five of them.
        for (share, expected) in shares(sampling, &logits).iter().zip([0.5, 0.25, 0.125, 0.125]) {
            assert!((share - expected).abs() < 0.018, "{share} {expected}");
        }
        let nucleus = shares(Sampling { top_p: 0.7, ..sampling }, &logits);
        assert!((nucleus[0] - 2.0 / 3.0).abs() < 0.018 && nucleus[2] == 0.0, "{nucleus:?}");
        let two = shares(Sampling { top_k: Some(1), ..sampling }, &logits);
        assert_eq!(two[0].round(), 1.0);
        // Half the temperature squares the odds: 16 : 4 : 1 : 1.
        let sharp = shares(Sampling { temperature: 0.5, ..sampling }, &logits);
        assert!((sharp[0] - 16.0 / 22.0).abs() < 0.018, "{sharp:?}");
    }
}
