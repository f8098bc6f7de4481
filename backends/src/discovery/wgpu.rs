//! WGPU adapters: Vulkan, Metal and DX12. OpenGL is left out: cubecl does not run on it, and it lists the same cards again.

use ::wgpu::{Adapter, Backend as Api, Backends, DeviceType, Features, Instance, InstanceDescriptor};

use super::{Backend, DeviceInfo, Found, Kind, Missing};

/// All adapters, best kind first, each card once.
pub(super) fn find() -> Found {
    // cubecl opens Metal on Apple's systems, where MoltenVK would list the same GPU again.
    let apple = cfg!(target_vendor = "apple");
    let wanted = if apple { Backends::METAL } else { Backends::VULKAN | Backends::DX12 };
    let instance =
        Instance::new(InstanceDescriptor { backends: wanted, ..InstanceDescriptor::new_without_display_handle() });
    let adapters = pollster::block_on(instance.enumerate_adapters(wanted));
    let cards: Vec<_> =
        adapters.iter().map(Adapter::get_info).map(|info| (info.backend, info.vendor, info.device)).collect();
    let mut devices: Vec<DeviceInfo> = adapters
        .iter()
        .zip(&cards)
        // On Windows a card with a Vulkan driver is listed through DX12 again.
        .filter(|(_, (api, vendor, device))| *api == Api::Vulkan || !cards.contains(&(Api::Vulkan, *vendor, *device)))
        .map(|(adapter, _)| describe(adapter))
        .collect();
    number(&mut devices);
    let missing = if devices.is_empty() { vec![no_adapter()] } else { Vec::new() };
    Found { devices, missing }
}

/// Gives each device its position among its kind and interface, then sorts and gives it its index.
pub(super) fn number(devices: &mut [DeviceInfo]) {
    for i in 0..devices.len() {
        let (before, rest) = devices.split_at_mut(i);
        let same = before.iter().filter(|d| d.kind == rest[0].kind && d.api == rest[0].api);
        rest[0].kind_index = same.count();
    }
    devices.sort_by_key(|device| device.kind);
    for (index, device) in devices.iter_mut().enumerate() {
        device.index = index;
    }
}

fn describe(adapter: &Adapter) -> DeviceInfo {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let software = info.device_type == DeviceType::Cpu || is_software(&info.name);
    let kind = match info.device_type {
        _ if software => Kind::Cpu,
        DeviceType::DiscreteGpu => Kind::Discrete,
        DeviceType::IntegratedGpu => Kind::Integrated,
        DeviceType::VirtualGpu | DeviceType::Other | DeviceType::Cpu => Kind::Virtual,
    };
    // cubecl compiles plane operations for hardware only: on software adapters they are known to go wrong.
    let planes = features.contains(Features::SUBGROUP) && !software;
    DeviceInfo {
        kind,
        software,
        api: match info.backend {
            Api::Vulkan => "Vulkan".into(),
            Api::Metal => "Metal".into(),
            Api::Dx12 => "DX12".into(),
            other => format!("{other:?}"),
        },
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        memory_bytes: memory_bytes(adapter),
        f16: features.contains(Features::SHADER_F16),
        // WGSL has no such type.
        bf16: false,
        planes: planes.then_some((info.subgroup_min_size, info.subgroup_max_size)),
        tensor_cores: tensor_cores(adapter),
        max_binding_bytes: Some(limits.max_storage_buffer_binding_size),
        max_buffer_bytes: Some(limits.max_buffer_size),
        max_shared_memory: Some(limits.max_compute_workgroup_storage_size.into()),
        max_bindings: Some(limits.max_storage_buffers_per_shader_stage),
        max_cubes: Some(limits.max_compute_workgroups_per_dimension),
        ..DeviceInfo::new(Backend::Wgpu, 0, info.name)
    }
}

/// Known software renderers, for drivers that do not say so in their device type.
fn is_software(name: &str) -> bool {
    let name = name.to_lowercase();
    ["llvmpipe", "lavapipe", "swiftshader", "microsoft basic render"].iter().any(|known| name.contains(known))
}

/// The shapes of cooperative matrices, "16x16x16 F16 -> F32", each once.
fn tensor_cores(adapter: &Adapter) -> Option<String> {
    if !adapter.features().contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        return None;
    }
    let mut shapes: Vec<String> = adapter
        .cooperative_matrix_properties()
        .iter()
        .map(|p| format!("{}x{}x{} {:?} -> {:?}", p.m_size, p.n_size, p.k_size, p.ab_type, p.cr_type))
        .collect();
    shapes.sort();
    shapes.dedup();
    (!shapes.is_empty()).then(|| shapes.join(", "))
}

/// The heaps that Vulkan calls local to the device. WebGPU itself does not tell memory sizes, nor does any other interface
/// without its own bindings.
#[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn memory_bytes(adapter: &Adapter) -> Option<u64> {
    // SAFETY: the raw handle is only read from, and lives as long as the guard, which lives as long as this function.
    let vulkan = unsafe { adapter.as_hal::<::wgpu::hal::api::Vulkan>() }?;
    let instance = vulkan.shared_instance().raw_instance();
    // SAFETY: the physical device was enumerated by this very instance, and both are alive (see above).
    let memory = unsafe { instance.get_physical_device_memory_properties(vulkan.raw_physical_device()) };
    // Bit 0 is VK_MEMORY_HEAP_DEVICE_LOCAL_BIT.
    let local = memory.memory_heaps_as_slice().iter().filter(|heap| heap.flags.as_raw() & 1 == 1);
    Some(local.map(|heap| heap.size).sum()).filter(|bytes| *bytes > 0)
}

#[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn memory_bytes(_: &Adapter) -> Option<u64> {
    None
}

fn no_adapter() -> Missing {
    let remedy = if cfg!(target_os = "linux") {
        "Install the GPU's Vulkan driver, or on a server without a GPU the software one: `apt-get install mesa-vulkan-drivers` \
         (Debian, Ubuntu; it brings libvulkan1)."
    } else if cfg!(windows) {
        "Install the GPU vendor's current driver, which brings Vulkan."
    } else {
        "Use a machine whose GPU has a Metal or Vulkan driver, or --backend cpu."
    };
    Missing { what: "no WGPU adapter (no Vulkan, Metal or DX12 driver found)".into(), remedy: remedy.into() }
}
