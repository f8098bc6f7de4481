//! The factor of clipping by the global norm (Pascanu et al., "On the difficulty of training recurrent neural networks",
//! 2013, algorithm 1) and of unscaling, taken on the device so that the update need not wait for the host.

use cubecl::prelude::*;

use crate::elementwise::array;

/// The exponent's bits of an fp32: all set in infinities and NaNs. Compared as bits, since shader compilers may assume that
/// there are neither.
const EXPONENT: u32 = 0x7f80_0000;

#[cube]
fn finite(x: f32) -> bool {
    u32::reinterpret(x) & EXPONENT != EXPONENT
}

#[cube(launch_unchecked)]
fn factor_kernel(loss: &Array<f32>, squares: &Array<f32>, factor: &mut Array<f32>, loss_scale: f32, clip: f32) {
    if UNIT_POS == 0 {
        let norm = f32::sqrt(squares[0]) / loss_scale;
        // PyTorch's clip_grad_norm_ adds the same 1e-6.
        let limit = select(clip > 0.0f32, clip / (norm + 1.0e-6f32), 1.0f32);
        let clipping = select(limit < 1.0f32, limit, 1.0f32);
        factor[0] = select(finite(loss[0]) && finite(squares[0]), clipping / loss_scale, 0.0f32);
    }
}

/// Writes to `factor[0]` what gradients scaled by `loss_scale` are multiplied with so that their norm, whose scaled square is
/// `squares[0]`, is at most `clip` (no limit at 0); zero where loss or norm is not finite.
pub fn factor<R: Runtime>(
    client: &ComputeClient<R>,
    [loss, squares, factor]: [TensorBinding<R>; 3],
    loss_scale: f32,
    clip: f32,
) {
    let (one, dim) = (CubeCount::Static(1, 1, 1), CubeDim::new_1d(1));
    // SAFETY: one unit reads and writes the first element of buffers of one.
    unsafe {
        factor_kernel::launch_unchecked(client, one, dim, array(loss), array(squares), array(factor), loss_scale, clip)
    };
}
