//! CodeGen's tokenizer, which phi-1 uses: GPT-2's byte-level BPE plus runs of spaces and tabs as tokens of their own.
//!
//! Ids: 0..=50255 GPT-2's, 50256 `<|endoftext|>`, 50257..=50286 runs of 31 down to 2 spaces, 50287..=50294 runs of 9 down
//! to 2 tabs (microsoft/phi-1, added_tokens.json). The added tokens are matched longest first, before the BPE split.

use std::cell::RefCell;
use std::sync::LazyLock;

use super::bpe::{Merges, PieceCache, Scratch};
use super::pretokenize::{MAX_SPACES, MAX_TABS, Piece, Pieces};

/// Id of `<|endoftext|>`; also the number of GPT-2's own tokens.
pub const END_OF_TEXT_ID: u32 = 50_256;
/// Ids are 0..VOCAB_SIZE. phi-1's embedding has 51200 rows; the rest is padding.
pub const VOCAB_SIZE: usize = 50_295;

const FIRST_SPACES: u32 = END_OF_TEXT_ID + 1;
const FIRST_TABS: u32 = FIRST_SPACES + (MAX_SPACES as u32 - 1);

/// The id of a run of `n` spaces, 2 <= n <= 31.
pub fn spaces_id(n: usize) -> u32 {
    FIRST_SPACES + (MAX_SPACES - n) as u32
}

/// The id of a run of `n` tabs, 2 <= n <= 9.
pub fn tabs_id(n: usize) -> u32 {
    FIRST_TABS + (MAX_TABS - n) as u32
}

/// GPT-2's vocabulary and merges.
pub struct Codegen {
    /// Bytes of each token of GPT-2, by id.
    tokens: Vec<Vec<u8>>,
    /// The two ids that make token 256 + i.
    merge_pairs: Vec<(u16, u16)>,
    merges: Merges,
}

/// The tables, built on first use from the ranks that tiktoken-rs ships.
pub fn codegen() -> &'static Codegen {
    static TABLES: LazyLock<Codegen> = LazyLock::new(Codegen::build);
    &TABLES
}

impl Codegen {
    #[expect(clippy::expect_used, clippy::unreachable, reason = "of a table that is compiled in; a test builds it")]
    fn build() -> Self {
        let ranks = tiktoken_rs::r50k_base().expect("the rank table compiled into tiktoken-rs");
        let tokens: Vec<Vec<u8>> = (0..END_OF_TEXT_ID)
            .map(|id| ranks.decode_bytes(&[id]).expect("r50k_base has every rank below 50256"))
            .collect();
        drop(ranks);
        let mut bytes = [0u16; 256];
        for (id, token) in tokens[..256].iter().enumerate() {
            bytes[token[0] as usize] = id as u16;
        }
        // Rank tables forget which pair made a token; merging its bytes with the lower ranks alone leaves just that pair.
        let mut merges = Merges::new(bytes);
        let (mut scratch, mut parts) = (Scratch::default(), Vec::new());
        let mut merge_pairs = Vec::with_capacity(tokens.len() - 256);
        for (id, token) in tokens.iter().enumerate().skip(256) {
            parts.clear();
            merges.encode(token, &mut scratch, &mut parts);
            let &[left, right] = parts.as_slice() else {
                unreachable!("token {id} of GPT-2 is a merge of two lower ones, not of {}", parts.len())
            };
            merges.insert(left, right, id as u32);
            merge_pairs.push((left, right));
        }
        Self { tokens, merge_pairs, merges }
    }

    /// Bytes of each of GPT-2's 50256 tokens, by id.
    pub fn tokens(&self) -> &[Vec<u8>] {
        &self.tokens
    }

    /// The pairs of ids that make tokens 256, 257, ...
    pub fn merge_pairs(&self) -> &[(u16, u16)] {
        &self.merge_pairs
    }

    /// Appends the ids of `text` to `out`. Each thread keeps its own cache of pieces.
    pub fn encode_into(&self, text: &str, out: &mut Vec<u32>) {
        thread_local! {
            static CACHE: RefCell<PieceCache> = RefCell::new(PieceCache::default());
        }
        CACHE.with_borrow_mut(|cache| {
            for piece in Pieces::new(text) {
                match piece {
                    Piece::Word { start, end } => cache.encode(&self.merges, text.as_bytes(), start, end, out),
                    Piece::Spaces(n) => out.push(spaces_id(n)),
                    Piece::Tabs(n) => out.push(tabs_id(n)),
                    Piece::EndOfText => out.push(END_OF_TEXT_ID),
                }
            }
        });
    }

    /// Appends the bytes of one id to `out`; ids past the vocabulary (a padded embedding can emit them) have none.
    pub fn decode_into(&self, id: u32, out: &mut Vec<u8>) {
        match id {
            0..END_OF_TEXT_ID => out.extend_from_slice(&self.tokens[id as usize]),
            END_OF_TEXT_ID => out.extend_from_slice(super::pretokenize::END_OF_TEXT.as_bytes()),
            FIRST_SPACES..FIRST_TABS => out.resize(out.len() + MAX_SPACES - (id - FIRST_SPACES) as usize, b' '),
            _ if (id as usize) < VOCAB_SIZE => {
                out.resize(out.len() + MAX_TABS - (id - FIRST_TABS) as usize, b'\t');
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_tokens_stand_where_phi_1_has_them() {
        assert_eq!((spaces_id(31), spaces_id(2)), (50_257, 50_286));
        assert_eq!((tabs_id(9), tabs_id(2)), (50_287, 50_294));
    }

    #[test]
    fn every_id_decodes_to_bytes_that_encode_to_it() {
        let (codegen, mut scratch) = (codegen(), Scratch::default());
        for (id, token) in codegen.tokens().iter().enumerate() {
            let mut ids = Vec::new();
            codegen.merges.encode(token, &mut scratch, &mut ids);
            assert_eq!(ids, [id as u16], "{:?}", String::from_utf8_lossy(token));
        }
        for id in END_OF_TEXT_ID..VOCAB_SIZE as u32 {
            let mut bytes = Vec::new();
            codegen.decode_into(id, &mut bytes);
            let mut ids = Vec::new();
            codegen.encode_into(std::str::from_utf8(&bytes).unwrap(), &mut ids);
            assert_eq!(ids, [id]);
        }
        let mut nothing = Vec::new();
        codegen.decode_into(VOCAB_SIZE as u32, &mut nothing);
        codegen.decode_into(u32::MAX, &mut nothing);
        assert!(nothing.is_empty());
    }

    #[test]
    fn the_first_merges_are_gpt_2s() {
        let codegen = codegen();
        let first: Vec<_> = codegen.merge_pairs()[..3]
            .iter()
            .map(|&(left, right)| (codegen.tokens[left as usize].as_slice(), codegen.tokens[right as usize].as_slice()))
            .collect();
        assert_eq!(first, [(&b" "[..], &b"t"[..]), (b" ", b"a"), (b"h", b"e")]);
    }
}
