//! Causal attention without the T x T matrix (Dao, "FlashAttention-2", 2023), for devices without planes or tensor cores.
//!
//! A unit owns a few rows (queries, or keys for their gradients) with all D dimensions in registers and walks over the
//! other side in blocks; units share nothing, so there are no barriers and no atomics, and every sum has one order.
//! Forward saves O and the log-sum-exp; backward computes the probabilities again. Memory is O(T).
//!
//! q, k and v are read where the fused projection left them: rows of W elements, q at column 0, k at C, v at 2C.

mod backward;
mod forward;

pub use backward::{Gradients, attention_backward};
pub use forward::attention_forward;

use cubecl::prelude::*;

use crate::device::Class;
use crate::philox::{DropoutLaunch, Words};

/// Far below any score, yet finite: WGSL has no infinities to rely on.
pub(crate) const MASKED: f32 = -1.0e30;

/// Keys that a query's unit takes at a time: half of what one Philox call decides.
pub(crate) const KEYS: usize = 8;

/// Queries that a key's unit takes at a time.
pub(crate) const QUERIES: usize = 4;

/// What is decided when the kernels are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blueprint {
    pub head_dim: usize,
    /// Neighbouring rows that a unit owns: 1, 2 or 4, so that the dropout bytes of its keys are in one word.
    pub rows: usize,
    pub units: usize,
    pub dropout: bool,
}

impl Blueprint {
    pub(crate) fn new<R: Runtime>(client: &ComputeClient<R>, head_dim: usize, dropout: bool) -> Self {
        let (units, rows) = match Class::of(client) {
            // 4 x 64 sums are 256 SIMD registers a matrix, in the first-level cache; 128 dimensions get half the rows.
            Class::Narrow => (8, if head_dim <= 64 { 4 } else { 2 }),
            Class::Wide => (64, 1),
        };
        Self { head_dim, rows, units, dropout }
    }

    /// Cubes that a sequence of one head needs.
    pub(crate) fn tiles(&self, seq: usize) -> usize {
        seq.div_ceil(self.rows * self.units)
    }
}

/// The sizes of a launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub batch: usize,
    pub seq: usize,
    pub heads: usize,
    pub head_dim: usize,
    /// W: elements of a row of the fused projection.
    pub width: usize,
    /// What scores are multiplied with.
    pub scale: f32,
}

/// Dropout's scalars on the host; see `philox::Dropout`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutScalars {
    pub key: [u32; 2],
    pub first_sequence: u32,
    pub place: u32,
    pub threshold: u32,
    pub scale: f32,
}

impl DropoutScalars {
    /// Without dropout the kernel has no mask in it, and reads none of these.
    pub(crate) fn launch<R: Runtime>(dropout: Option<Self>) -> DropoutLaunch<R> {
        let d = dropout.unwrap_or(Self { key: [0; 2], first_sequence: 0, place: 0, threshold: 0, scale: 1.0 });
        DropoutLaunch::new(d.key[0], d.key[1], d.first_sequence, d.place, d.threshold, d.scale)
    }
}

#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub(crate) struct Sizes {
    pub batch: usize,
    pub seq: usize,
    pub heads: usize,
    pub width: usize,
    pub scale: f32,
}

impl Shape {
    pub(crate) fn launch<R: Runtime>(&self) -> SizesLaunch<R> {
        SizesLaunch::new(self.batch, self.seq, self.heads, self.width, self.scale)
    }
}

/// Where a cube works.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Place {
    pub sequence: usize,
    pub head: usize,
    pub tile: usize,
}

/// The tile, head and sequence of this cube.
#[cube]
pub(crate) fn place(sizes: &Sizes, tiles: usize) -> Place {
    let tile = CUBE_POS % tiles;
    let rest = CUBE_POS / tiles;
    Place { sequence: rest / sizes.heads, head: rest % sizes.heads, tile }
}

/// The Philox word of keys `8 * block + 4 * half ..` of a call that decides 16 keys from `16 * (block / 2)` on.
#[cube]
pub(crate) fn word_of_half(words: &Words, block: usize, #[comptime] half: usize) -> u32 {
    if comptime!(half == 0) {
        select(block % 2 == 0, words.w0, words.w2)
    } else {
        select(block % 2 == 0, words.w1, words.w3)
    }
}

/// The Philox word of the keys from `first` on, which are four at most and in one word.
#[cube]
pub(crate) fn word_of_key(words: &Words, first: usize) -> u32 {
    let which = first / 4 % 4;
    let low = select(which == 0, words.w0, words.w1);
    let high = select(which == 2, words.w2, words.w3);
    select(which < 2, low, high)
}

/// `x` held below `limit`, so that rows past the end read the last one again.
#[cube]
pub(crate) fn held(x: usize, limit: usize) -> usize {
    select(x < limit, x, limit - 1)
}

pub(crate) use crate::philox::Dropout as KernelDropout;
