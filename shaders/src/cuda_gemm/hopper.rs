//! The matrix product of compute capability 9.0: TMA, a ring of stages, wgmma (shaders/cuda/hopper_gemm.cu).

use cubecl::ir::features::Tma;
use cubecl::prelude::*;
use cubecl::server::{TensorMapBinding, TensorMapMeta};
use cubecl::zspace::metadata::Metadata;
use cubecl::zspace::{Shape, Strides};
use cubecl_cuda::CudaRuntime;

use super::hopper_blueprint::Blueprint;
use super::setting::Setting;
use super::task::{Kernel, Task};
use super::{Operand, Product, WIDTH, cuda};

/// CubeCL's CUDA client, if this is one of a device with wgmma. Of the architectures that have TMA only 9.0 lacks the
/// wide im2col mode; those after it multiply in other ways.
fn capable<R: Runtime>(client: &ComputeClient<R>) -> Option<&ComputeClient<CudaRuntime>> {
    let tma = &client.properties().features.tma;
    let hopper = tma.contains(Tma::Base) && !tma.contains(Tma::Im2colWide);
    cuda(client).filter(|_| hopper)
}

/// Whether the kernel runs on this device.
pub fn available<R: Runtime>(client: &ComputeClient<R>) -> bool {
    capable(client).is_some()
}

impl<R: Runtime> Operand<R> {
    /// A map of boxes that are one swizzled row wide, and of `side` rows where those run along m or n.
    fn map(&self, side: usize) -> TensorMapBinding {
        let rows = if self.k_rows { WIDTH } else { side };
        let map = TensorMapMeta {
            format: TensorMapFormat::Tiled(TiledArgs { tile_size: Shape::new([rows, WIDTH]) }),
            metadata: Metadata::new(Shape::new([self.rows, self.cols]), Strides::new(&[self.cols, 1])),
            elem_stride: Strides::new(&[1, 1]),
            interleave: TensorMapInterleave::None,
            swizzle: TensorMapSwizzle::B128,
            prefetch: TensorMapPrefetch::B256,
            oob_fill: OobFill::Zero,
            storage_ty: self.buffer.dtype,
        };
        TensorMapBinding { binding: self.binding(), map }
    }
}

/// Launches the product, where the device and the setting take it.
pub(super) fn launch<R: Runtime>(
    client: &ComputeClient<R>,
    setting: Setting<Blueprint>,
    [a, b]: [&Operand<R>; 2],
    product: &Product,
) -> bool {
    let Some(client) = capable(client) else { return false };
    let Product { m, n, form, .. } = *product;
    let multiprocessors = client.properties().hardware.num_streaming_multiprocessors.unwrap_or(1) as usize;
    let Some(blueprint) = setting.blueprint(|| Blueprint::chosen([m, n], multiprocessors)) else { return false };
    let clusters = m.div_ceil(blueprint.cluster_m()) * n.div_ceil(blueprint.tile_n);
    let clusters = clusters.min((multiprocessors / blueprint.cluster).max(1));
    let grid = CubeCount::Static((clusters * blueprint.cluster) as u32, 1, 1);
    let maps = vec![a.map(blueprint.tile_m), b.map(blueprint.tile_n / blueprint.cluster)];
    // The operands once more as buffers: CubeCL waits for other streams only of those.
    let arguments = product.arguments().with_tensor_maps(maps);
    client.launch(Box::new(Task { kernel: Kernel::Hopper(blueprint), form }), grid, arguments);
    true
}
