//! Generation a token at a time: what a model has seen stays in a cache of keys and values.

use burn_tensor::Tensor;
use trainer_backends::DecoderBackend;
use trainer_backends::cache::{KeyValues, Places};
use trainer_backends::ops::{NewTokens, RotaryTable};

use super::block::{self, BlockContext};
use super::decoder::{Decoder, MicroBatchDropout};
use super::weights::Buffers;

/// The keys and values of every layer, for a number of sequences.
pub struct Cache<B: DecoderBackend> {
    layers: Vec<KeyValues<B>>,
}

impl<B: DecoderBackend> Cache<B> {
    /// For `slots` sequences of up to `positions` positions of a model whose weights are `weights`.
    pub fn new(decoder: &Decoder<B>, weights: &Buffers<B>, slots: usize, positions: usize) -> Self {
        let dims = decoder.dims(slots, 1);
        let layer = |_| KeyValues::new(slots, positions, dims, weights[0].dtype(), &decoder.device);
        Self { layers: (0..decoder.arch.layers).map(layer).collect() }
    }
}

impl<B: DecoderBackend> Decoder<B> {
    /// Takes up the first tokens of sequences: `inputs` holds as many of each, padded on the right to the longest, and
    /// `lengths` how many count. Returns the logits after each sequence's last token, fp32 `[batch, V]`.
    ///
    /// What is padded is written to the cache too, and later overwritten before it is read.
    pub fn prefill(
        &self,
        weights: &Buffers<B>,
        cache: &mut Cache<B>,
        inputs: &[i32],
        slots: &[usize],
        lengths: &[usize],
    ) -> Tensor<B, 2> {
        let (batch, none) = (slots.len(), MicroBatchDropout::default());
        let seq = inputs.len() / batch;
        let dims = self.dims(batch, seq);
        let places = Places::new(slots.to_vec(), vec![0; batch], &self.device);
        let mut x = self.embed(weights, self.tokens(inputs), seq, none);
        let mut normed = self.first_norm(weights, x.clone());
        for (layer, cache) in cache.layers.iter_mut().enumerate() {
            let context = self.context(dims, layer, none);
            let branches = block::prefill(&context, &weights[1 + layer], normed, &places, cache);
            (x, normed) = self.join(weights, layer, x, branches, &context);
        }
        let last: Vec<usize> = lengths.iter().map(|length| length - 1).collect();
        self.project(weights, self.rows_at(normed.y, seq, &last))
    }

    /// Takes up one further token of each sequence, at its position (from 0). Returns the logits after it, fp32
    /// `[batch, V]`.
    pub fn decode(
        &self,
        weights: &Buffers<B>,
        cache: &mut Cache<B>,
        tokens: &[i32],
        slots: &[usize],
        positions: &[usize],
    ) -> Tensor<B, 2> {
        let none = MicroBatchDropout::default();
        let dims = self.dims(slots.len(), 1);
        let places = Places::new(slots.to_vec(), positions.to_vec(), &self.device);
        let rows: Vec<i32> = positions.iter().map(|position| *position as i32).collect();
        let rotary = self.rotary_rows(&rows);
        let x = self.embed(weights, self.tokens(tokens), 1, none);
        let mut tokens = NewTokens { normed: self.first_norm(weights, x.clone()).y, x };
        for (layer, cache) in cache.layers.iter_mut().enumerate() {
            let context = BlockContext { rotary: &rotary, ..self.context(dims, layer, none) };
            let next = self.norm_weights(weights, layer + 1);
            tokens = block::decode(&context, &weights[1 + layer], tokens, next, &places, cache);
        }
        self.project(weights, tokens.normed)
    }

    /// cos and sin of the given positions, a row each.
    fn rotary_rows(&self, positions: &[i32]) -> RotaryTable<B> {
        if self.arch.rotary_dim == 0 {
            return self.rotary.clone();
        }
        let positions = self.tokens(positions);
        let rows = |table: &Tensor<B, 2>| table.clone().select(0, positions.clone());
        RotaryTable { cos: rows(&self.rotary.cos), sin: rows(&self.rotary.sin) }
    }
}
