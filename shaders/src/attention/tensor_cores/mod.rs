//! Attention on tensor cores: fp16 and bf16, where the device multiplies m16n8k16 fragments and has ldmatrix.
//!
//! A plane owns fragments of 16 rows: queries in forward and for dq, keys for dk and dv. The other side is staged through
//! shared memory a block at a time, and the sums stay in registers. As in FlashAttention-2 (Dao, 2023) the scores leave
//! one product as fp32 fragments and enter the next as halves without leaving their lanes.
//!
//! Which column of a fragment is which key is ours to choose, as long as all of K and V are staged in that order. Ours
//! (`tile::drawn_key`) gives each lane 16 neighbouring keys of each of its queries, so that their dropout is one Philox
//! call: none is made twice and nothing is exchanged.

mod dk_dv;
mod dq;
mod forward;
mod keys;
mod tile;

use cubecl::ir::features::MmaConfig;
use cubecl::prelude::*;

pub(crate) use dk_dv::dk_dv_kernel;
pub(crate) use dq::dq_kernel;
pub(crate) use forward::forward_kernel;

use super::{DRAWN, Pass, Shape};
use crate::tuning::Choice;

/// Lanes of a plane: the fragments' layout fixes them.
const LANES: usize = 32;
/// Rows of a fragment, and the k of a product.
const ROWS: usize = 16;
/// Columns of a product.
const COLUMNS: usize = 8;
/// Keys of a block: a quad of lanes shares a query, and each of the four has the keys of one Philox call.
const KEYS: usize = 4 * DRAWN;

/// Bytes of shared memory that a cube takes at most: heads of 128 elements, and what dk and dv pass on beside the stage.
const MOST_SHARED: usize = 80 << 10;
/// Rows of the stage that hold a block: keys and their values, or queries and their gradients from row `KEYS` on.
const BLOCK: usize = 2 * KEYS;

/// What is decided when the kernels are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blueprint {
    /// Planes of a cube.
    pub planes: usize,
    /// Fragments of 16 queries that a plane owns in forward; planes x fragments is at most 8, and planes at most 4 in backward.
    pub fragments: usize,
    /// Queries that are staged at a time for dk and dv: a multiple of 16.
    pub queries: usize,
    /// A multiple of 16.
    pub head_dim: usize,
    pub dropout: bool,
}

impl Blueprint {
    /// None where the device or the shape does not suit: `dtypes` are those of the fused projection and of all that is
    /// multiplied with it.
    pub(crate) fn new<R: Runtime>(
        client: &ComputeClient<R>,
        shape: &Shape,
        dropout: bool,
        pass: Pass,
        dtypes: &[StorageType],
    ) -> Option<Self> {
        let properties = client.properties();
        let (matmul, hardware) = (&properties.features.matmul, &properties.hardware);
        let dtype = dtypes[0];
        let fragment = MmaConfig {
            a_type: dtype,
            b_type: dtype,
            cd_type: f32::as_type_native_unchecked().storage_type(),
            m: ROWS as u32,
            n: COLUMNS as u32,
            k: ROWS as u32,
        };
        let suits = dtypes.iter().all(|other| *other == dtype)
            && matmul.mma.contains(&fragment)
            && matmul.ldmatrix.contains(&dtype)
            && [hardware.plane_size_min, hardware.plane_size_max] == [LANES as u32; 2]
            && shape.head_dim.is_multiple_of(ROWS)
            && shape.head_dim <= 128
            && shape.width.is_multiple_of(8)
            && hardware.max_shared_memory_size >= MOST_SHARED;
        // Two fragments halve what is read of the stage; with dropout they spill 40 bytes a thread. With more than 64 dimensions
        // the sums alone fill a lane's registers.
        let small = shape.head_dim <= 64;
        let (fragments, queries) = (if small && !dropout { 2 } else { 1 }, if small { 64 } else { 32 });
        let ([planes, fragments], queries) = match pass {
            Pass::Forward => (Choice::AttentionForward.two().unwrap_or([4, fragments]), queries),
            Pass::Backward => {
                let [planes, queries] = Choice::AttentionBackward.two().unwrap_or([4, queries]);
                ([planes, fragments], queries)
            }
        };
        suits.then_some(Self { planes, fragments, queries, head_dim: shape.head_dim, dropout })
    }

    pub(crate) fn units(&self) -> usize {
        self.planes * LANES
    }

    /// Queries that a cube owns in forward.
    pub(crate) fn forward_rows(&self) -> usize {
        self.planes * self.fragments * ROWS
    }

    /// Queries, or keys, that a cube owns in backward.
    pub(crate) fn backward_rows(&self) -> usize {
        self.planes * ROWS
    }

    /// Vectors of the stage: two blocks, each of `KEYS` rows of two matrices. One is filled while the other is multiplied.
    fn stage(&self) -> usize {
        2 * BLOCK * self.stride()
    }

    /// 16-byte vectors between neighbouring rows of the stage: one more than a row has, so that the eight rows that
    /// ldmatrix reads at a time lie in different banks (a row's own number is even).
    fn stride(&self) -> usize {
        self.head_dim / 8 + 1
    }
}
