//! The matrix product of compute capability 8.0 and later: cp.async, a ring of stages, mma.sync
//! (shaders/cuda/ampere_gemm.cu).

use cubecl::prelude::*;

use super::Product;
use super::ampere_blueprint::Blueprint;
use super::setting::Setting;
use super::task::{Gemm, Kernel};
use crate::cuda::{KernelFamily, Task, ampere};

/// Whether the kernel runs on this device.
pub fn available<R: Runtime>(client: &ComputeClient<R>) -> bool {
    ampere(client).is_some()
}

/// Launches the product, where the device and the setting take it: not where the blueprint needs more shared memory than
/// there is, nor a grid more blocks than it may have.
pub(super) fn launch<R: Runtime>(client: &ComputeClient<R>, setting: Setting<Blueprint>, product: &Product) -> bool {
    let Some(client) = ampere(client) else { return false };
    let Product { m, n, form, .. } = *product;
    let hardware = &client.properties().hardware;
    let multiprocessors = hardware.num_streaming_multiprocessors.unwrap_or(1) as usize;
    let shared = hardware.max_shared_memory_size;
    let chosen = || Blueprint::chosen([m, n], multiprocessors, shared);
    let blueprint = setting.blueprint(KernelFamily::MmaProducts, chosen);
    let Some(blueprint) = blueprint.filter(|blueprint| blueprint.shared_bytes() <= shared) else { return false };
    let tiles = m.div_ceil(blueprint.tile_m) * n.div_ceil(blueprint.tile_n);
    let Ok(tiles @ 0..=0x7fff_ffff) = u32::try_from(tiles) else { return false };
    let task = Task(Gemm { kernel: Kernel::Ampere(blueprint), form });
    client.launch(Box::new(task), CubeCount::Static(tiles, 1, 1), product.arguments());
    true
}
