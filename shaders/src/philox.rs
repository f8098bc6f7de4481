//! Dropout masks inside kernels: the same bits as backends/src/dropout.rs.

use cubecl::prelude::*;

/// One step's dropout in one layer, as kernels take it.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct Dropout {
    pub key0: u32,
    pub key1: u32,
    /// Index in the global batch of the micro-batch's first sequence.
    pub first_sequence: u32,
    /// layer << 16 | site.
    pub place: u32,
    /// Elements whose byte is below this are dropped.
    pub threshold: u32,
    /// What a kept value is multiplied with.
    pub scale: f32,
}

/// The four words of a Philox call.
#[derive(CubeType, Clone, Copy)]
pub struct Words {
    pub w0: u32,
    pub w1: u32,
    pub w2: u32,
    pub w3: u32,
}

/// The keys of the ten rounds, for kernels that are given them.
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub(crate) fn round_keys([first, second]: [u32; 2]) -> [[u32; 2]; 10] {
    std::array::from_fn(|round| {
        let weyl = |key: u32, step: u32| key.wrapping_add(step.wrapping_mul(round as u32));
        [weyl(first, 0x9E37_79B9), weyl(second, 0xBB67_AE85)]
    })
}

/// The upper half of a 32 x 32 bit product: the device's own where it is a `native` instruction, else from 16-bit halves.
/// WGSL has none, and CubeCL's 64-bit product in its place made a step on llvmpipe 8% slower.
#[cube]
fn mul_high(a: u32, b: u32, #[comptime] native: bool) -> u32 {
    if comptime!(native) {
        u32::mul_hi(a, b)
    } else {
        let (a0, a1) = (a & 0xFFFF, a >> 16);
        let (b0, b1) = (b & 0xFFFF, b >> 16);
        let low = a0 * b0;
        let mid = a1 * b0 + (low >> 16);
        let cross = a0 * b1 + (mid & 0xFFFF);
        a1 * b1 + (mid >> 16) + (cross >> 16)
    }
}

/// Ten rounds of Philox 4x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4.3).
#[cube]
pub fn philox4x32_10(c0: u32, c1: u32, c2: u32, c3: u32, k0: u32, k1: u32, #[comptime] native: bool) -> Words {
    let mut w0 = c0;
    let mut w1 = c1;
    let mut w2 = c2;
    let mut w3 = c3;
    let mut key0 = k0;
    let mut key1 = k1;
    #[unroll]
    for _ in 0..10u32 {
        let high0 = mul_high(0xD251_1F53u32, w0, native);
        let low0 = w0 * 0xD251_1F53u32;
        let high1 = mul_high(0xCD9E_8D57u32, w2, native);
        let low1 = w2 * 0xCD9E_8D57u32;
        w0 = high1 ^ w1 ^ key0;
        w1 = low1;
        w2 = high0 ^ w3 ^ key1;
        w3 = low0;
        key0 += 0x9E37_79B9u32;
        key1 += 0xBB67_AE85u32;
    }
    Words { w0, w1, w2, w3 }
}

/// The 16 random bytes of elements `16 * block ..` of a row.
#[cube]
pub fn words(
    dropout: &Dropout,
    sequence: u32,
    head: u32,
    position: u32,
    block: u32,
    #[comptime] native: bool,
) -> Words {
    philox4x32_10(
        block,
        position,
        dropout.first_sequence + sequence,
        dropout.place | (head << 4),
        dropout.key0,
        dropout.key1,
        native,
    )
}

/// The `i`-th word.
#[cube]
pub(crate) fn word(words: Words, #[comptime] i: usize) -> u32 {
    let mut word = words.w0;
    if comptime!(i == 1) {
        word = words.w1;
    }
    if comptime!(i == 2) {
        word = words.w2;
    }
    if comptime!(i == 3) {
        word = words.w3;
    }
    word
}

/// 0 or the scale: what the element decided by byte `byte` (0 to 3, from the lowest) of `word` is multiplied with.
#[cube]
pub fn factor(dropout: &Dropout, word: u32, byte: u32) -> f32 {
    let drawn = (word >> (byte * 8)) & 0xFF;
    select(drawn < dropout.threshold, 0.0f32, dropout.scale)
}
