//! A small deterministic random source: the exercises must be the same on every platform and for every version of every crate.

/// SplitMix64's output function (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hash of a text, the same on every platform (FNV-1a, then mixed so that its low bits are usable).
pub(super) fn hash_text(text: &str) -> u64 {
    let fnv =
        text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    mix(fnv)
}

/// A stream of random choices that depends on its key alone.
pub(super) struct Draw {
    state: u64,
}

impl Draw {
    pub fn new(key: &[u64]) -> Self {
        Self { state: key.iter().fold(0, |state, &word| mix(state.wrapping_add(GOLDEN_GAMMA) ^ word)) }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        mix(self.state)
    }

    /// Uniform in 0..bound (its bias, below bound / 2^64, does not matter here); 0 where `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// Uniform in low..=high; `low` where the range is empty.
    pub fn int(&mut self, low: i64, high: i64) -> i64 {
        let width = usize::try_from(high - low + 1).unwrap_or(1);
        low + self.below(width) as i64
    }

    /// `true` once in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of `choices`, which must not be empty.
    pub fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// 3 to 6 integers of low..=high.
    pub fn ints(&mut self, low: i64, high: i64) -> Vec<i64> {
        let length = self.int(3, 6);
        (0..length).map(|_| self.int(low, high)).collect()
    }

    pub fn word(&mut self) -> &'static str {
        self.pick(WORDS)
    }

    /// 3 or 4 words, repetitions possible.
    pub fn words(&mut self) -> Vec<&'static str> {
        let length = self.int(3, 4);
        (0..length).map(|_| self.word()).collect()
    }

    /// 1 to 3 words with a space between them.
    pub fn text(&mut self) -> String {
        let length = self.int(1, 3);
        (0..length).map(|_| self.word()).collect::<Vec<_>>().join(" ")
    }
}

/// The words of example calls and assertions: of different lengths, with letters that repeat.
const WORDS: &[&str] = &[
    "apple", "banana", "book", "cat", "cloud", "dog", "egg", "fish", "garden", "green", "house", "ice", "jam", "kite",
    "lemon", "moon", "night", "orange", "owl", "paper", "queen", "rain", "river", "sea", "sun", "table", "tea", "tree",
    "under", "violin", "water", "yellow",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_on_every_platform() {
        // From a few lines of Python integers; a change here changes every corpus that was ever made.
        let mut draw = Draw::new(&[1, 2, 3]);
        let drawn: Vec<usize> = (0..8).map(|_| draw.below(1000)).collect();
        assert_eq!(drawn, [484, 206, 418, 396, 543, 983, 187, 46]);
        assert_eq!(hash_text("def add(a, b):"), 0xb8887f68d2ff8312);
    }

    #[test]
    fn choices_stay_in_their_range_and_reach_its_ends() {
        let mut draw = Draw::new(&[7]);
        let drawn: Vec<i64> = (0..1000).map(|_| draw.int(-3, 4)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&-3), Some(&4)));
        assert_eq!(draw.int(5, 4), 5);
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..50).collect();
        Draw::new(&[9]).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
