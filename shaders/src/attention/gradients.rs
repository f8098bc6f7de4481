//! What attention's backward is given.

use cubecl::prelude::*;

use super::Shape;
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
use super::cuda;
use crate::device::Buffer;

/// What backward reads and writes.
pub struct Gradients<R: Runtime> {
    /// `[N, C]`.
    pub d_o: Buffer<R>,
    /// `[N, W]`.
    pub fused: Buffer<R>,
    /// `[N, C]`: forward's output.
    pub o: Buffer<R>,
    /// `[B * H * T]` fp32: forward's log-sum-exp.
    pub lse: TensorBinding<R>,
    /// Scratch of `delta_len` fp32 values.
    pub delta: TensorBinding<R>,
    /// Two of `scratch_len` fp32 values.
    pub scratch: [TensorBinding<R>; 2],
    /// `[N, W]`: columns `..3C` are written.
    pub into: Buffer<R>,
    /// What else is asked for.
    pub projection: Option<Projection<R>>,
}

/// What takes the gradients on to those of q, k and v before q and k turned (rotary.rs).
pub struct Projection<R: Runtime> {
    /// Half the elements of a head that turned: columns of the tables.
    pub half: usize,
    /// A row a position, fp32.
    pub cosines: TensorBinding<R>,
    pub sines: TensorBinding<R>,
    /// `[projected_sums, 3C]` fp32: rows that add up to the gradients of the projection's bias.
    pub sums: TensorBinding<R>,
}

/// Rows of `Projection::sums`, where `attention_backward` is likely to take the projection; dtypes as in `scratch_len`.
pub fn projected_sums<R: Runtime>(
    client: &ComputeClient<R>,
    shape: &Shape,
    dtypes: &[StorageType],
    half: usize,
) -> Option<usize> {
    #[cfg(all(feature = "cuda", not(target_os = "macos")))]
    return cuda::projected_sums(client, shape, dtypes, half);
    #[cfg(not(all(feature = "cuda", not(target_os = "macos"))))]
    {
        let _ = (client, shape, dtypes, half);
        None
    }
}
