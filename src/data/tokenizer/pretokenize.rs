//! Splits text as GPT-2's pattern does, with CodeGen's added tokens taken out first.
//!
//! The pattern (openai/gpt-2, src/encoder.py) is
//! `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`; it is applied to each stretch between two
//! added tokens by itself, so its look-ahead sees the end of the stretch as the end of the text. A hand-written scanner
//! over bytes replaces the regex engine: it was the larger part of the time.

use super::unicode::{ASCII, Class, class_of};

/// Longest run of spaces that is one added token; the shortest is 2.
pub const MAX_SPACES: usize = 31;
/// Longest run of tabs that is one added token; the shortest is 2.
pub const MAX_TABS: usize = 9;
/// The text of the end-of-text token.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// One stretch of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes `start..end`, to be merged by BPE.
    Word {
        start: usize,
        end: usize,
    },
    /// A run of 2 to [`MAX_SPACES`] spaces.
    Spaces(usize),
    /// A run of 2 to [`MAX_TABS`] tabs.
    Tabs(usize),
    EndOfText,
}

/// Iterates over the pieces of a text, in order; together they cover every byte.
pub struct Pieces<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// What is left of a run of spaces or tabs that is being handed out longest first.
    run: usize,
}

impl<'a> Pieces<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0, run: 0 }
    }

    /// Class and length in bytes of the character at `at`; `None` at the end of the text.
    #[inline(always)]
    fn class_at(&self, at: usize) -> Option<(Class, usize)> {
        let byte = *self.bytes.get(at)?;
        if byte < 128 {
            return Some((ASCII[byte as usize], 1));
        }
        self.text[at..].chars().next().map(|c| (class_of(c), c.len_utf8()))
    }

    /// Whether an added token starts at `at`, so that the stretch ends there.
    #[inline(always)]
    fn added_at(&self, at: usize) -> bool {
        match self.bytes[at] {
            byte @ (b' ' | b'\t') => self.bytes.get(at + 1) == Some(&byte),
            b'<' => self.bytes[at..].starts_with(END_OF_TEXT.as_bytes()),
            _ => false,
        }
    }

    /// End of the run of characters of `class` from `at` on, within the stretch.
    #[inline(always)]
    fn run_end(&self, mut at: usize, class: Class) -> usize {
        while let Some((next, length)) = self.class_at(at) {
            if next != class || (class == Class::Other && self.bytes[at] == b'<' && self.added_at(at)) {
                break;
            }
            at += length;
        }
        at
    }

    /// `\s+(?!\S)|\s+`: all the white space where the stretch ends after it, else all but its last character (which the
    /// next word takes if it is a space), else that one character.
    fn white_space_end(&self, start: usize) -> usize {
        let (mut at, mut last) = (start, start);
        while at < self.bytes.len() && !self.added_at(at) {
            match self.class_at(at) {
                Some((Class::Space, length)) => (last, at) = (at, at + length),
                _ => return if last > start { last } else { at },
            }
        }
        at
    }

    /// Length of the English contraction at `at`, 0 where there is none.
    fn contraction(&self, at: usize) -> usize {
        match self.bytes.get(at + 1..) {
            Some([b's' | b't' | b'm' | b'd', ..]) => 2,
            Some([b'r', b'e', ..] | [b'v', b'e', ..] | [b'l', b'l', ..]) => 3,
            _ => 0,
        }
    }

    fn run_of(&self, byte: u8) -> usize {
        self.bytes[self.at..].iter().take_while(|&&next| next == byte).count()
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    #[inline]
    fn next(&mut self) -> Option<Piece> {
        let start = self.at;
        let (class, length) = self.class_at(start)?;
        let end = match class {
            Class::Space => {
                let byte = self.bytes[start];
                if matches!(byte, b' ' | b'\t') && self.bytes.get(start + 1) == Some(&byte) {
                    if self.run == 0 {
                        self.run = self.run_of(byte);
                    }
                    let taken = self.run.min(if byte == b' ' { MAX_SPACES } else { MAX_TABS });
                    // A single character that is left over starts the next stretch.
                    self.run = if self.run - taken < 2 { 0 } else { self.run - taken };
                    self.at += taken;
                    return Some(if byte == b' ' { Piece::Spaces(taken) } else { Piece::Tabs(taken) });
                }
                match if byte == b' ' { self.class_at(start + 1) } else { None } {
                    Some((next, length)) if next != Class::Space && !self.added_at(start + 1) => {
                        self.run_end(start + 1 + length, next)
                    }
                    _ => self.white_space_end(start),
                }
            }
            Class::Other => {
                let byte = self.bytes[start];
                if byte == b'<' && self.added_at(start) {
                    self.at += END_OF_TEXT.len();
                    return Some(Piece::EndOfText);
                }
                match if byte == b'\'' { self.contraction(start) } else { 0 } {
                    0 => self.run_end(start + length, class),
                    length => start + length,
                }
            }
            class => self.run_end(start + length, class),
        };
        self.at = end;
        Some(Piece::Word { start, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        Pieces::new(text)
            .map(|piece| match piece {
                Piece::Word { start, end } => text[start..end].to_string(),
                Piece::Spaces(n) => format!("[{n} spaces]"),
                Piece::Tabs(n) => format!("[{n} tabs]"),
                Piece::EndOfText => "[eot]".to_string(),
            })
            .collect()
    }

    #[test]
    fn words_take_the_space_before_them() {
        assert_eq!(split("def f(x): return x1"), ["def", " f", "(", "x", "):", " return", " x", "1"]);
        assert_eq!(split("été 東京 ٣٤ 🚀!"), ["été", " 東京", " ٣٤", " 🚀!"]);
    }

    #[test]
    fn contractions_are_split_off_only_at_the_start_of_a_piece() {
        assert_eq!(
            split("it's we'll they've I'm I'd can't you're"),
            ["it", "'s", " we", "'ll", " they", "'ve", " I", "'m", " I", "'d", " can", "'t", " you", "'re"]
        );
        assert_eq!(split("'S 'x ''s ('s"), ["'", "S", " '", "x", " ''", "s", " ('", "s"]);
        assert_eq!(split("'stop 'l"), ["'s", "top", " '", "l"]);
    }

    #[test]
    fn white_space_leaves_its_last_character_to_what_follows() {
        assert_eq!(split("a\n\nb"), ["a", "\n", "\n", "b"]);
        assert_eq!(split("a\n b"), ["a", "\n", " b"]);
        assert_eq!(split("a\n\t\rb"), ["a", "\n\t", "\r", "b"]);
        assert_eq!(split("a\n\n"), ["a", "\n\n"]);
        assert_eq!(split("a "), ["a", " "]);
        assert_eq!(split("\u{3000}\u{3000}b"), ["\u{3000}", "\u{3000}", "b"]);
    }

    #[test]
    fn runs_are_taken_longest_first_and_end_the_stretch() {
        assert_eq!(split("a\n\n    b"), ["a", "\n\n", "[4 spaces]", "b"]);
        assert_eq!(split(&" ".repeat(32)), ["[31 spaces]", " "]);
        assert_eq!(split(&format!("{}x", " ".repeat(32))), ["[31 spaces]", " x"]);
        assert_eq!(split(&format!("{}x", " ".repeat(64))), ["[31 spaces]", "[31 spaces]", "[2 spaces]", "x"]);
        assert_eq!(split(&"\t".repeat(12)), ["[9 tabs]", "[3 tabs]"]);
        assert_eq!(split(&"\t".repeat(10)), ["[9 tabs]", "\t"]);
        assert_eq!(split(" \t\t x"), [" ", "[2 tabs]", " x"]);
        assert_eq!(split("\t  x"), ["\t", "[2 spaces]", "x"]);
    }

    #[test]
    fn end_of_text_is_found_anywhere() {
        assert_eq!(split("a <|endoftext|>b"), ["a", " ", "[eot]", "b"]);
        assert_eq!(split("((<|endoftext|>"), ["((", "[eot]"]);
        assert_eq!(split(" <<|endoftext|>\n\n<|endoftext|>"), [" <", "[eot]", "\n\n", "[eot]"]);
        assert_eq!(split("<|endoftext"), ["<|", "endoftext"]);
    }
}
