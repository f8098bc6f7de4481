//! Dropout masks from Philox4x32-10, the same bits on every backend, in forward and backward, for every split of a batch.
//!
//! A mask element is decided by (seed, step, index of the sequence in the global batch, layer, site, position, element)
//! alone, so nothing is stored: a kernel recomputes what it needs. One Philox call gives 16 bytes, which decide 16
//! neighbouring elements; an element is dropped where its byte is below the threshold. The drop rate is therefore a
//! multiple of 1/256 (0.1 becomes 26/256, as in FlashAttention's kernels), and kept values are scaled by the exact
//! inverse of the rate that is applied.

/// Elements that one Philox call decides.
pub const LANES: usize = 16;

/// Where in the model a mask is applied; part of the Philox counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    Embedding = 0,
    /// Attention probabilities: one mask a head.
    Attention = 1,
    /// The attention branch before it joins the residual stream.
    AttentionResidual = 2,
    /// The MLP branch before it joins the residual stream.
    MlpResidual = 3,
}

/// Ten rounds of Philox 4x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4.3).
#[inline(always)]
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIER: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for _ in 0..10 {
        let first = MULTIPLIER[0] * u64::from(counter[0]);
        let second = MULTIPLIER[1] * u64::from(counter[2]);
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// SplitMix64's output function (Steele et al., OOPSLA 2014): spreads every input bit over the output.
pub fn mix64(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// One step's dropout in one layer: everything but the position that decides a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropout {
    /// Philox key, from seed and step.
    pub key: [u32; 2],
    /// Index in the step's global batch of the first sequence of this micro-batch.
    pub first_sequence: u32,
    pub layer: u32,
    /// Elements whose byte is below this are dropped, 1..=255.
    pub threshold: u32,
}

impl Dropout {
    /// `None` where `rate` rounds to no dropout at all. `step` counts optimizer steps from 1.
    ///
    /// # Panics
    /// If `rate` is not in `[0, 1)` to the nearest 1/256 (configurations are validated before they get here).
    pub fn new(rate: f64, seed: u64, step: u64, first_sequence: usize) -> Option<Self> {
        let threshold = (rate * 256.0).round();
        assert!((0.0..256.0).contains(&threshold), "dropout rate {rate} is outside [0, 1)");
        if threshold == 0.0 {
            return None;
        }
        let key = mix64(mix64(seed) ^ step);
        Some(Self {
            key: [key as u32, (key >> 32) as u32],
            first_sequence: first_sequence as u32,
            layer: 0,
            threshold: threshold as u32,
        })
    }

    pub fn at_layer(self, layer: usize) -> Self {
        Self { layer: layer as u32, ..self }
    }

    /// What a kept value is multiplied with: the inverse of the keep probability 1 - threshold/256.
    pub fn scale(&self) -> f32 {
        256.0 / (256 - self.threshold) as f32
    }

    /// The 16 random bytes of elements `16 * block ..` in the row at (`sequence` of the micro-batch, `head`, `position`).
    /// `head` is 0 at the sites that have no heads.
    #[inline(always)]
    pub fn bytes(&self, site: Site, sequence: usize, head: usize, position: usize, block: usize) -> [u8; LANES] {
        let place = self.layer << 16 | (head as u32) << 4 | site as u32;
        let words = philox4x32_10(
            [block as u32, position as u32, self.first_sequence.wrapping_add(sequence as u32), place],
            self.key,
        );
        let mut bytes = [0; LANES];
        for (four, word) in bytes.chunks_exact_mut(4).zip(words) {
            four.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Writes the factors (0 or `scale()`) of elements `start .. start + out.len()` of a row; `start` is a multiple of 16.
    #[inline(always)]
    pub fn fill(&self, site: Site, sequence: usize, head: usize, position: usize, start: usize, out: &mut [f32]) {
        debug_assert_eq!(start % LANES, 0);
        let (scale, threshold) = (self.scale(), self.threshold as u8);
        for (block, factors) in out.chunks_mut(LANES).enumerate() {
            let bytes = self.bytes(site, sequence, head, position, start / LANES + block);
            for (factor, byte) in factors.iter_mut().zip(bytes) {
                *factor = if byte < threshold { 0.0 } else { scale };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_vectors() {
        // Random123's kat_vectors, philox4x32 with 10 rounds.
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox4x32_10([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox4x32_10([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn rate_scale_and_independence() {
        let dropout = Dropout::new(0.1, 7, 3, 5).unwrap().at_layer(2);
        let mut row = vec![0.0; 1 << 16];
        dropout.fill(Site::Attention, 0, 1, 9, 0, &mut row);
        let kept = row.iter().filter(|factor| **factor != 0.0).count() as f64 / row.len() as f64;
        // 65,536 draws: the standard deviation of the share is 0.0012; five of them.
        assert!((kept - 230.0 / 256.0).abs() < 0.006, "kept {kept}");
        let mean = row.iter().map(|factor| f64::from(*factor)).sum::<f64>() / row.len() as f64;
        assert!((mean - 1.0).abs() < 0.007, "mean {mean}");
        // The same sequence reached from another micro-batch split has the same mask; any other coordinate has another.
        let mut other = vec![0.0; 64];
        Dropout::new(0.1, 7, 3, 4).unwrap().at_layer(2).fill(Site::Attention, 1, 1, 9, 0, &mut other);
        assert_eq!(row[..64], other);
        for (step, head, site) in [(4, 1, Site::Attention), (3, 2, Site::Attention), (3, 1, Site::MlpResidual)] {
            Dropout::new(0.1, 7, step, 5).unwrap().at_layer(2).fill(site, 0, head, 9, 0, &mut other);
            assert_ne!(row[..64], other);
        }
        assert!(Dropout::new(0.0, 7, 3, 0).is_none());
    }
}
