//! What the launchers need to know of a device.

use cubecl::ir::features::Plane;
use cubecl::prelude::*;

/// Two ways to run a kernel that needs neither planes nor shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A processor's SIMD lanes (llvmpipe: planes of 8): a lane's registers spill to the first-level cache, so large tiles
    /// a lane win, and a cube is one vector wide.
    Narrow,
    /// A GPU: registers are few, lanes are many.
    Wide,
}

impl Class {
    pub fn of<R: Runtime>(client: &ComputeClient<R>) -> Self {
        if client.properties().hardware.plane_size_max <= 8 { Self::Narrow } else { Self::Wide }
    }
}

/// Whether kernels may ask for the upper half of a product in one instruction. WGSL has none; what has tensor cores is no WGSL.
pub(crate) fn multiplies_high<R: Runtime>(client: &ComputeClient<R>) -> bool {
    !client.properties().features.matmul.cmma.is_empty()
}

/// Lanes of a plane where all planes are as long and their lanes can shuffle; 0 elsewhere.
pub(crate) fn plane_lanes<R: Runtime>(client: &ComputeClient<R>) -> usize {
    let (hardware, features) = (&client.properties().hardware, &client.properties().features);
    let same = hardware.plane_size_min == hardware.plane_size_max;
    if features.plane.contains(Plane::Ops) && same { hardware.plane_size_max as usize } else { 0 }
}

/// Iterations of all its loops together after which llvmpipe silently ends a kernel's loops (Mesa's
/// LP_MAX_TGSI_LOOP_ITERATIONS is 65,535). Kernels whose loops grow with a matrix stay below it there.
pub const NARROW_ITERATIONS: usize = 65_000;

/// # Panics
/// If `iterations` of a kernel's loops are more than the device runs: a result that is silently wrong would be worse.
pub(crate) fn check_iterations<R: Runtime>(client: &ComputeClient<R>, iterations: usize, what: &str) {
    assert!(
        Class::of(client) == Class::Wide || iterations <= NARROW_ITERATIONS,
        "{what} over so many tokens takes {iterations} loop iterations; this software device ends loops after \
         {NARROW_ITERATIONS}: lower model.seq_len or train.micro_batch, or take --backend cpu"
    );
}

/// Waits, asleep, until the runtime's own thread has taken up all that was queued; on a processor's SIMD lanes only.
///
/// CubeCL's queue holds 32 launches, and a thread that finds it full spins. Where the processor is the device, that costs
/// the kernels a core: a step on two cores took 420 ms instead of 345. Call it every dozen launches or fewer.
pub fn wait_for_room<R: Runtime>(client: &ComputeClient<R>) {
    if Class::of(client) == Class::Narrow {
        // The next launch reports a runtime that is gone, and better.
        client.exclusive(|| ()).ok();
    }
}

/// Cubes for `cubes` pieces of work: spread over y and z past the device's limit, so kernels compare `CUBE_POS`.
pub(crate) fn cubes<R: Runtime>(client: &ComputeClient<R>, cubes: usize) -> CubeCount {
    cubecl::calculate_cube_count_elemwise(client, cubes, CubeDim::new_1d(1))
}

/// A buffer and the dtype of its elements.
pub struct Buffer<R: Runtime> {
    pub binding: TensorBinding<R>,
    pub dtype: StorageType,
}

impl<R: Runtime> Clone for Buffer<R> {
    fn clone(&self) -> Self {
        Self { binding: self.binding.clone(), dtype: self.dtype }
    }
}

impl<R: Runtime> Buffer<R> {
    pub(crate) fn arg(self) -> ArrayArg<R> {
        self.binding.into_tensor_arg().into_array_arg()
    }
}
