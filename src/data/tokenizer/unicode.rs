//! The three Unicode classes that GPT-2's splitting pattern tells apart: `\p{L}`, `\p{N}` and `\s`.
//!
//! The tables come from regex-syntax, so they are what a regex over the same pattern would match; here they are laid out
//! for one lookup a character.

use std::sync::LazyLock;

use regex_syntax::hir::{Class as HirClass, HirKind};

/// What a character is to GPT-2's pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// `[^\s\p{L}\p{N}]`: punctuation, marks, symbols, controls, unassigned.
    Other = 0,
    /// `\p{L}`.
    Letter = 1,
    /// `\p{N}`.
    Number = 2,
    /// `\s`, which is the property White_Space.
    Space = 3,
}

const BLOCK: usize = 256;
const BLOCKS: usize = 0x11_0000 / BLOCK;

/// Classes of the 128 ASCII characters: the scanner's fast path.
pub static ASCII: [Class; 128] = ascii_classes();

const fn ascii_classes() -> [Class; 128] {
    let mut table = [Class::Other; 128];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
            b'0'..=b'9' => Class::Number,
            b'\t'..=b'\r' | b' ' => Class::Space,
            _ => Class::Other,
        };
        byte += 1;
    }
    table
}

/// Class of any character. A two-level table, of which most blocks are shared, keeps it in cache.
pub fn class_of(c: char) -> Class {
    static TABLE: LazyLock<Table> = LazyLock::new(Table::build);
    TABLE.get(c)
}

struct Table {
    index: Vec<u16>,
    blocks: Vec<[Class; BLOCK]>,
}

impl Table {
    fn build() -> Self {
        let mut flat = vec![Class::Other; BLOCKS * BLOCK];
        for (pattern, class) in [(r"\p{L}", Class::Letter), (r"\p{N}", Class::Number), (r"\s", Class::Space)] {
            for (first, last) in ranges(pattern) {
                flat[first as usize..=last as usize].fill(class);
            }
        }
        let (mut index, mut blocks) = (Vec::with_capacity(BLOCKS), Vec::<[Class; BLOCK]>::new());
        for block in flat.as_chunks::<BLOCK>().0 {
            let at = blocks.iter().position(|known| known == block).unwrap_or_else(|| {
                blocks.push(*block);
                blocks.len() - 1
            });
            index.push(at as u16);
        }
        Self { index, blocks }
    }

    fn get(&self, c: char) -> Class {
        let code = c as usize;
        self.blocks[self.index[code / BLOCK] as usize][code % BLOCK]
    }
}

/// Inclusive ranges of code points that a one-class pattern matches.
#[expect(clippy::expect_used, clippy::unreachable, reason = "the patterns are constants, and a test builds the table")]
fn ranges(pattern: &str) -> Vec<(u32, u32)> {
    let hir = regex_syntax::parse(pattern).expect("a constant pattern with the Unicode tables compiled in");
    match hir.kind() {
        HirKind::Class(HirClass::Unicode(class)) => {
            class.iter().map(|range| (range.start() as u32, range.end() as u32)).collect()
        }
        other => unreachable!("{pattern} is one Unicode class, not {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_table_agrees_with_the_unicode_table() {
        for byte in 0..128u8 {
            assert_eq!(ASCII[byte as usize], class_of(byte as char), "byte {byte:#x}");
        }
    }

    #[test]
    fn every_class_has_its_unicode_members() {
        for (text, class) in [
            ("aÉдא字あʰªǅ𐐀", Class::Letter),
            ("7٣²½Ⅷ〇৪", Class::Number),
            ("\u{85}\u{a0}\u{1680}\u{2003}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{b}\u{c}", Class::Space),
            // A zero-width space, combining marks, symbols, private use, a byte-order mark.
            ("\u{200b}\u{301}\u{93e}€🚀\u{e000}\u{feff}_\u{1c}\u{0}", Class::Other),
        ] {
            for c in text.chars() {
                assert_eq!(class_of(c), class, "{c:?}");
            }
        }
    }

    #[test]
    fn white_space_is_what_the_standard_library_says() {
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            assert_eq!(class_of(c) == Class::Space, c.is_whitespace(), "{c:?}");
        }
    }
}
