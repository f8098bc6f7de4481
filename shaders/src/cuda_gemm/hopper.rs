//! The matrix product of compute capability 9.0: TMA, a ring of stages, wgmma (shaders/cuda/hopper_gemm.cu).

use cubecl::prelude::*;
use cubecl::server::TensorMapBinding;

use super::hopper_blueprint::Blueprint;
use super::setting::Setting;
use super::task::{Gemm, Kernel};
use super::{Operand, Product};
use crate::cuda::{KernelFamily, Task, WIDTH, hopper, tensor_map};

/// Whether the kernel runs on this device.
pub fn available<R: Runtime>(client: &ComputeClient<R>) -> bool {
    hopper(client).is_some()
}

impl<R: Runtime> Operand<R> {
    /// A map of boxes that are one swizzled row wide, and of `side` rows where those run along m or n.
    fn map(&self, side: usize) -> TensorMapBinding {
        let rows = if self.k_rows { WIDTH } else { side };
        tensor_map(self.binding(), self.buffer.dtype, &[(self.rows, self.cols, rows), (self.cols, 1, WIDTH)])
    }
}

/// Launches the product, where the device and the setting take it.
pub(super) fn launch<R: Runtime>(
    client: &ComputeClient<R>,
    setting: Setting<Blueprint>,
    [a, b]: [&Operand<R>; 2],
    product: &Product,
) -> bool {
    let Some(client) = hopper(client) else { return false };
    let Product { m, n, form, .. } = *product;
    let multiprocessors = client.properties().hardware.num_streaming_multiprocessors.unwrap_or(1) as usize;
    let chosen = || Blueprint::chosen([m, n], multiprocessors);
    let Some(blueprint) = setting.blueprint(KernelFamily::WgmmaProducts, chosen) else { return false };
    let clusters = m.div_ceil(blueprint.cluster_m()) * n.div_ceil(blueprint.tile_n);
    let clusters = clusters.min((multiprocessors / blueprint.cluster).max(1));
    let grid = CubeCount::Static((clusters * blueprint.cluster) as u32, 1, 1);
    let maps = vec![a.map(blueprint.tile_m), b.map(blueprint.tile_n / blueprint.cluster)];
    // The operands once more as buffers: CubeCL waits for other streams only of those.
    let arguments = product.arguments().with_tensor_maps(maps);
    client.launch(Box::new(Task(Gemm { kernel: Kernel::Hopper(blueprint), form })), grid, arguments);
    true
}
