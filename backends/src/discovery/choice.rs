//! Which device a request gets, and why.

use std::fmt;

use super::{Backend, DeviceInfo, Found, Survey, find_cpu, find_cuda, find_wgpu};
use crate::error::{Error, Result};

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Request {
    /// CUDA where it is usable, else a hardware WGPU adapter, else the CPU.
    #[default]
    Auto,
    Cuda,
    /// Any adapter, software ones too.
    Wgpu,
    Cpu,
}

/// The device to run on.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub backend: Backend,
    pub device: DeviceInfo,
    /// One line: "cpu: no CUDA driver (libcuda.so.1 not found), no WGPU adapter".
    pub reason: String,
}

/// Chooses a device, looking only for what the request could get.
///
/// `index` is the device's position among its backend's, as `trainer devices` lists them; `None` is the first usable one.
///
/// # Errors
/// `Error::Unavailable` where the backend that was asked for cannot run here; `Error::NoSuchDevice` where it has no device of
/// that index.
pub fn choose(request: Request, index: Option<usize>) -> Result<Choice> {
    let survey = match request {
        Request::Auto => {
            let cuda = find_cuda();
            // A usable CUDA device ends the search: loading graphics drivers takes time and may print.
            let wgpu = if cuda.usable() { Found::default() } else { find_wgpu() };
            Survey { cuda, wgpu, cpu: find_cpu() }
        }
        Request::Cuda => Survey { cuda: find_cuda(), wgpu: Found::default(), cpu: Found::default() },
        Request::Wgpu => Survey { cuda: Found::default(), wgpu: find_wgpu(), cpu: Found::default() },
        Request::Cpu => Survey { cuda: Found::default(), wgpu: Found::default(), cpu: find_cpu() },
    };
    survey.choose(request, index)
}

impl Survey {
    /// `choose` among what was found before.
    ///
    /// # Errors
    /// As `choose`.
    pub fn choose(&self, request: Request, index: Option<usize>) -> Result<Choice> {
        let asked = |backend: Backend| format!("{backend}: asked for");
        match request {
            Request::Cuda => self.pick(Backend::Cuda, index, asked(Backend::Cuda)),
            Request::Wgpu => self.pick(Backend::Wgpu, index, asked(Backend::Wgpu)),
            Request::Cpu => self.pick(Backend::Cpu, index, asked(Backend::Cpu)),
            Request::Auto if self.cuda.usable() => {
                self.pick(Backend::Cuda, index, "cuda: driver, NVRTC and headers found".into())
            }
            Request::Auto if self.hardware_adapter() => self.pick(
                Backend::Wgpu,
                index,
                format!("wgpu: hardware adapter found; {}", self.cuda.obstacle("CUDA device")),
            ),
            Request::Auto => {
                let reason = format!("cpu: {}, {}", self.cuda.obstacle("CUDA device"), self.wgpu_obstacle());
                self.pick(Backend::Cpu, index, reason)
            }
        }
    }

    fn hardware_adapter(&self) -> bool {
        self.wgpu.missing.is_empty()
            && self.wgpu.devices.iter().any(|device| !device.software && device.unusable.is_none())
    }

    fn wgpu_obstacle(&self) -> String {
        let software: Vec<_> = self.wgpu.devices.iter().filter(|d| d.software).map(|d| short_name(&d.name)).collect();
        if software.is_empty() || !self.wgpu.missing.is_empty() {
            return self.wgpu.obstacle("WGPU adapter");
        }
        format!("no hardware WGPU adapter (only {}, software)", software.join(", "))
    }

    fn found(&self, backend: Backend) -> &Found {
        match backend {
            Backend::Cuda => &self.cuda,
            Backend::Wgpu => &self.wgpu,
            Backend::Cpu => &self.cpu,
        }
    }

    fn pick(&self, backend: Backend, index: Option<usize>, reason: String) -> Result<Choice> {
        let found = self.found(backend);
        if !found.missing.is_empty() {
            let join = |text: fn(&super::Missing) -> &str, separator: &str| {
                found.missing.iter().map(text).collect::<Vec<_>>().join(separator)
            };
            let (what, remedy) = (join(|missing| &missing.what, "; "), join(|missing| &missing.remedy, " "));
            return Err(Error::Unavailable { backend, what, remedy });
        }
        let device = match index {
            Some(index) => found.devices.get(index).ok_or_else(|| Error::NoSuchDevice {
                backend,
                index,
                existing: format!("its devices are {}", list(&found.devices)),
            })?,
            None => {
                found.devices.iter().find(|device| device.unusable.is_none()).or(found.devices.first()).ok_or_else(
                    || Error::Unavailable {
                        backend,
                        what: "it has no device".into(),
                        remedy: "See `trainer devices`.".into(),
                    },
                )?
            }
        };
        if let Some(what) = &device.unusable {
            let what = format!("device {} ({}): {what}", device.index, device.name);
            return Err(Error::Unavailable { backend, what, remedy: "See `trainer devices` for others.".into() });
        }
        Ok(Choice { backend, device: device.clone(), reason })
    }
}

impl Found {
    /// The first thing that keeps this backend from running, in a few words.
    fn obstacle(&self, device: &str) -> String {
        let unusable = self.devices.iter().find_map(|device| device.unusable.clone());
        self.missing.first().map(|missing| missing.what.clone()).or(unusable).unwrap_or_else(|| format!("no {device}"))
    }
}

fn list(devices: &[DeviceInfo]) -> String {
    devices.iter().map(|device| format!("{} ({})", device.index, device.name)).collect::<Vec<_>>().join(", ")
}

/// "llvmpipe" of "llvmpipe (LLVM 15.0.6, 256 bits)".
fn short_name(name: &str) -> &str {
    name.split(" (").next().unwrap_or(name)
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.device.name, self.reason)
    }
}
