//! The next token's logits of several sequences, with a cache of keys and values or without.

use trainer_backends::DecoderBackend;

use crate::model::cache::Cache;
use crate::model::weights::take_one;
use crate::model::{Buffers, Decoder};

/// Tokens of prompts that are taken up at a time (one longer prompt is taken alone).
const PREFILL_TOKENS: usize = 8192;

/// A sequence as the model sees it.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// Its place in the cache.
    pub slot: usize,
    pub window: &'a [u32],
    /// All but the window's last token were there in the call before.
    pub goes_on: bool,
}

pub struct Engine<'a, B: DecoderBackend> {
    decoder: &'a Decoder<B>,
    weights: &'a Buffers<B>,
    cache: Option<Cache<B>>,
}

impl<'a, B: DecoderBackend> Engine<'a, B> {
    /// For windows of up to `positions` tokens in slots below `slots`.
    pub fn new(decoder: &'a Decoder<B>, weights: &'a Buffers<B>, slots: usize, positions: usize, cache: bool) -> Self {
        let cache = cache.then(|| Cache::new(decoder, weights, slots, positions));
        Self { decoder, weights, cache }
    }

    /// The logits after each row, fp32, one after the other; and how many tokens were taken up from their beginning.
    pub fn logits(&mut self, rows: &[Row]) -> (usize, Vec<f32>) {
        let (on, from_start): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(|&i| rows[i].goes_on);
        let mut parts = Vec::new();
        for group in groups(&from_start, rows) {
            parts.push((self.whole_windows(&group, rows), group));
        }
        match &mut self.cache {
            _ if on.is_empty() => {}
            Some(cache) => {
                let tokens: Vec<i32> = on.iter().map(|&i| rows[i].window[rows[i].window.len() - 1] as i32).collect();
                let slots: Vec<usize> = on.iter().map(|&i| rows[i].slot).collect();
                let positions: Vec<usize> = on.iter().map(|&i| rows[i].window.len() - 1).collect();
                let values = self.decoder.decode(self.weights, cache, &tokens, &slots, &positions);
                parts.push((take_one(values), on));
            }
            None => {
                for group in groups(&on, rows) {
                    parts.push((self.whole_windows(&group, rows), group));
                }
            }
        }
        let taken_up = from_start.iter().map(|&i| rows[i].window.len()).sum();
        (taken_up, in_order(parts, rows.len(), self.decoder.arch.vocab))
    }

    /// Computes whole windows, padded on the right: attention is causal, so what follows a position does not reach it.
    fn whole_windows(&mut self, group: &[usize], rows: &[Row]) -> Vec<f32> {
        let seq = group.iter().map(|&i| rows[i].window.len()).max().unwrap_or(1);
        let mut inputs = vec![0i32; group.len() * seq];
        for (row, &i) in inputs.chunks_exact_mut(seq).zip(group) {
            row.iter_mut().zip(rows[i].window).for_each(|(input, token)| *input = *token as i32);
        }
        let lengths: Vec<usize> = group.iter().map(|&i| rows[i].window.len()).collect();
        let values = match &mut self.cache {
            Some(cache) => {
                let slots: Vec<usize> = group.iter().map(|&i| rows[i].slot).collect();
                self.decoder.prefill(self.weights, cache, &inputs, &slots, &lengths)
            }
            None => {
                let last: Vec<usize> = lengths.iter().map(|length| length - 1).collect();
                self.decoder.logits_at(self.weights, &inputs, &last)
            }
        };
        take_one(values)
    }
}

/// Values of `rows` rows, `width` each, out of parts that say which rows they are.
fn in_order(mut parts: Vec<(Vec<f32>, Vec<usize>)>, rows: usize, width: usize) -> Vec<f32> {
    if let [(_, indices)] = &parts[..]
        && indices.is_sorted()
        && indices.len() == rows
    {
        return parts.remove(0).0;
    }
    let mut all = vec![0.0; rows * width];
    for (values, indices) in parts {
        for (i, values) in indices.into_iter().zip(values.chunks_exact(width)) {
            all[i * width..(i + 1) * width].copy_from_slice(values);
        }
    }
    all
}

/// `indices` in groups that hold no more than `PREFILL_TOKENS` tokens, padding included.
fn groups(indices: &[usize], rows: &[Row]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut longest = 0;
    for &i in indices {
        let len = rows[i].window.len();
        match groups.last_mut() {
            Some(group) if (group.len() + 1) * longest.max(len) <= PREFILL_TOKENS => {
                longest = longest.max(len);
                group.push(i);
            }
            _ => {
                longest = len;
                groups.push(vec![i]);
            }
        }
    }
    groups
}
