//! The choices of the kernel: tile, stages, order of the tiles.

use std::fmt;
use std::str::FromStr;

use crate::cuda::{PATTERN, ROW_BYTES, WIDTH};

/// Rows and columns of a warp's part of a tile.
const PART: usize = 64;
/// A thread holds 128 sums and 64 registers of operands, and a multiprocessor has 65,536.
const MOST_WARPS: usize = 8;

/// What is decided when the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blueprint {
    /// 64, 128 or 256.
    pub tile_m: usize,
    /// 64, 128 or 256.
    pub tile_n: usize,
    /// Slices of both operands that are in shared memory or on their way there.
    pub stages: usize,
    /// Rows of tiles that are worked on together.
    pub group_m: usize,
}

impl Blueprint {
    pub(super) fn shared_bytes(&self) -> usize {
        self.stages * (self.tile_m + self.tile_n) * ROW_BYTES + PATTERN
    }

    fn warps(&self) -> usize {
        (self.tile_m / PART) * (self.tile_n / PART)
    }

    pub(super) fn threads(&self) -> usize {
        self.warps() * 32
    }

    fn possible(&self) -> bool {
        let side = |tile: usize| matches!(tile, 64 | 128 | 256);
        side(self.tile_m)
            && side(self.tile_n)
            && (2..=MOST_WARPS).contains(&self.warps())
            && self.stages >= 2
            && self.group_m >= 1
    }

    /// Clocks of a slice, by the larger of two rates of an A100 (NVIDIA A100 Tensor Core GPU Architecture): 1024
    /// products a clock and multiprocessor, and about 40 bytes from the L2. Not measured here; `trainer sweep` compares.
    fn slice_clocks(&self) -> usize {
        let products = self.tile_m * self.tile_n * WIDTH;
        let bytes = (self.tile_m + self.tile_n) * ROW_BYTES;
        (products / 1024).max(bytes / 40)
    }

    /// The blueprint that is done first by that model: whole waves of tiles, each as long as its slices. Shared memory
    /// holds one block's stages.
    pub(super) fn chosen([m, n]: [usize; 2], multiprocessors: usize, shared: usize) -> Self {
        let tile = |tile_m, tile_n, stages| Self { tile_m, tile_n, stages, group_m: 1024 / tile_m };
        let last = tile(64, 64 * 2, 2);
        let clocks = |blueprint: &Self| {
            let tiles = m.div_ceil(blueprint.tile_m) * n.div_ceil(blueprint.tile_n);
            tiles.div_ceil(multiprocessors) * blueprint.slice_clocks()
        };
        // Of equals the first: the largest.
        [tile(128, 256, 3), tile(256, 128, 3), tile(128, 128, 4), tile(128, 128, 3), tile(64, 128, 3), tile(128, 64, 3)]
            .into_iter()
            .filter(|blueprint| blueprint.shared_bytes() <= shared)
            .min_by_key(clocks)
            .unwrap_or(last)
    }
}

/// Four numbers, as in 128x256x3x8: the order of the fields.
impl FromStr for Blueprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
        let blueprint = match numbers.as_deref() {
            Ok(&[tile_m, tile_n, stages, group_m]) => Self { tile_m, tile_n, stages, group_m },
            _ => return Err("expected rows x columns x stages x group, as in 128x256x3x8".to_owned()),
        };
        if blueprint.possible() {
            return Ok(blueprint);
        }
        Err("expected 64, 128 or 256 rows and columns (neither 64 by 64 nor 256 by 256), at least 2 stages, and a group \
             of at least 1"
            .to_owned())
    }
}

impl fmt::Display for Blueprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tile_m, tile_n, stages, group_m } = self;
        write!(f, "{tile_m}x{tile_n}x{stages}x{group_m}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let blueprint: Blueprint = "256x128x3x4".parse().unwrap();
        assert_eq!(blueprint, Blueprint { tile_m: 256, tile_n: 128, stages: 3, group_m: 4 });
        assert_eq!(blueprint.to_string(), "256x128x3x4");
        for refused in ["", "128x256", "64x64x3x8", "256x256x2x8", "128x96x3x8", "128x128x1x8", "128x128x3x0"] {
            let reason = refused.parse::<Blueprint>().unwrap_err();
            assert!(reason.contains("expected"), "{refused}: {reason}");
        }
    }

    /// phi-1's products with 16 sequences of 2048 on an A100 (108 multiprocessors, 163 KiB), and on less.
    #[test]
    fn choices_exist_and_fill_the_device() {
        let choice = |m, n, shared_kib: usize| {
            let blueprint = Blueprint::chosen([m, n], 108, shared_kib << 10);
            assert!(blueprint.possible() && blueprint.shared_bytes() <= shared_kib << 10, "{blueprint}");
            (blueprint.tile_m, blueprint.tile_n)
        };
        for (m, n) in [(32_768, 14_336), (32_768, 2048), (2048, 8192)] {
            let (tile_m, tile_n) = choice(m, n, 163);
            assert_eq!(tile_m * tile_n, 128 * 256, "{m} x {n}");
        }
        // 17 waves of half the size are less than 9, and 119 less than 60.
        assert_eq!(choice(14_336, 2048, 163), (128, 128));
        assert_eq!(choice(4096, 51_200, 163), (128, 128));
        assert_eq!(choice(32_768, 2048, 99), (128, 128));
        assert_eq!(choice(64, 128, 163), (64, 128));
        assert_eq!(choice(1 << 20, 64, 163), (128, 64));
        assert_eq!(choice(1, 1, 99), (64, 128));
    }
}
