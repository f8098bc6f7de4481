//! Rotary position embedding (Su et al., "RoFormer"; half-split pairing as in GPT-NeoX) of q and k, in place.

use cubecl::prelude::*;

use crate::device::Buffer;
use crate::elementwise::{array, spread, unit_index, width};
use crate::tuning::Choice;

/// The sizes of the fused projection and of its rotated part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub tokens: usize,
    pub seq: usize,
    pub heads: usize,
    pub head_dim: usize,
    /// Leading dimensions of each head that turn: pairs (i, i + rotary_dim / 2).
    pub rotary_dim: usize,
    /// Elements of a row of the fused projection.
    pub row: usize,
    /// Columns of the tables of cosines and sines.
    pub table_cols: usize,
}

/// (a, b) becomes (a cos - b sin, b cos + a sin), with sin negated to turn back. Sizes are in vectors.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn rotary_kernel<T: Float, N: Size>(
    fused: &mut Array<Vector<T, N>>,
    cos: &Array<Vector<f32, N>>,
    sin: &Array<Vector<f32, N>>,
    len: usize,
    seq: usize,
    heads: usize,
    head_dim: usize,
    half: usize,
    row: usize,
    table_cols: usize,
    sign: f32,
    #[define(T)] _dtype: StorageType,
) {
    let at = unit_index();
    if at < len {
        let pair = at % half;
        let head = at / half % heads;
        let token = at / half / heads;
        let first = token * row + head * head_dim + pair;
        let angle = token % seq * table_cols + pair;
        let a = Vector::<f32, N>::cast_from(fused[first]);
        let b = Vector::<f32, N>::cast_from(fused[first + half]);
        let cos = cos[angle];
        let sin = sin[angle] * Vector::new(sign);
        fused[first] = Vector::cast_from(a * cos - b * sin);
        fused[first + half] = Vector::cast_from(b * cos + a * sin);
    }
}

/// Turns q and k, the first 2 x heads heads of each row of the contiguous `fused`; `cos` and `sin` are fp32 with a row a
/// position. `back` turns the other way, which is the gradient.
pub fn rotate<R: Runtime>(
    client: &ComputeClient<R>,
    sizes: Sizes,
    fused: Buffer<R>,
    [cos, sin]: [TensorBinding<R>; 2],
    back: bool,
) {
    let half = sizes.rotary_dim / 2;
    let n = width(&[half, sizes.head_dim, sizes.row, sizes.table_cols]);
    let heads = 2 * sizes.heads;
    let len = sizes.tokens * heads * half / n;
    let (count, dim) = spread(client, len, Some(Choice::RotaryUnits));
    let dtype = fused.dtype;
    let sign = if back { -1.0 } else { 1.0 };
    // SAFETY: each unit compares its index with the length; it alone reads and writes its pair.
    unsafe {
        rotary_kernel::launch_unchecked(
            client,
            count,
            dim,
            n,
            fused.arg(),
            array(cos),
            array(sin),
            len,
            sizes.seq,
            heads,
            sizes.head_dim / n,
            half / n,
            sizes.row / n,
            sizes.table_cols / n,
            sign,
            dtype,
        );
    }
}
