//! CUDA and WGPU: burn-cubecl's tensors, our kernels.

#[cfg(all(feature = "cuda", not(target_os = "macos")))]
mod kernel_cache;
mod kernels;
mod tuning;

use crate::discovery::DeviceInfo;
#[cfg(feature = "wgpu")]
use crate::discovery::Kind;

/// NVIDIA GPUs.
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub type Cuda = burn_cuda::Cuda<f32, i32>;

/// Vulkan, Metal and DX12.
#[cfg(feature = "wgpu")]
pub type Wgpu = burn_wgpu::Wgpu<f32, i32, u32>;

/// burn's name of a discovered CUDA device, whose kernels are kept on disk from now on.
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub fn cuda_device(info: &DeviceInfo) -> burn_cuda::CudaDevice {
    kernel_cache::enable(info);
    burn_cuda::CudaDevice::new(info.index)
}

/// Where what was compiled and found out for a device is kept; `None` where nothing is.
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub use kernel_cache::folder as kernel_folder;

/// burn's name of a discovered adapter, with its interface set up.
#[cfg(feature = "wgpu")]
pub fn wgpu_device(info: &DeviceInfo) -> burn_wgpu::WgpuDevice {
    use burn_wgpu::{WgpuDevice, graphics, init_setup};
    let device = match info.kind {
        Kind::Discrete => WgpuDevice::DiscreteGpu(info.kind_index),
        Kind::Integrated => WgpuDevice::IntegratedGpu(info.kind_index),
        Kind::Virtual => WgpuDevice::VirtualGpu(info.kind_index),
        Kind::Cpu => WgpuDevice::Cpu,
    };
    // Left alone, CubeCL takes Vulkan (Metal on macOS); an adapter that only DX12 sees must be asked for.
    if info.api == "DX12" {
        init_setup::<graphics::Dx12>(&device, Default::default());
    }
    device
}
