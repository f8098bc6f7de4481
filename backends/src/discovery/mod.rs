//! What can train on this machine: every CUDA device, WGPU adapter and the CPU, and which of them a request gets.
//!
//! Nothing here creates a device context or compiles a kernel.

#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub(crate) mod cuda;
#[cfg(feature = "wgpu")]
mod wgpu;

mod choice;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

pub use choice::{Choice, Request, choose};

/// What runs the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    Cuda,
    Wgpu,
    Cpu,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cuda => "cuda",
            Self::Wgpu => "wgpu",
            Self::Cpu => "cpu",
        })
    }
}

/// How a device is built. Software adapters (llvmpipe, SwiftShader, WARP) are `Cpu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A GPU that a hypervisor lends, or one of no known kind.
    Virtual,
    /// The CPU, itself or behind a graphics interface.
    Cpu,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Cpu => "cpu",
        })
    }
}

/// One device and what the choice of kernels depends on. `None` is what the interface does not tell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceInfo {
    pub backend: Backend,
    /// What `--device` takes: the position among the backend's devices.
    pub index: usize,
    pub name: String,
    pub kind: Kind,
    /// The position among the adapters of the same `kind` and `api`, which is how cubecl-wgpu counts them.
    pub kind_index: usize,
    /// Whether a CPU stands behind a graphics interface.
    pub software: bool,
    /// The interface: "CUDA", "Vulkan", "Metal", "DX12", or "native".
    pub api: String,
    /// Driver name and version.
    pub driver: String,
    /// Memory of the device; of an integrated GPU, what it may use of the host's.
    pub memory_bytes: Option<u64>,
    /// Arithmetic on fp16 in kernels.
    pub f16: bool,
    /// Arithmetic on bf16 in kernels.
    pub bf16: bool,
    /// Smallest and largest number of threads in a plane (warp, subgroup), where kernels may use plane operations.
    pub planes: Option<(u32, u32)>,
    /// Matrix units that kernels may use: their element types or tile shapes.
    pub tensor_cores: Option<String>,
    /// Largest range of a buffer that a kernel can bind, in bytes.
    pub max_binding_bytes: Option<u64>,
    /// Largest buffer, in bytes.
    pub max_buffer_bytes: Option<u64>,
    /// Shared memory of a cube (thread block, workgroup), in bytes.
    pub max_shared_memory: Option<u64>,
    /// Buffers that one kernel can bind.
    pub max_bindings: Option<u32>,
    /// Cubes in the first dimension of a launch.
    pub max_cubes: Option<u32>,
    /// Major and minor, of CUDA devices.
    pub compute_capability: Option<(u32, u32)>,
    /// Cores that run threads at once: of the CPU; multiprocessors of CUDA devices.
    pub cores: Option<u32>,
    /// Why this device cannot be used though its backend can.
    pub unusable: Option<String>,
}

/// Something that a backend needs and this machine lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// "no CUDA driver (libcuda.so.1 not found)"
    pub what: String,
    /// A sentence that says how to get it.
    pub remedy: String,
}

/// A backend's devices, and what keeps it from running. It can run where nothing is missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Found {
    pub devices: Vec<DeviceInfo>,
    pub missing: Vec<Missing>,
}

impl Found {
    /// Whether the backend has a device that can be used.
    pub fn usable(&self) -> bool {
        self.missing.is_empty() && self.devices.iter().any(|device| device.unusable.is_none())
    }
}

/// All that was found on this machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Survey {
    pub cuda: Found,
    /// The best adapter first.
    pub wgpu: Found,
    pub cpu: Found,
}

impl Survey {
    /// Looks for every device. Takes the time of loading the graphics and CUDA drivers, some tens of milliseconds.
    pub fn take() -> Self {
        Self { cuda: find_cuda(), wgpu: find_wgpu(), cpu: find_cpu() }
    }

    /// Every device, CUDA's first, the CPU last.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceInfo> {
        [&self.cuda, &self.wgpu, &self.cpu].into_iter().flat_map(|found| &found.devices)
    }
}

/// The CUDA devices, and what is missing of the three things that running on them takes: the driver, NVRTC, headers.
pub fn find_cuda() -> Found {
    #[cfg(all(feature = "cuda", not(target_os = "macos")))]
    return cuda::find();
    #[cfg(target_os = "macos")]
    return Found::without("CUDA does not exist on macOS", "Use --backend wgpu, which runs on Metal.");
    #[cfg(not(any(feature = "cuda", target_os = "macos")))]
    return Found::without("this build has no CUDA", "Build with the default features, or with --features cuda.");
}

/// The WGPU adapters, the best first.
pub fn find_wgpu() -> Found {
    #[cfg(feature = "wgpu")]
    return wgpu::find();
    #[cfg(not(feature = "wgpu"))]
    return Found::without("this build has no WGPU", "Build with the default features, or with --features wgpu.");
}

/// The host's processor. Its memory is the program's to ask.
pub fn find_cpu() -> Found {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let device = DeviceInfo {
        kind: Kind::Cpu,
        api: "native".into(),
        driver: "burn-flex".into(),
        // Stored and converted; the arithmetic is fp32's.
        f16: true,
        bf16: true,
        cores: u32::try_from(cores).ok(),
        ..DeviceInfo::new(Backend::Cpu, 0, format!("CPU ({})", std::env::consts::ARCH))
    };
    Found { devices: vec![device], missing: Vec::new() }
}

impl Found {
    #[allow(dead_code, reason = "used where a backend is not in the build")]
    fn without(what: &str, remedy: &str) -> Self {
        Self { devices: Vec::new(), missing: vec![Missing { what: what.into(), remedy: remedy.into() }] }
    }
}

impl DeviceInfo {
    /// A device of which nothing else is known.
    pub fn new(backend: Backend, index: usize, name: String) -> Self {
        Self {
            backend,
            index,
            name,
            kind: Kind::Virtual,
            kind_index: 0,
            software: false,
            api: String::new(),
            driver: String::new(),
            memory_bytes: None,
            f16: false,
            bf16: false,
            planes: None,
            tensor_cores: None,
            max_binding_bytes: None,
            max_buffer_bytes: None,
            max_shared_memory: None,
            max_bindings: None,
            max_cubes: None,
            compute_capability: None,
            cores: None,
            unusable: None,
        }
    }
}
