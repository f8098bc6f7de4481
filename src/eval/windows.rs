//! How a row of tokens is cut into the windows that a model scores.

use crate::error::{Error, Result};

/// One window: `len` input tokens from `start` on, each with the token behind it as target, of which the last `scored`
/// count (the others are context).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub start: u64,
    pub len: usize,
    pub scored: usize,
}

/// Windows of `seq` tokens, each `stride` tokens behind the one before it, as in transformers' guide to the perplexity
/// of models with a fixed length. Every token but the first is scored once, by the first window that reaches it: with
/// `stride` equal to `seq` the windows do not overlap, with a smaller one each token but the first `seq` has at least
/// `seq - stride` tokens of context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Tokens that have one before them.
    targets: u64,
    seq: usize,
    stride: usize,
    count: u64,
}

impl Windows {
    /// `tail`: what is left over behind the last whole window is scored too, in a shorter one. Without it the windows
    /// are those of a run's validation (`Sampler::in_order`).
    ///
    /// # Errors
    /// A stride of 0 or above `seq`, or too few tokens for one window.
    pub fn new(tokens: u64, seq: usize, stride: usize, tail: bool) -> Result<Self> {
        if !(1..=seq).contains(&stride) {
            return Err(Error::input(format!(
                "a stride of {stride} is not between 1 and the {seq} tokens of a window: tokens would be left out"
            )));
        }
        let targets = tokens.saturating_sub(1);
        let needed = if tail { 1 } else { seq as u64 };
        if targets < needed {
            return Err(Error::input(format!(
                "expected at least {} tokens (a token is scored after the one before it), found {tokens}: use more \
                 data, or a shorter sequence length",
                needed + 1
            )));
        }
        let behind_first = targets.saturating_sub(seq as u64);
        let steps = if tail { behind_first.div_ceil(stride as u64) } else { behind_first / stride as u64 };
        Ok(Self { targets, seq, stride, count: 1 + steps })
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Tokens scored by the first `windows` of them: tokens 1 to this number of the row.
    pub fn scored(&self, windows: u64) -> u64 {
        match windows.min(self.count) {
            0 => 0,
            windows => self.end(windows - 1),
        }
    }

    /// Targets that the window and those before it reach.
    fn end(&self, window: u64) -> u64 {
        (window * self.stride as u64 + self.seq as u64).min(self.targets)
    }

    /// The windows in order.
    pub fn iter(self) -> impl Iterator<Item = Window> {
        (0..self.count).map(move |index| {
            let start = index * self.stride as u64;
            let end = self.end(index);
            let before = if index == 0 { 0 } else { self.end(index - 1) };
            Window { start, len: (end - start) as usize, scored: (end - before) as usize }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::sampler::Sampler;

    #[test]
    fn every_token_but_the_first_is_scored_once_with_the_context_promised() {
        for tokens in 2..60u64 {
            for (seq, stride) in [(1, 1), (7, 7), (8, 3), (8, 8), (16, 1), (100, 100), (100, 9)] {
                let windows = Windows::new(tokens, seq, stride, true).unwrap();
                let mut next = 1;
                for window in windows.iter() {
                    let end = window.start + window.len as u64;
                    assert!(window.len <= seq && window.scored <= window.len && window.scored > 0, "{window:?}");
                    assert_eq!(end + 1 - window.scored as u64, next, "{tokens} {seq} {stride} {window:?}");
                    let context = (window.len - window.scored + 1) as u64;
                    assert!(
                        next <= seq as u64 || context > (seq - stride) as u64,
                        "{tokens} {seq} {stride} {window:?}"
                    );
                    next = end + 1;
                }
                assert_eq!(next, tokens, "{seq} {stride}");
                assert_eq!(windows.iter().count() as u64, windows.count());
                assert_eq!(windows.scored(u64::MAX), tokens - 1);
                assert_eq!(windows.scored(1), (seq as u64).min(tokens - 1));
            }
        }
    }

    #[test]
    fn without_the_tail_they_are_those_of_a_validation() {
        for tokens in 9..60 {
            let sampler = Sampler::in_order(tokens, 8).unwrap();
            let windows = Windows::new(tokens, 8, 8, false).unwrap();
            assert_eq!(windows.count(), sampler.sequences());
            assert!(windows.iter().all(|window| window.len == 8 && window.scored == 8 && window.start % 8 == 0));
        }
    }

    #[test]
    fn what_cannot_be_scored_is_refused() {
        for (tokens, seq, stride, tail, part) in [
            (1, 8, 8, true, "at least 2 tokens"),
            (0, 8, 8, true, "found 0"),
            (8, 8, 8, false, "at least 9 tokens"),
            (100, 8, 9, true, "stride of 9"),
            (100, 8, 0, true, "stride of 0"),
        ] {
            let message = Windows::new(tokens, seq, stride, tail).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
