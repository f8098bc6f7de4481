//! Which sequence comes when: a seekable permutation of each epoch.
//!
//! Sequence i of a split is tokens[i*T ..= i*T+T]: T inputs, and as targets the same shifted by one. An epoch visits each
//! sequence once. Its order is a keyed permutation computed entry by entry, so there is no shuffle buffer to fill, save or
//! replay: resuming at any position is O(1).

use super::dataset::Dataset;
use crate::error::{Error, Result};

/// Order of the sequences of one split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampler {
    sequences: u64,
    seq_len: usize,
    order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// A new permutation each epoch, keyed by this seed.
    Shuffled(u64),
    /// 0, 1, 2, ... for validation.
    InOrder,
}

impl Sampler {
    /// Training order over a split of `tokens` tokens, in sequences of `seq_len` tokens.
    ///
    /// # Errors
    /// Fewer tokens than one sequence and the target of its last token.
    pub fn new(tokens: u64, seq_len: usize, seed: u64) -> Result<Self> {
        Self::with_order(tokens, seq_len, Order::Shuffled(seed))
    }

    /// Validation order: the sequences as they lie in the split, so that the first batches are always the same ones.
    ///
    /// # Errors
    /// As [`Sampler::new`].
    pub fn in_order(tokens: u64, seq_len: usize) -> Result<Self> {
        Self::with_order(tokens, seq_len, Order::InOrder)
    }

    fn with_order(tokens: u64, seq_len: usize, order: Order) -> Result<Self> {
        if seq_len == 0 {
            return Err(Error::input("the sequence length is 0: it must be at least 1"));
        }
        let sequences = tokens.saturating_sub(1) / seq_len as u64;
        if sequences == 0 {
            return Err(Error::input(format!(
                "expected at least {} tokens (one sequence of {seq_len} and its last target), found {tokens}: prepare more \
                 data, or use a shorter sequence length",
                seq_len + 1
            )));
        }
        Ok(Self { sequences, seq_len, order })
    }

    /// Sequences an epoch: (tokens - 1) / T.
    pub fn sequences(&self) -> u64 {
        self.sequences
    }

    /// T.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// The epoch that `position` (sequences consumed since step 0) lies in.
    pub fn epoch(&self, position: u64) -> u64 {
        position / self.sequences
    }

    /// The sequence to read at `position`, the number of sequences consumed since step 0.
    pub fn sequence_at(&self, position: u64) -> u64 {
        let (epoch, index) = (position / self.sequences, position % self.sequences);
        match self.order {
            Order::InOrder => index,
            Order::Shuffled(seed) => permute(index, self.sequences, mix(mix(seed) ^ epoch)),
        }
    }

    /// Fills `inputs` and `targets`, both [B, T] row-major, with the B sequences from `position` on. B is
    /// `inputs.len() / T`.
    ///
    /// # Errors
    /// Buffers that are not whole sequences of the same number, or a data set shorter than the sampler was made for.
    pub fn fill(&self, dataset: &Dataset, position: u64, inputs: &mut [i32], targets: &mut [i32]) -> Result<()> {
        let t = self.seq_len;
        if inputs.len() != targets.len() || !inputs.len().is_multiple_of(t) {
            return Err(Error::failed(format!(
                "expected inputs and targets of B x {t} tokens each, found {} and {}",
                inputs.len(),
                targets.len()
            )));
        }
        let mut tokens = vec![0u16; t + 1];
        let rows = inputs.chunks_exact_mut(t).zip(targets.chunks_exact_mut(t));
        for (position, (inputs, targets)) in (position..).zip(rows) {
            dataset.read(self.sequence_at(position) * t as u64, &mut tokens)?;
            for (input, &token) in inputs.iter_mut().zip(&tokens[..t]) {
                *input = i32::from(token);
            }
            for (target, &token) in targets.iter_mut().zip(&tokens[1..]) {
                *target = i32::from(token);
            }
        }
        Ok(())
    }
}

/// Rounds of the network. Four make a pseudo-random permutation of a good round function (Luby and Rackoff 1988); the
/// rest is for small domains.
const ROUNDS: u64 = 8;
/// Half-blocks of at least this many bits, so that even a handful of sequences gets well-mixed orders.
const MIN_HALF_BITS: u32 = 4;

/// Entry `index` of the permutation of 0..n that `key` names: a balanced Feistel network over the next power of four,
/// walked along its cycle until it lands inside 0..n again (Black and Rogaway 2002). Expected steps: below 4 for n > 64.
fn permute(index: u64, n: u64, key: u64) -> u64 {
    debug_assert!(index < n);
    if n == 1 {
        return 0;
    }
    let bits = u64::BITS - (n - 1).leading_zeros();
    let half = bits.div_ceil(2).max(MIN_HALF_BITS);
    let mask = (1u64 << half) - 1;
    let mut value = index;
    loop {
        let (mut left, mut right) = (value >> half, value & mask);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ (mix(right ^ mix(key.wrapping_add(round))) & mask));
        }
        value = left << half | right;
        if value < n {
            return value;
        }
    }
}

/// The output function of SplitMix64 (Steele, Lea and Flood 2014).
pub(super) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(sampler: &Sampler, epoch: u64) -> Vec<u64> {
        let n = sampler.sequences();
        (epoch * n..(epoch + 1) * n).map(|position| sampler.sequence_at(position)).collect()
    }

    fn with(n: u64, seed: u64) -> Sampler {
        Sampler::new(n * 8 + 1, 8, seed).unwrap()
    }

    #[test]
    fn every_epoch_visits_every_sequence_once() {
        for n in (1..70).chain([97, 127, 128, 255, 256, 257, 509, 512, 1000, 1021, 1024, 4096, 4099, 65_536, 65_537]) {
            for (seed, number) in [(0, 0), (0, 1), (7, 0), (u64::MAX, 3)] {
                let mut order = epoch(&with(n, seed), number);
                order.sort_unstable();
                assert!(order.into_iter().eq(0..n), "n {n}, seed {seed}, epoch {number}");
            }
        }
    }

    #[test]
    fn orders_differ_by_epoch_and_by_seed_and_are_not_the_identity() {
        for n in [16, 61, 64, 1000] {
            let first = epoch(&with(n, 1), 0);
            assert_ne!(first, epoch(&with(n, 1), 1));
            assert_ne!(first, epoch(&with(n, 2), 0));
            assert!(!first.iter().copied().eq(0..n));
            assert_eq!(first, epoch(&with(n, 1), 0));
        }
        let orders: std::collections::HashSet<_> = (0..100).map(|number| epoch(&with(3, 5), number)).collect();
        assert_eq!(orders.len(), 6, "three sequences come in every order");
    }

    /// Entry 0 over many keys must be uniform. Chi-square, 63 degrees of freedom: above 120 has probability about 2e-5.
    #[test]
    fn first_entries_are_uniform() {
        let (n, draws) = (64u64, 64_000u64);
        let mut counts = vec![0f64; n as usize];
        for seed in 0..draws {
            counts[permute(0, n, mix(seed)) as usize] += 1.0;
        }
        let expected = draws as f64 / n as f64;
        let chi_square: f64 = counts.iter().map(|count| (count - expected).powi(2) / expected).sum();
        assert!(chi_square < 120.0, "{chi_square}");
    }

    #[test]
    fn a_billion_sequences_need_no_memory() {
        let n = 1_000_000_007u64;
        let sampler = Sampler::new(n * 2048 + 1, 2048, 9).unwrap();
        let far = 5 * n + 123_456_789;
        let sample: std::collections::HashSet<u64> = (far..far + 100_000).map(|p| sampler.sequence_at(p)).collect();
        assert_eq!(sample.len(), 100_000);
        assert!(sample.iter().all(|&sequence| sequence < n));
        assert_eq!(sampler.epoch(far), 5);
    }

    #[test]
    fn every_token_of_an_epoch_is_seen_exactly_once() {
        let (t, n) = (8usize, 37u64);
        let tokens: Vec<u16> = (0..n as u16 * 8 + 5).collect();
        let dataset = Dataset::from_tokens(tokens, None).unwrap();
        let sampler = Sampler::new(dataset.tokens(), t, 3).unwrap();
        assert_eq!(sampler.sequences(), n);
        let (mut inputs, mut targets) = (vec![0; t * n as usize], vec![0; t * n as usize]);
        sampler.fill(&dataset, n, &mut inputs, &mut targets).unwrap();
        assert!(inputs.iter().zip(&targets).all(|(input, target)| input + 1 == *target));
        inputs.sort_unstable();
        assert!(inputs.into_iter().eq(0..n as i32 * 8));
    }

    #[test]
    fn batches_are_the_same_however_they_are_cut() {
        let dataset = Dataset::from_tokens((0..1000).collect(), None).unwrap();
        let sampler = Sampler::new(1000, 10, 4).unwrap();
        let (mut whole, mut part, mut targets) = (vec![0; 60], vec![0; 10], vec![0; 60]);
        sampler.fill(&dataset, 95, &mut whole, &mut targets).unwrap();
        for row in 0..6 {
            sampler.fill(&dataset, 95 + row, &mut part, &mut targets[..10]).unwrap();
            assert_eq!(part, whole[row as usize * 10..][..10]);
        }
        assert!(sampler.fill(&dataset, 0, &mut part[..9], &mut targets[..9]).is_err());
    }

    #[test]
    fn validation_reads_in_order_and_too_few_tokens_are_refused() {
        let sampler = Sampler::in_order(101, 10).unwrap();
        assert!((0..10).all(|position| sampler.sequence_at(position) == position));
        assert_eq!(Sampler::new(11, 10, 0).unwrap().sequences(), 1);
        let message = Sampler::new(10, 10, 0).unwrap_err().to_string();
        assert!(message.contains("at least 11 tokens") && message.contains("found 10"), "{message}");
        assert!(Sampler::new(100, 0, 0).is_err());
    }
}
