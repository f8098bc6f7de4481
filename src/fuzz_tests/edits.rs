//! What is done to a whole file to damage it: proptest makes such edits up, and where a test fails looks for fewer and smaller
//! ones.

use proptest::prelude::*;
use proptest::sample::Index;

/// In the place of a number in a text.
const NUMBERS: [&str; 20] = [
    "-1",
    "0",
    "1",
    "4294967295",
    "2147483648",
    "-9223372036854775808",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1152921504606846976",
    "1e308",
    "1e999",
    "-1e999",
    "1e-400",
    "0.5",
    "nan",
    "null",
    "\"1\"",
    "[]",
    "{}",
];
/// In the place of four or eight little-endian bytes.
const WORDS: [u64; 9] = [0, 1, 0xff, 0xffff, i32::MAX as u64, u32::MAX as u64, 1 << 60, i64::MAX as u64, u64::MAX];
/// What opens another level in JSON and TOML.
const OPENINGS: [&str; 4] = ["[", "{\"a\":", "a.", "[{\"a\":"];

/// One change.
#[derive(Clone, Debug)]
pub enum Edit {
    Flip(Index, u8),
    Truncate(Index),
    Insert(Index, Vec<u8>),
    /// Removes some bytes.
    Remove(Index, usize),
    /// Copies some bytes to another place, over what is there or between.
    Splice {
        from: Index,
        bytes: usize,
        to: Index,
        over: bool,
    },
    /// Puts one of `NUMBERS` in the place of a number.
    Number(Index, usize),
    /// Puts one of `WORDS` in the place of four or eight bytes.
    Word {
        at: Index,
        word: usize,
        wide: bool,
    },
    /// Puts many of `OPENINGS` between two bytes.
    Nest {
        at: Index,
        opening: usize,
        depth: usize,
    },
}

/// The content of a file.
#[derive(Clone, Debug)]
pub enum Content {
    /// One of the whole files, edited; then `finished`: its own checksums are computed again, where the format has some, so
    /// that the reader gets to what lies behind them.
    Edited {
        file: Index,
        edits: Vec<Edit>,
        finished: bool,
    },
    Random(Vec<u8>),
}

fn edit() -> impl Strategy<Value = Edit> {
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), 0..8_u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        2 => index().prop_map(Edit::Truncate),
        2 => (index(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        2 => (index(), 1..40_usize).prop_map(|(at, bytes)| Edit::Remove(at, bytes)),
        3 => (index(), 1..200_usize, index(), any::<bool>())
            .prop_map(|(from, bytes, to, over)| Edit::Splice { from, bytes, to, over }),
        6 => (index(), 0..NUMBERS.len()).prop_map(|(which, to)| Edit::Number(which, to)),
        4 => (index(), 0..WORDS.len(), any::<bool>()).prop_map(|(at, word, wide)| Edit::Word { at, word, wide }),
        1 => (index(), 0..OPENINGS.len(), 1..30_000_usize)
            .prop_map(|(at, opening, depth)| Edit::Nest { at, opening, depth }),
    ]
}

pub fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        15 => (any::<Index>(), prop::collection::vec(edit(), 1..5), any::<bool>())
            .prop_map(|(file, edits, finished)| Content::Edited { file, edits, finished }),
        1 => prop::collection::vec(any::<u8>(), 0..300).prop_map(Content::Random),
    ]
}

impl Content {
    /// The bytes, from one of `files`.
    pub fn bytes(&self, files: &[Vec<u8>], finish: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        match self {
            Self::Random(bytes) => bytes.clone(),
            Self::Edited { file, edits, finished } => {
                let mut bytes = files[file.index(files.len())].clone();
                edits.iter().for_each(|edit| edit.apply(&mut bytes));
                if *finished {
                    finish(&mut bytes);
                }
                bytes
            }
        }
    }
}

impl Edit {
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        // A place before any byte, or at the end.
        let length = bytes.len();
        let place = |at: &Index| at.index(length + 1);
        match self {
            Self::Flip(at, bit) => {
                if let Some(byte) = bytes.get_mut(place(at)) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Truncate(at) => bytes.truncate(place(at)),
            Self::Insert(at, new) => drop(bytes.splice(place(at)..place(at), new.iter().copied())),
            Self::Remove(at, count) => drop(bytes.drain(place(at)..(place(at) + count).min(length))),
            Self::Splice { from, bytes: count, to, over } => {
                let copied = bytes[place(from)..(place(from) + count).min(length)].to_vec();
                let end = if *over { (place(to) + copied.len()).min(length) } else { place(to) };
                drop(bytes.splice(place(to)..end, copied));
            }
            Self::Number(which, to) => {
                let numbers = numbers(bytes);
                if !numbers.is_empty() {
                    let number = numbers[which.index(numbers.len())].clone();
                    drop(bytes.splice(number, NUMBERS[*to].bytes()));
                }
            }
            Self::Word { at, word, wide } => {
                let new = WORDS[*word].to_le_bytes();
                let new = if *wide { &new[..] } else { &new[..4] };
                // Words lie at multiples of four.
                let start = place(at) / 4 * 4;
                let end = (start + new.len()).min(length);
                bytes[start..end].copy_from_slice(&new[..end - start]);
            }
            Self::Nest { at, opening, depth } => {
                drop(bytes.splice(place(at)..place(at), OPENINGS[*opening].repeat(*depth).into_bytes()));
            }
        }
    }
}

/// Where the runs of digits are.
fn numbers(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut numbers: Vec<std::ops::Range<usize>> = Vec::new();
    for at in (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()) {
        match numbers.last_mut() {
            Some(last) if last.end == at => last.end += 1,
            _ => numbers.push(at..at + 1),
        }
    }
    numbers
}
