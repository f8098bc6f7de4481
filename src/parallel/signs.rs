//! What ranks let each other know with every step's numbers, one bit each.

/// What a rank may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// The signal that comes before a machine is taken away.
    Preempted,
    /// The hours that the run was given are over. The first rank's clock counts.
    TimeUp,
    /// A checkpoint is due by time. The first rank's clock counts.
    SaveDue,
    /// Its part of the outstanding checkpoint is written.
    Written,
    /// Its part of the outstanding checkpoint could not be written.
    NotWritten,
}

const SIGNS: usize = 6;

/// How many ranks show each sign.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signs([f64; SIGNS]);

impl Signs {
    /// Those that this rank shows.
    pub fn of(shown: impl IntoIterator<Item = Sign>) -> Self {
        let mut signs = Self::default();
        shown.into_iter().for_each(|sign| signs.0[sign as usize] = 1.0);
        signs
    }

    pub fn any(&self, sign: Sign) -> bool {
        self.0[sign as usize] > 0.0
    }

    pub fn all(&self, sign: Sign, ranks: usize) -> bool {
        self.0[sign as usize] == ranks as f64
    }

    /// As numbers that ranks add up.
    pub fn counts(&self) -> [f64; SIGNS] {
        self.0
    }

    /// The inverse of `counts`.
    pub fn from_counts(counts: &[f64]) -> Self {
        let mut signs = Self::default();
        signs.0.iter_mut().zip(counts).for_each(|(sign, count)| *sign = *count);
        signs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_tell_any_and_all() {
        let mut sums = [0.0; SIGNS];
        for shown in [vec![Sign::Written, Sign::TimeUp], vec![Sign::Written]] {
            let counts = Signs::of(shown).counts();
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        let signs = Signs::from_counts(&sums);
        assert!(signs.all(Sign::Written, 2) && !signs.all(Sign::TimeUp, 2) && signs.any(Sign::TimeUp));
        assert!(!signs.any(Sign::NotWritten) && !signs.any(Sign::Interrupted));
    }
}
