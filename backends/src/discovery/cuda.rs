//! CUDA devices, through the driver that is loaded at run time. Nothing here needs a toolkit, or panics without one.
//!
//! Running on CUDA takes three things of which each may be missing on its own: the driver (libcuda), NVRTC, which compiles
//! the kernels, and the toolkit's headers, which the kernels include.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use cudarc::driver::DriverError;
use cudarc::driver::result::{self, device};
use cudarc::driver::sys::{self, CUdevice_attribute};

use super::{Backend, DeviceInfo, Found, Kind, Missing};

/// cubecl-cuda's own bound (its src/device.rs); CUDA has none.
const MAX_BINDINGS: u32 = 1024;

/// Looks for devices and for all three needs.
pub(super) fn find() -> Found {
    let (mut devices, driver, mut missing) =
        match quietly(driver_devices).unwrap_or_else(|| Err(too_old("CUDA driver"))) {
            Ok((devices, driver)) => (devices, Some(driver), Vec::new()),
            Err(missing) => (Vec::new(), None, vec![missing]),
        };
    match quietly(nvrtc).unwrap_or_else(|| Err(too_old("NVRTC"))) {
        Ok(nvrtc) => {
            if let Some(driver) = driver.filter(|driver| ptx_isa(nvrtc.version) > ptx_isa(*driver)) {
                missing.push(newer_nvrtc(nvrtc.version, driver));
            }
            for device in &mut devices {
                device.unusable = device.compute_capability.and_then(|capability| nvrtc.refuses(capability));
            }
        }
        Err(absent) => missing.push(absent),
    }
    missing.extend(headers(toolkit().as_deref()));
    Found { devices, missing }
}

/// `look`, or nothing where it panics, as cudarc does on a library that lacks a symbol. Nothing of that is shown.
fn quietly<T>(look: impl FnOnce() -> T) -> Option<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let found = catch_unwind(AssertUnwindSafe(look));
    std::panic::set_hook(hook);
    found.ok()
}

fn too_old(library: &str) -> Missing {
    Missing {
        what: format!("this {library} lacks a function that is needed"),
        remedy: "Update the NVIDIA driver and the CUDA toolkit to 12.0 or later.".into(),
    }
}

/// The devices and the newest CUDA version that the driver runs.
fn driver_devices() -> Result<(Vec<DeviceInfo>, (u32, u32)), Missing> {
    // SAFETY: loads and unloads the driver's library, whose initialisers are the vendor's.
    if !unsafe { sys::is_culib_present() } {
        let library = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
        return Err(Missing {
            what: format!("no CUDA driver ({library} not found)"),
            remedy: "Install the NVIDIA driver (https://www.nvidia.com/drivers; in a container, start it with the \
                     NVIDIA container toolkit, as `docker run --gpus all` does)."
                .into(),
        });
    }
    let failed = |error: DriverError| Missing {
        what: match error.0 {
            sys::CUresult::CUDA_ERROR_NO_DEVICE => "the CUDA driver sees no device".to_owned(),
            _ => format!("the CUDA driver fails ({:?})", error.0),
        },
        remedy:
            "See that `nvidia-smi` lists the GPU, that CUDA_VISIBLE_DEVICES does not hide it, and that the driver's \
                 library and kernel module have one version (a reboot after an update)."
                .into(),
    };
    result::init().map_err(failed)?;
    let version = driver_version().map_err(failed)?;
    let count = device::get_count().map_err(failed)?;
    let devices: Vec<_> = (0..count).map(|index| describe(index, version)).collect::<Result<_, _>>().map_err(failed)?;
    if devices.is_empty() {
        return Err(failed(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)));
    }
    Ok((devices, version))
}

fn driver_version() -> Result<(u32, u32), DriverError> {
    let mut version = 0;
    // SAFETY: writes one int, and needs no context.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    // 1000 x major + 10 x minor.
    Ok((version as u32 / 1000, version as u32 % 1000 / 10))
}

fn describe(index: i32, driver: (u32, u32)) -> Result<DeviceInfo, DriverError> {
    use CUdevice_attribute::*;
    let handle = device::get(index)?;
    // SAFETY: `handle` came from `device::get`.
    let attribute = |attribute| unsafe { device::get_attribute(handle, attribute) }.map(|value| value as u32);
    let capability = (
        attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    // SAFETY: as above.
    let memory = unsafe { device::total_mem(handle) }? as u64;
    let warp = attribute(CU_DEVICE_ATTRIBUTE_WARP_SIZE)?;
    let integrated = attribute(CU_DEVICE_ATTRIBUTE_INTEGRATED)? == 1;
    Ok(DeviceInfo {
        kind: if integrated { Kind::Integrated } else { Kind::Discrete },
        kind_index: index as usize,
        api: "CUDA".into(),
        driver: format!("CUDA {}.{}", driver.0, driver.1),
        memory_bytes: Some(memory),
        // CUDA C++ Programming Guide, "Features and Technical Specifications": half arithmetic from 5.3, bfloat16's from 8.0.
        f16: capability >= (5, 3),
        bf16: capability >= (8, 0),
        planes: Some((warp, warp)),
        tensor_cores: tensor_cores(capability).map(str::to_owned),
        max_binding_bytes: Some(memory),
        max_buffer_bytes: Some(memory),
        max_shared_memory: Some(attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?.into()),
        max_bindings: Some(MAX_BINDINGS),
        max_cubes: Some(attribute(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X)?),
        compute_capability: Some(capability),
        cores: Some(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?),
        ..DeviceInfo::new(Backend::Cuda, index as usize, device::get_name(handle)?)
    })
}

/// Element types of the tensor cores of a compute capability (same guide, "Tensor Core Input Data Type").
fn tensor_cores(capability: (u32, u32)) -> Option<&'static str> {
    match capability {
        (0..=6, _) => None,
        (7, _) => Some("fp16"),
        (8, 0..=8) => Some("fp16, bf16, tf32"),
        (8 | 9, _) => Some("fp16, bf16, tf32, fp8"),
        _ => Some("fp16, bf16, tf32, fp8, fp4"),
    }
}

/// What compiles kernels here: NVRTC's version and the folder of the headers.
pub(crate) fn compiler() -> (Option<(u32, u32)>, Option<PathBuf>) {
    (nvrtc().ok().map(|nvrtc| nvrtc.version), toolkit())
}

/// The compiler that was found.
struct Nvrtc {
    version: (u32, u32),
    /// Compute capabilities that it compiles for, as 10 x major + minor.
    architectures: Vec<i32>,
}

impl Nvrtc {
    /// Why this compiler is of no use to a device. cubecl asks for the device's own architecture, so it must be known.
    fn refuses(&self, (major, minor): (u32, u32)) -> Option<String> {
        let wanted = (10 * major + minor) as i32;
        if self.architectures.is_empty() || self.architectures.contains(&wanted) {
            return None;
        }
        let (oldest, newest) = (self.architectures.iter().min()?, self.architectures.iter().max()?);
        let version = format!("{}.{}", self.version.0, self.version.1);
        let advice = if wanted < *oldest { "install an older one" } else { "install a newer one" };
        Some(format!("NVRTC {version} compiles for sm_{oldest} to sm_{newest}, not for its sm_{wanted}: {advice}"))
    }
}

fn nvrtc() -> Result<Nvrtc, Missing> {
    use cudarc::nvrtc::sys as nvrtc;
    let remedy = "Install the CUDA toolkit (Debian, Ubuntu with NVIDIA's repository: `apt-get install cuda-nvrtc-12-8`), or \
                  `pip install nvidia-cuda-nvrtc-cu12` and put its lib folder on LD_LIBRARY_PATH.";
    // SAFETY: loads and unloads NVRTC's library, whose initialisers are the vendor's.
    if !unsafe { nvrtc::is_culib_present() } {
        let library = if cfg!(windows) { "nvrtc64_120_0.dll" } else { "libnvrtc.so" };
        return Err(Missing { what: format!("no NVRTC ({library} not found)"), remedy: remedy.into() });
    }
    let failed =
        |status: nvrtc::nvrtcResult| Missing { what: format!("NVRTC fails ({status:?})"), remedy: remedy.to_owned() };
    let check = |status| if status == nvrtc::nvrtcResult::NVRTC_SUCCESS { Ok(()) } else { Err(failed(status)) };
    let (mut major, mut minor, mut count) = (0, 0, 0);
    // SAFETY: each call writes the ints that it is given; the last writes as many as the one before said.
    let architectures = unsafe {
        check(nvrtc::nvrtcVersion(&mut major, &mut minor))?;
        check(nvrtc::nvrtcGetNumSupportedArchs(&mut count))?;
        let mut architectures = vec![0; usize::try_from(count).unwrap_or(0)];
        if !architectures.is_empty() {
            check(nvrtc::nvrtcGetSupportedArchs(architectures.as_mut_ptr()))?;
        }
        architectures
    };
    Ok(Nvrtc { version: (major as u32, minor as u32), architectures })
}

/// A number that orders the PTX versions of CUDA releases, each of which brings a new one but 12.6, whose PTX is 12.5's
/// (PTX ISA, "Release Notes"). cubecl hands PTX to the driver, and a driver does not read a newer one than its own.
fn ptx_isa(cuda: (u32, u32)) -> (u32, u32) {
    if cuda == (12, 6) { (12, 5) } else { cuda }
}

fn newer_nvrtc(nvrtc: (u32, u32), driver: (u32, u32)) -> Missing {
    let ((a, b), (c, d)) = (nvrtc, driver);
    Missing {
        what: format!("NVRTC {a}.{b} is newer than the driver, which runs CUDA up to {c}.{d}"),
        remedy: format!("Update the NVIDIA driver, or install NVRTC {c}.{d}."),
    }
}

/// The toolkit's folder, found as cubecl-cuda finds it (its src/lib.rs, `install::cuda_path`).
fn toolkit() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CUDA_PATH") {
        return Some(path.into());
    }
    if cfg!(windows) {
        return Some("C:/Program Files/NVIDIA GPU Computing Toolkit/CUDA/".into());
    }
    let exists = |path: &&str| Path::new(path).exists();
    let fixed = ["/usr/local/cuda", "/opt/cuda"].into_iter().find(exists);
    fixed.or_else(|| exists(&"/usr/bin/nvcc").then_some("/usr")).map(PathBuf::from)
}

/// What is missing of the headers that generated kernels include.
fn headers(toolkit: Option<&Path>) -> Option<Missing> {
    let remedy = "Install the CUDA toolkit's headers (Debian, Ubuntu with NVIDIA's repository: `apt-get install \
                  cuda-cudart-dev-12-8 cuda-crt-12-8 cuda-cccl-12-8`; Debian's own: nvidia-cuda-toolkit), and set CUDA_PATH to \
                  the folder whose include/ holds them.";
    let Some(toolkit) = toolkit else {
        let what = "no CUDA headers (CUDA_PATH is not set, and neither /usr/local/cuda nor /opt/cuda exists)".into();
        return Some(Missing { what, remedy: remedy.into() });
    };
    let needed = ["cuda_runtime.h", "cuda_fp16.h", "cuda_bf16.h", "mma.h", "crt/mma.h"];
    let absent = needed.iter().map(|name| toolkit.join("include").join(name)).find(|path| !path.is_file())?;
    Some(Missing { what: format!("no CUDA headers ({} not found)", absent.display()), remedy: remedy.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_name_their_tensor_cores() {
        assert_eq!(tensor_cores((6, 1)), None);
        assert_eq!(tensor_cores((7, 5)), Some("fp16"));
        assert_eq!(tensor_cores((8, 0)), Some("fp16, bf16, tf32"));
        assert_eq!(tensor_cores((8, 9)), Some("fp16, bf16, tf32, fp8"));
        assert_eq!(tensor_cores((9, 0)), Some("fp16, bf16, tf32, fp8"));
        assert!(tensor_cores((12, 0)).is_some_and(|types| types.contains("fp4")));
    }

    #[test]
    fn a_compiler_must_know_the_device() {
        let nvrtc = Nvrtc { version: (13, 0), architectures: vec![75, 80, 86, 87, 88, 89, 90, 100, 110, 120] };
        assert_eq!(nvrtc.refuses((8, 0)), None);
        assert!(nvrtc.refuses((7, 0)).is_some_and(|text| text.contains("sm_70") && text.contains("older")));
        assert!(nvrtc.refuses((13, 0)).is_some_and(|text| text.contains("newer")));
    }

    #[test]
    fn newer_ptx_is_recognised() {
        assert!(ptx_isa((13, 0)) > ptx_isa((12, 8)));
        assert!(ptx_isa((12, 5)) > ptx_isa((12, 4)));
        assert_eq!(ptx_isa((12, 6)), ptx_isa((12, 5)));
    }

    #[test]
    fn the_missing_header_is_named() {
        let folder = std::env::temp_dir().join(format!("trainer-headers-{}", std::process::id()));
        let include = folder.join("include");
        std::fs::create_dir_all(include.join("crt")).unwrap();
        for name in ["cuda_runtime.h", "cuda_fp16.h", "cuda_bf16.h", "mma.h"] {
            std::fs::write(include.join(name), "").unwrap();
        }
        let missing = headers(Some(&folder)).unwrap();
        assert!(missing.what.contains(&include.join("crt/mma.h").display().to_string()), "{}", missing.what);
        std::fs::write(include.join("crt/mma.h"), "").unwrap();
        assert_eq!(headers(Some(&folder)), None);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(headers(None).unwrap().what.contains("CUDA_PATH"));
    }
}
