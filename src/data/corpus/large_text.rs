//! Cuts a large text file into pieces that are tokenised by themselves, so that memory does not grow with the file.
//!
//! The tokens of `codegen` and of `bytes` are those of the whole. A tokenizer from a file may make others at a cut: some put
//! a space before every text, or join a line break to what follows. That is a token or two in two million bytes, where its
//! library would hold about a hundred bytes of memory for each token of a document.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::NOT_UTF8;

/// Files above this are cut.
pub const LARGE: u64 = 8 << 20;
/// Pieces are at least this long where the text has a place to cut.
const PIECE: usize = 2 << 20;
/// A piece without a place to cut is cut between any two characters once it is this long.
const LONGEST_PIECE: usize = 16 * PIECE;

/// Where to cut, and the checksum of the whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Cuts {
    /// End of each piece; the last is the end of the file.
    pub ends: Vec<u64>,
    pub crc32: u32,
}

/// Reads a file once, with bounded memory; checks that it is UTF-8 and finds where to cut it.
///
/// # Errors
/// The reason why it cannot be read.
pub fn cuts(path: &Path) -> Result<Cuts, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let mut file = File::open(path).map_err(unreadable)?;
    let (mut ends, mut at, mut hash, mut buffer) = (Vec::new(), 0u64, crc32fast::Hasher::new(), Vec::new());
    loop {
        let read = file.by_ref().take(PIECE as u64).read_to_end(&mut buffer).map_err(unreadable)?;
        let end = if read == 0 {
            buffer.len()
        } else {
            match last_cut(&buffer) {
                Some(cut) => cut,
                None if buffer.len() < LONGEST_PIECE => continue,
                None => character_border(&buffer),
            }
        };
        let piece = &buffer[..end];
        std::str::from_utf8(piece).map_err(|_| NOT_UTF8.to_string())?;
        hash.update(piece);
        at += end as u64;
        if end > 0 {
            ends.push(at);
        }
        buffer.drain(..end);
        if read == 0 {
            return Ok(Cuts { ends, crc32: hash.finalize() });
        }
    }
}

/// The last line break of `text` that a visible ASCII character follows. GPT-2's pattern never joins what is on its two
/// sides, and leaves the break by itself either way, so cutting before it changes no token of `codegen`. Not before `<`:
/// `<|endoftext|>` ends the stretch, and white space at the end of one is kept together.
fn last_cut(text: &[u8]) -> Option<usize> {
    let cut = |pair: &[u8]| pair[0] == b'\n' && pair[1].is_ascii_graphic() && pair[1] != b'<';
    text.windows(2).rposition(cut).filter(|&at| at > 0)
}

/// The last start of a character in `text`, which has no better place to be cut.
fn character_border(text: &[u8]) -> usize {
    let back = text.iter().rev().take(4).position(|byte| byte & 0xc0 != 0x80).map_or(0, |back| back + 1);
    text.len() - back
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tokenizer::Tokenizer;

    #[test]
    fn pieces_are_tokenised_as_the_whole_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large.txt");
        let line = "def f(x):\n\n\n    return 'it''s'  \n \n\t\n# été\n\n\u{3000}\n<|endoftext|>\n\n";
        let mut text = String::new();
        while text.len() < 3 * PIECE + PIECE / 2 {
            text.push_str(line);
            text.push_str(&text.len().to_string());
        }
        std::fs::write(&path, &text).unwrap();
        let cuts = cuts(&path).unwrap();
        assert!(cuts.ends.len() >= 3, "{:?}", cuts.ends);
        assert_eq!(cuts.ends.last(), Some(&(text.len() as u64)));
        assert_eq!(cuts.crc32, crc32fast::hash(text.as_bytes()));
        let (tokenizer, mut ids, mut start) = (Tokenizer::codegen(), Vec::new(), 0);
        for end in cuts.ends {
            tokenizer.encode_into(&text[start..end as usize], &mut ids).unwrap();
            start = end as usize;
        }
        assert!(ids == tokenizer.encode(&text).unwrap());
    }

    #[test]
    fn text_without_a_line_break_is_cut_between_characters() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one-line.txt");
        let text = "日本語".repeat(LONGEST_PIECE / 9 + 1000);
        std::fs::write(&path, &text).unwrap();
        let cuts = cuts(&path).unwrap();
        assert_eq!(cuts.ends.len(), 2);
        assert!(text.is_char_boundary(cuts.ends[0] as usize));
    }

    #[test]
    fn a_bad_byte_anywhere_refuses_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bad.txt");
        let mut bytes = b"a line\n".repeat(PIECE / 2);
        let last = bytes.len() - 3;
        bytes[last] = 0xff;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(cuts(&path), Err(NOT_UTF8.to_string()));
    }
}
