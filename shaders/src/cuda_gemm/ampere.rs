//! The matrix product of compute capability 8.0 and later: cp.async, a ring of stages, mma.sync
//! (shaders/cuda/ampere_gemm.cu).

use cubecl::prelude::*;
use cubecl::server::{KernelArguments, MetadataBindingInfo};
use cubecl_cuda::CudaRuntime;

use super::ampere_blueprint::Blueprint;
use super::setting::Setting;
use super::task::{Kernel, Task};
use super::{Destination, Operand, Product, cuda};
use crate::device::Buffer;

/// CubeCL's CUDA client, if this is one of a device with cp.async and the mma.sync of 16 k.
fn capable<R: Runtime>(client: &ComputeClient<R>) -> Option<&ComputeClient<CudaRuntime>> {
    cuda(client).filter(|client| client.properties().features.copy_async)
}

/// Whether `ampere_gemm` runs on this device.
pub fn available<R: Runtime>(client: &ComputeClient<R>) -> bool {
    capable(client).is_some()
}

/// As `hopper_gemm`, on any device of compute capability 8.0 or later. Not launched either where the blueprint takes
/// more shared memory than the device has, or the product has more tiles than a grid has blocks.
///
/// # Panics
/// If the operands' extents do not fit each other.
#[must_use]
pub fn ampere_gemm<R: Runtime>(
    client: &ComputeClient<R>,
    setting: Setting<Blueprint>,
    a: &Operand<R>,
    b: &Operand<R>,
    bias: Option<Buffer<R>>,
    out: Destination<R>,
) -> bool {
    let Some(client) = capable(client) else { return false };
    let Some(Product { m, n, form, buffers, numbers }) = Product::of(a, b, bias, out) else { return false };
    let hardware = &client.properties().hardware;
    let multiprocessors = hardware.num_streaming_multiprocessors.unwrap_or(1) as usize;
    let shared = hardware.max_shared_memory_size;
    let chosen = setting.blueprint(|| Blueprint::chosen([m, n], multiprocessors, shared));
    let Some(blueprint) = chosen.filter(|blueprint| blueprint.shared_bytes() <= shared) else { return false };
    let tiles = m.div_ceil(blueprint.tile_m) * n.div_ceil(blueprint.tile_n);
    let Ok(tiles @ 0..=0x7fff_ffff) = u32::try_from(tiles) else { return false };
    let arguments = KernelArguments::new()
        .with_buffers(buffers)
        // By value: no part of it is dynamic.
        .with_info(MetadataBindingInfo { dynamic_metadata_offset: numbers.len(), data: numbers });
    client.launch(
        Box::new(Task { kernel: Kernel::Ampere(blueprint), form }),
        CubeCount::Static(tiles, 1, 1),
        arguments,
    );
    true
}
