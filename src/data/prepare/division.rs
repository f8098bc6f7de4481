//! Which documents are held out for validation.

use crate::data::sampler::mix;

/// A rule that sends each document to one split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Division {
    /// Documents whose seeded hash lies in the lowest `fraction`. Equal documents go the same way, so that no validation
    /// text is a copy of a training text.
    Fraction { fraction: f64, seed: u64 },
    /// Just this document, counted from 0: for a corpus of so few documents that the fraction fell on none or on all.
    Only(u64),
}

impl Division {
    /// Whether document number `document` with this hash is held out.
    pub fn holds_out(self, document: u64, hash: u64) -> bool {
        match self {
            Self::Fraction { fraction, seed } => score(hash, seed) < fraction,
            Self::Only(number) => document == number,
        }
    }

    /// The rule to use instead where this one left a split empty that should not be; `None` where it did not, or nothing
    /// helps. `smallest` is the shortest document: held out alone, it is never the larger part. A single one is for training.
    pub fn repaired(self, train_documents: u64, val_documents: u64, smallest: u64) -> Option<Self> {
        match self {
            Self::Fraction { fraction, .. } if fraction > 0.0 && train_documents + val_documents >= 2 => {
                (train_documents == 0 || val_documents == 0).then_some(Self::Only(smallest))
            }
            Self::Fraction { seed, .. } if (train_documents, val_documents) == (0, 1) => {
                Some(Self::Fraction { fraction: 0.0, seed })
            }
            _ => None,
        }
    }
}

/// A document's place in 0..1, by its hash and the seed.
pub fn score(hash: u64, seed: u64) -> f64 {
    (mix(mix(seed) ^ hash) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fraction_is_held_out_and_the_seed_decides_which() {
        let held = |seed: u64| -> Vec<u64> {
            let division = Division::Fraction { fraction: 0.1, seed };
            (0..20_000).filter(|&hash| division.holds_out(0, hash)).collect()
        };
        // 2000 expected; the standard deviation is 42.
        assert!((1800..2200).contains(&held(1).len()), "{}", held(1).len());
        assert_ne!(held(1), held(2));
    }

    #[test]
    fn only_an_empty_split_that_can_be_filled_is_repaired() {
        let some = Division::Fraction { fraction: 0.01, seed: 0 };
        assert_eq!(some.repaired(5, 0, 3), Some(Division::Only(3)));
        assert_eq!(some.repaired(0, 5, 3), Some(Division::Only(3)));
        assert_eq!(some.repaired(5, 1, 3), None);
        assert_eq!(some.repaired(1, 0, 0), None);
        assert_eq!(some.repaired(0, 1, 0), Some(Division::Fraction { fraction: 0.0, seed: 0 }));
        assert_eq!(Division::Fraction { fraction: 0.0, seed: 0 }.repaired(9, 0, 1), None);
        assert_eq!(Division::Only(1).repaired(9, 0, 1), None);
    }
}
