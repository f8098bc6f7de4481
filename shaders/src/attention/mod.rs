//! Causal attention without the T x T matrix (Dao, "FlashAttention-2", 2023).
//!
//! Three variants: `cuda` (in CUDA C++) and `tensor_cores` where the device has them and the shape suits, and one for every
//! device. There a unit owns
//! a few neighbouring rows (queries, or keys for their gradients) and walks over the other side in blocks of 16 or 32. The
//! scores of a block are in registers; the sums over blocks are in fp32 scratch of N x C elements, read and written once a
//! block and dimension. Keeping them in registers needs every dimension unrolled: on llvmpipe each load is then several
//! basic blocks, and compiling D = 128 took minutes. Units share nothing, so there are no barriers.
//!
//! In all, every sum has one order and there are no atomics. Forward saves O and the log-sum-exp; backward computes the
//! probabilities again. Memory is O(T).
//!
//! q, k and v are read where the fused projection left them: rows of W elements, q at column 0, k at C, v at 2C.

mod backward;
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub(crate) mod cuda;
pub mod decode;
mod forward;
mod gradients;
mod tensor_cores;

pub use backward::attention_backward;
pub use forward::attention_forward;
pub use gradients::{Gradients, Projection, projected_sums};

use cubecl::prelude::*;

use crate::device::{Class, check_iterations};
use crate::elementwise::width;
use crate::packed::Packing;
use crate::philox::{Dropout as KernelDropout, DropoutLaunch, Words, factor, words};
use crate::tuning::Choice;

/// fp32 values of scratch that forward, and each of the two of backward, needs: none where the sums stay in registers.
/// `dtypes` are those of the fused projection, of o or its gradient, and in backward of what it writes into.
pub fn scratch_len<R: Runtime>(client: &ComputeClient<R>, shape: &Shape, dtypes: &[StorageType]) -> usize {
    let in_registers = tensor_cores::Blueprint::new(client, shape, false, Pass::Forward, dtypes).is_some();
    if in_registers { 0 } else { shape.batch * shape.seq * shape.heads * shape.head_dim }
}

/// fp32 values that `Gradients::delta` needs, for dtypes as in `scratch_len`.
pub fn delta_len<R: Runtime>(client: &ComputeClient<R>, shape: &Shape, dtypes: &[StorageType]) -> usize {
    let rows = shape.batch * shape.seq * shape.heads;
    #[cfg(all(feature = "cuda", not(target_os = "macos")))]
    if cuda::Blueprint::new(client, shape, Pass::Backward, dtypes).is_some() {
        // The log-sum-exp beside each.
        return 2 * rows;
    }
    let _ = (client, dtypes);
    rows
}

/// Far below any score, yet finite: WGSL has no infinities to rely on.
pub(crate) const MASKED: f32 = -1.0e30;

/// Keys whose dropout one Philox call decides.
pub(crate) const DRAWN: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Forward,
    Backward,
}

/// Whether `Choice` names a kernel for this pass that does not take the shape, for dtypes as in `scratch_len`: another one is
/// launched then.
pub fn refused<R: Runtime>(client: &ComputeClient<R>, shape: &Shape, pass: Pass, dtypes: &[StorageType]) -> bool {
    let choice = match pass {
        Pass::Forward => Choice::AttentionForward,
        Pass::Backward => Choice::AttentionBackward,
    };
    #[cfg(all(feature = "cuda", not(target_os = "macos")))]
    if choice.three().is_some() {
        return cuda::Blueprint::new(client, shape, pass, dtypes).is_none();
    }
    choice.two().is_some() && tensor_cores::Blueprint::new(client, shape, false, pass, dtypes).is_none()
}

/// What is decided when the kernels are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blueprint {
    /// Neighbouring rows that a unit owns; divides 16.
    pub rows: usize,
    /// Rows of the other side that a unit takes at a time; a multiple of 16.
    pub block: usize,
    pub units: usize,
    /// Elements of a head that are read at a time: 1, 2 or 4.
    pub width: usize,
    /// How the fused projection, o's gradient (o itself in forward, where it is not read) and the sums between blocks are bound.
    pub fused: Packing,
    pub gradient: Packing,
    pub scratch: Packing,
    pub dropout: bool,
}

impl Blueprint {
    /// # Panics
    /// If the sequence is longer than the device's loops can be.
    pub(crate) fn new<R: Runtime>(
        client: &ComputeClient<R>,
        shape: &Shape,
        dropout: bool,
        pass: Pass,
        [fused, gradient]: [StorageType; 2],
    ) -> Self {
        // A lane reads one by one whatever it reads, so large tiles win there; larger ones than these take long to compile. A
        // GPU's 2 x 16 scores are 32 registers, twice in backward; by fours dq spills 8 bytes a thread on sm_80.
        let (sizes, most) = match (Class::of(client), pass) {
            (Class::Narrow, Pass::Forward) => ([4, 32, 8], 4),
            (Class::Narrow, Pass::Backward) => ([8, 32, 8], 4),
            (Class::Wide, _) => ([2, 16, 64], 2),
        };
        let choice = match pass {
            Pass::Forward => Choice::AttentionForwardUnits,
            Pass::Backward => Choice::AttentionBackwardUnits,
        };
        let [rows, block, units] = choice.three().unwrap_or(sizes);
        let width = width(&[shape.head_dim, shape.width]).min(most);
        check_iterations(client, shape.seq.div_ceil(block) * (1 + 2 * shape.head_dim / width), "attention");
        let fp32 = f32::as_type_native_unchecked().storage_type();
        let [fused, gradient, scratch] = [fused, gradient, fp32].map(|dtype| Packing::of(client, dtype, width));
        Self { rows, block, units, width, fused, gradient, scratch, dropout }
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

/// A launch's sizes; `dims` and `width` in vectors.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub(crate) struct Sizes {
    pub batch: usize,
    pub seq: usize,
    pub heads: usize,
    pub dims: usize,
    pub width: usize,
    pub scale: f32,
}

impl Shape {
    /// With the sizes of rows in vectors of `by` elements.
    pub(crate) fn launch<R: Runtime>(&self, by: usize) -> SizesLaunch<R> {
        SizesLaunch::new(self.batch, self.seq, self.heads, self.head_dim / by, self.width / by, self.scale)
    }
}

/// Where a cube works, and where its head's matrices begin (in vectors).
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Place {
    pub sequence: usize,
    pub head: usize,
    /// sequence * H + head.
    pub row: usize,
    pub tile: usize,
    /// Of q, k and v in the fused projection.
    pub q: usize,
    pub k: usize,
    pub v: usize,
    /// Of o and its gradient.
    pub o: usize,
    pub scratch: usize,
}

/// The tile, head and sequence of this cube.
#[cube]
pub(crate) fn place(sizes: &Sizes, tiles: usize) -> Place {
    let tile = CUBE_POS % tiles;
    let row = CUBE_POS / tiles;
    let (sequence, head) = (row / sizes.heads, row % sizes.heads);
    let hidden = sizes.heads * sizes.dims;
    let q = sequence * sizes.seq * sizes.width + head * sizes.dims;
    let o = sequence * sizes.seq * hidden + head * sizes.dims;
    let scratch = row * sizes.dims * sizes.seq;
    Place { sequence, head, row, tile, q, k: q + hidden, v: q + 2 * hidden, o, scratch }
}

/// Multiplies `values[start..start + span]`, those of query `position` and the `span` keys from `first_key` on, with their
/// dropout factors.
#[cube]
fn drop_row(
    values: &mut Array<f32>,
    dropout: &KernelDropout,
    here: &Place,
    position: usize,
    first_key: usize,
    #[comptime] start: usize,
    #[comptime] span: usize,
) {
    #[unroll]
    for group in 0..comptime!(span / DRAWN) {
        let keys = (first_key / DRAWN + group) as u32;
        let drawn = words(dropout, here.sequence as u32, here.head as u32, position as u32, keys, false);
        #[unroll]
        for j in 0..DRAWN {
            let at = comptime!(start + group * DRAWN + j);
            values[at] = values[at] * factor(dropout, word(&drawn, j / 4), (j % 4) as u32);
        }
    }
}

/// Word `index` (0 to 3) of a Philox call.
#[cube]
pub(crate) fn word(words: &Words, index: usize) -> u32 {
    let low = select(index == 0, words.w0, words.w1);
    let high = select(index == 2, words.w2, words.w3);
    select(index < 2, low, high)
}

/// sum + a . b.
#[cube]
pub(crate) fn add_dot<N: Size>(a: Vector<f32, N>, b: Vector<f32, N>, sum: f32, #[comptime] width: usize) -> f32 {
    let mut total = sum;
    #[unroll]
    for e in 0..width {
        total = fma(a[e], b[e], total);
    }
    total
}
