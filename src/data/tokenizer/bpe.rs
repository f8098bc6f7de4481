//! Byte-pair merges and the per-thread cache from piece to ids.
//!
//! Ids are ranks: in GPT-2's vocabulary merge number r makes token 256 + r, so the pair that makes the lowest id goes first
//! (Sennrich et al. 2016, as openai/gpt-2 src/encoder.py has it). The table is keyed by pair, not by the merged bytes:
//! that is what Hugging Face does, and the two differ for a token that can be cut in more than one way.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

/// No merge for this pair.
const NONE: u32 = u32::MAX;
/// Above this many bytes a heap beats scanning for the lowest rank (and keeps a megabyte of base64 from being quadratic).
const SCAN_LIMIT: usize = 96;

/// The merges of a byte-level BPE with ids below 2^16.
pub struct Merges {
    /// (left << 16 | right) -> the merged id.
    pairs: FxHashMap<u32, u32>,
    /// The id of each single byte.
    bytes: [u16; 256],
}

impl Merges {
    /// No merges yet; `bytes` are the ids of the single bytes.
    pub fn new(bytes: [u16; 256]) -> Self {
        Self { pairs: FxHashMap::default(), bytes }
    }

    fn key(left: u16, right: u16) -> u32 {
        u32::from(left) << 16 | u32::from(right)
    }

    /// Adds the merge that makes `id`.
    pub fn insert(&mut self, left: u16, right: u16, id: u32) {
        self.pairs.insert(Self::key(left, right), id);
    }

    #[inline]
    fn merged(&self, left: u16, right: u16) -> u32 {
        self.pairs.get(&Self::key(left, right)).copied().unwrap_or(NONE)
    }

    /// Appends the ids of one piece to `out`.
    pub fn encode(&self, piece: &[u8], scratch: &mut Scratch, out: &mut Vec<u16>) {
        if piece.len() <= SCAN_LIMIT { self.encode_short(piece, scratch, out) } else { self.encode_long(piece, out) }
    }

    fn encode_short(&self, piece: &[u8], scratch: &mut Scratch, out: &mut Vec<u16>) {
        let Scratch { ids, ranks } = scratch;
        ids.clear();
        ids.extend(piece.iter().map(|&byte| self.bytes[byte as usize]));
        ranks.clear();
        ranks.extend(ids.windows(2).map(|pair| self.merged(pair[0], pair[1])));
        loop {
            let (mut lowest, mut at) = (NONE, 0);
            for (i, &rank) in ranks.iter().enumerate() {
                if rank < lowest {
                    (lowest, at) = (rank, i);
                }
            }
            if lowest == NONE {
                break;
            }
            ids[at] = lowest as u16;
            ids.remove(at + 1);
            ranks.remove(at);
            if at > 0 {
                ranks[at - 1] = self.merged(ids[at - 1], ids[at]);
            }
            if at < ranks.len() {
                ranks[at] = self.merged(ids[at], ids[at + 1]);
            }
        }
        out.extend_from_slice(ids);
    }

    /// The same merges in O(n log n): a heap of (merged id, position) over a doubly linked list of symbols. An entry is
    /// stale, and passed over, when the pair at its position no longer makes its id.
    fn encode_long(&self, piece: &[u8], out: &mut Vec<u16>) {
        let n = piece.len();
        let mut ids: Vec<u16> = piece.iter().map(|&byte| self.bytes[byte as usize]).collect();
        let mut next: Vec<usize> = (1..=n).collect();
        let mut previous: Vec<usize> = (0..n).map(|i| i.wrapping_sub(1)).collect();
        let mut alive = vec![true; n];
        let mut heap: BinaryHeap<Reverse<(u32, usize)>> = (0..n.saturating_sub(1))
            .filter_map(|i| match self.merged(ids[i], ids[i + 1]) {
                NONE => None,
                id => Some(Reverse((id, i))),
            })
            .collect();
        while let Some(Reverse((id, at))) = heap.pop() {
            let right = next[at];
            if !alive[at] || right >= n || self.merged(ids[at], ids[right]) != id {
                continue;
            }
            ids[at] = id as u16;
            alive[right] = false;
            next[at] = next[right];
            if next[at] < n {
                previous[next[at]] = at;
                let id = self.merged(ids[at], ids[next[at]]);
                if id != NONE {
                    heap.push(Reverse((id, at)));
                }
            }
            let left = previous[at];
            if left < n {
                let id = self.merged(ids[left], ids[at]);
                if id != NONE {
                    heap.push(Reverse((id, left)));
                }
            }
        }
        out.extend((0..n).filter(|&i| alive[i]).map(|i| ids[i]));
    }
}

/// Buffers that [`Merges::encode`] reuses from piece to piece.
#[derive(Default)]
pub struct Scratch {
    ids: Vec<u16>,
    ranks: Vec<u32>,
}

const SLOTS: usize = 1 << 15;
const SHORT_PIECE: usize = 15;
const LONG_PIECE: usize = 64;
const LONG_ENTRIES: usize = 1 << 14;

/// One slot of the cache: 32 bytes, half a cache line.
#[derive(Clone, Copy)]
struct Slot {
    /// The piece's bytes, zero-padded, with its length in the top byte; 0 is an empty slot.
    key: u128,
    ids: [u16; 7],
    count: u16,
}

/// Remembers the ids of pieces seen before. Source code repeats its words, so nearly every piece is found here.
///
/// Pieces of up to 15 bytes that make at most 7 ids live in a direct-mapped table (1 MiB, no allocation, a newer piece
/// evicts an older one); those of up to 64 bytes in a bounded map; longer ones are merged afresh.
pub struct PieceCache {
    slots: Box<[Slot]>,
    long: FxHashMap<Box<[u8]>, Box<[u16]>>,
    scratch: Scratch,
    fresh: Vec<u16>,
}

impl Default for PieceCache {
    fn default() -> Self {
        let empty = Slot { key: 0, ids: [0; 7], count: 0 };
        Self {
            slots: vec![empty; SLOTS].into_boxed_slice(),
            long: FxHashMap::default(),
            scratch: Scratch::default(),
            fresh: Vec::new(),
        }
    }
}

impl PieceCache {
    /// Appends the ids of `text[start..end]` to `out`. The bytes around the piece only serve to load it in one go.
    #[inline]
    pub fn encode(&mut self, merges: &Merges, text: &[u8], start: usize, end: usize, out: &mut Vec<u32>) {
        let length = end - start;
        if length > SHORT_PIECE {
            return self.encode_long(merges, &text[start..end], out);
        }
        let key = short_key(text, start, length);
        let slot = &mut self.slots[slot_of(key)];
        if slot.key != key {
            self.fresh.clear();
            merges.encode(&text[start..end], &mut self.scratch, &mut self.fresh);
            if self.fresh.len() > slot.ids.len() {
                out.extend(self.fresh.iter().map(|&id| u32::from(id)));
                return;
            }
            slot.key = key;
            slot.count = self.fresh.len() as u16;
            slot.ids[..self.fresh.len()].copy_from_slice(&self.fresh);
        }
        match slot.count {
            1 => out.push(u32::from(slot.ids[0])),
            count => out.extend(slot.ids[..count as usize].iter().map(|&id| u32::from(id))),
        }
    }

    fn encode_long(&mut self, merges: &Merges, piece: &[u8], out: &mut Vec<u32>) {
        if let Some(ids) = self.long.get(piece) {
            out.extend(ids.iter().map(|&id| u32::from(id)));
            return;
        }
        self.fresh.clear();
        merges.encode(piece, &mut self.scratch, &mut self.fresh);
        out.extend(self.fresh.iter().map(|&id| u32::from(id)));
        if piece.len() <= LONG_PIECE {
            if self.long.len() >= LONG_ENTRIES {
                self.long.clear();
            }
            self.long.insert(piece.into(), self.fresh.as_slice().into());
        }
    }
}

/// The key of a piece of 1 to 15 bytes: never 0, since the length is in it.
#[inline(always)]
fn short_key(text: &[u8], start: usize, length: usize) -> u128 {
    let bytes = match text[start..].first_chunk::<16>() {
        Some(chunk) => u128::from_le_bytes(*chunk) & ((1 << (8 * length)) - 1),
        None => {
            let mut chunk = [0; 16];
            chunk[..length].copy_from_slice(&text[start..start + length]);
            u128::from_le_bytes(chunk)
        }
    };
    bytes | (length as u128) << 120
}

#[inline(always)]
fn slot_of(key: u128) -> usize {
    let (low, high) = (key as u64, (key >> 64) as u64);
    let mixed = (low ^ high.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> (64 - SLOTS.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters a..d are ids 0..3; merges: bc -> 4, ab -> 5, abc (from a, bc) -> 6, dd -> 7, dddd -> 8.
    fn merges() -> Merges {
        let mut bytes = [u16::MAX; 256];
        for (id, byte) in (b'a'..=b'd').enumerate() {
            bytes[byte as usize] = id as u16;
        }
        let mut merges = Merges::new(bytes);
        for ((left, right), id) in [((1, 2), 4), ((0, 1), 5), ((0, 4), 6), ((3, 3), 7), ((7, 7), 8)] {
            merges.insert(left, right, id);
        }
        merges
    }

    fn encode(piece: &[u8]) -> Vec<u16> {
        let mut out = Vec::new();
        merges().encode(piece, &mut Scratch::default(), &mut out);
        out
    }

    #[test]
    fn the_lowest_rank_goes_first_and_the_leftmost_of_equals() {
        assert_eq!(encode(b"abc"), [6]);
        assert_eq!(encode(b"abd"), [5, 3]);
        assert_eq!(encode(b"ddd"), [7, 3]);
        assert_eq!(encode(b"ddddddd"), [8, 7, 3]);
        assert_eq!(encode(b""), [0u16; 0]);
    }

    #[test]
    fn heap_and_scan_make_the_same_ids() {
        let merges = merges();
        let mut state = 1u64;
        for length in 0..400 {
            let piece: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    b"abcd"[(state >> 60) as usize % 4]
                })
                .collect();
            let (mut short, mut long) = (Vec::new(), Vec::new());
            merges.encode_short(&piece, &mut Scratch::default(), &mut short);
            merges.encode_long(&piece, &mut long);
            assert_eq!(short, long, "{:?}", String::from_utf8_lossy(&piece));
        }
    }

    #[test]
    fn the_cache_changes_nothing() {
        let (merges, mut cache) = (merges(), PieceCache::default());
        let text = b"abcddabdbcabcabcdddddddabcabcabcabcdabcdabcdddbbbbbbbbbbbbbbaabbccdd".repeat(3);
        for round in 0..2 {
            for start in 0..text.len() {
                for end in start + 1..text.len().min(start + 80) {
                    let mut cached = Vec::new();
                    cache.encode(&merges, &text, start, end, &mut cached);
                    let mut fresh = Vec::new();
                    merges.encode(&text[start..end], &mut Scratch::default(), &mut fresh);
                    let fresh: Vec<u32> = fresh.into_iter().map(u32::from).collect();
                    assert_eq!(cached, fresh, "round {round}, {start}..{end}");
                }
            }
        }
    }
}
