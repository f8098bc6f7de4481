//! The choices of the kernel: tile, stages, order of the tiles.

use std::fmt;
use std::str::FromStr;

use crate::cuda::{PATTERN, ROW_BYTES, STAGE_BARRIERS, WARPGROUP, WIDTH};

/// One warpgroup that fetches, two that multiply.
pub(super) const THREADS: usize = 3 * WARPGROUP;
/// Shared memory that a block of compute capability 9.0 may have.
const SHARED_BYTES: usize = 227 << 10;

/// What is decided when the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blueprint {
    /// 128 or 256.
    pub tile_m: usize,
    /// 64, 128 or 256; with 256 rows at most 128.
    pub tile_n: usize,
    /// Slices of both operands that are fetched ahead, and worked on, together.
    pub stages: usize,
    /// Rows of tiles (of two where a cluster has two) that are worked on together.
    pub group_m: usize,
    /// Blocks whose tiles lie below each other, and who fetch each slice of the columns' operand once: 1 or 2.
    pub cluster: usize,
}

impl Blueprint {
    pub(super) fn shared_bytes(&self) -> usize {
        self.stages * ((self.tile_m + self.tile_n) * ROW_BYTES + STAGE_BARRIERS) + PATTERN
    }

    /// Whether there is such a kernel: two warpgroups hold the sums in registers, at most 128 a thread.
    fn possible(&self) -> bool {
        matches!(self.tile_m, 128 | 256)
            && matches!(self.tile_n, 64 | 128 | 256)
            && self.tile_m * self.tile_n <= 128 * 256
            && self.stages >= 2
            && self.group_m >= 1
            && (self.cluster == 1 || self.cluster == 2 && self.tile_n > WIDTH)
            && self.shared_bytes() <= SHARED_BYTES
    }

    /// Rows of a cluster's tiles together.
    pub(super) fn cluster_m(&self) -> usize {
        self.tile_m * self.cluster
    }

    /// Clocks of a slice, by the larger of two rates of an H100 (NVIDIA H100 Tensor Core GPU Architecture): 2048
    /// products a clock and multiprocessor, and about 32 bytes from the L2. Not measured here; `trainer sweep`
    /// compares.
    fn slice_clocks(&self) -> usize {
        let products = self.tile_m * self.tile_n * WIDTH;
        let bytes = (self.tile_m + self.tile_n / self.cluster) * ROW_BYTES;
        (products / 2048).max(bytes / 32)
    }

    /// The blueprint that is done first by that model: whole waves of tiles, each as long as its slices. 132 tiles of
    /// 128 x 256 in work at a time share most where they are 16 rows by 8.
    pub(super) fn chosen([m, n]: [usize; 2], multiprocessors: usize) -> Self {
        let tile = |tile_n, stages, cluster| Self { tile_m: 128, tile_n, stages, group_m: 16 / cluster, cluster };
        let narrow = tile(64, 8, 1);
        let clocks = |blueprint: &Self| {
            let clusters = m.div_ceil(blueprint.cluster_m()) * n.div_ceil(blueprint.tile_n);
            clusters.div_ceil((multiprocessors / blueprint.cluster).max(1)) * blueprint.slice_clocks()
        };
        let wider = [tile(256, 4, 2), tile(256, 4, 1), tile(128, 6, 2), tile(128, 6, 1)];
        let fitting = wider.into_iter().filter(|blueprint| n > blueprint.tile_n / 2);
        // Of equals the first: the largest.
        fitting.chain([narrow]).min_by_key(clocks).unwrap_or(narrow)
    }
}

/// Five numbers, as in 128x256x4x8x2: the order of the fields.
impl FromStr for Blueprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
        let blueprint = match numbers.as_deref() {
            Ok(&[tile_m, tile_n, stages, group_m, cluster]) => Self { tile_m, tile_n, stages, group_m, cluster },
            _ => return Err("expected rows x columns x stages x group x cluster, as in 128x256x4x8x2".to_owned()),
        };
        if blueprint.possible() {
            return Ok(blueprint);
        }
        Err("expected 128 or 256 rows by 64, 128 or 256 columns (not 256 by 256), at least 2 stages that fit 227 KiB of \
             shared memory, a group of at least 1, and a cluster of 1, or of 2 with more than 64 columns"
            .to_owned())
    }
}

impl fmt::Display for Blueprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tile_m, tile_n, stages, group_m, cluster } = self;
        write!(f, "{tile_m}x{tile_n}x{stages}x{group_m}x{cluster}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let blueprint = Blueprint { tile_m: 256, tile_n: 128, stages: 4, group_m: 8, cluster: 2 };
        assert_eq!("256x128x4x8x2".parse(), Ok(blueprint));
        assert_eq!(blueprint.to_string(), "256x128x4x8x2");
        let sizes = ["256x256x2x8x1", "128x256x5x8x1", "128x96x4x8x1", "128x256x1x8x1", "128x128x4x0x1"];
        for refused in ["", "128x256", "128x64x4x8x2", "128x128x4x8x4"].into_iter().chain(sizes) {
            let reason = refused.parse::<Blueprint>().unwrap_err();
            assert!(reason.contains("expected"), "{refused}: {reason}");
        }
    }

    /// phi-1's products with 16 sequences of 2048 on 132 multiprocessors, and small ones.
    #[test]
    fn choices_exist_and_fill_the_device() {
        let choice = |m, n| {
            let blueprint = Blueprint::chosen([m, n], 132);
            assert!(blueprint.possible(), "{blueprint}");
            (blueprint.tile_n, blueprint.cluster)
        };
        for (m, n) in [(32_768, 14_336), (32_768, 2048), (14_336, 2048), (2048, 8192), (2048, 2048), (4096, 51_200)] {
            assert_eq!(choice(m, n), (256, 2), "{m} x {n}");
        }
        assert_eq!(choice(512, 2048), (128, 2));
        assert_eq!(choice(100, 51_200), (256, 1));
        assert_eq!(choice(1 << 20, 64), (64, 1));
        assert_eq!(choice(1, 1), (64, 1));
    }
}
