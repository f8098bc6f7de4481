use super::*;
use crate::error::Error;

fn device(backend: Backend, index: usize, name: &str, kind: Kind) -> DeviceInfo {
    let software = backend == Backend::Wgpu && kind == Kind::Cpu;
    DeviceInfo { kind, software, ..DeviceInfo::new(backend, index, name.into()) }
}

fn missing(what: &str, remedy: &str) -> Found {
    Found { devices: Vec::new(), missing: vec![Missing { what: what.into(), remedy: remedy.into() }] }
}

fn devices(devices: Vec<DeviceInfo>) -> Found {
    Found { devices, missing: Vec::new() }
}

/// A server without a GPU, with software Vulkan.
fn server() -> Survey {
    Survey {
        cuda: missing("no CUDA driver (libcuda.so.1 not found)", "Install the NVIDIA driver."),
        wgpu: devices(vec![device(Backend::Wgpu, 0, "llvmpipe (LLVM 15.0.6, 256 bits)", Kind::Cpu)]),
        cpu: find_cpu(),
    }
}

fn workstation() -> Survey {
    Survey {
        cuda: devices(vec![
            device(Backend::Cuda, 0, "Old", Kind::Discrete),
            device(Backend::Cuda, 1, "New", Kind::Discrete),
        ]),
        wgpu: devices(vec![
            device(Backend::Wgpu, 0, "New", Kind::Discrete),
            device(Backend::Wgpu, 1, "llvmpipe", Kind::Cpu),
        ]),
        cpu: find_cpu(),
    }
}

#[test]
fn auto_prefers_cuda_then_hardware_adapters_then_the_cpu() {
    let mut survey = workstation();
    let choice = survey.choose(Request::Auto, None).unwrap();
    assert_eq!((choice.backend, choice.device.index), (Backend::Cuda, 0));

    survey.cuda = missing("no NVRTC (libnvrtc.so not found)", "Install it.");
    let choice = survey.choose(Request::Auto, None).unwrap();
    assert_eq!((choice.backend, choice.device.name.as_str()), (Backend::Wgpu, "New"));
    assert_eq!(choice.reason, "wgpu: hardware adapter found; no NVRTC (libnvrtc.so not found)");

    let choice = server().choose(Request::Auto, None).unwrap();
    assert_eq!(choice.backend, Backend::Cpu);
    assert_eq!(
        choice.reason,
        "cpu: no CUDA driver (libcuda.so.1 not found), no hardware WGPU adapter (only llvmpipe, software)"
    );
    let bare = Survey { wgpu: missing("no WGPU adapter", "Install one."), ..server() };
    assert!(bare.choose(Request::Auto, None).unwrap().reason.ends_with(", no WGPU adapter"));
}

#[test]
fn software_adapters_are_taken_when_wgpu_is_asked_for() {
    let choice = server().choose(Request::Wgpu, None).unwrap();
    assert!(choice.device.software);
    assert_eq!(server().choose(Request::Cpu, Some(0)).unwrap().backend, Backend::Cpu);
}

#[test]
fn what_is_missing_is_named_with_the_way_to_get_it() {
    let error = server().choose(Request::Cuda, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the cuda backend cannot run here: no CUDA driver (libcuda.so.1 not found). Install the NVIDIA driver."
    );
    let bare = Survey { wgpu: Found::default(), ..server() };
    assert!(matches!(bare.choose(Request::Wgpu, None), Err(Error::Unavailable { backend: Backend::Wgpu, .. })));
}

#[test]
fn indices_out_of_range_list_what_exists() {
    let error = workstation().choose(Request::Cuda, Some(2)).unwrap_err().to_string();
    assert_eq!(error, "the cuda backend has no device 2: its devices are 0 (Old), 1 (New)");
    assert_eq!(workstation().choose(Request::Auto, Some(1)).unwrap().device.name, "New");
    assert!(server().choose(Request::Cpu, Some(1)).unwrap_err().to_string().contains("its devices are 0 (CPU"));
}

#[test]
fn unusable_devices_are_passed_over_unless_asked_for() {
    let mut survey = workstation();
    survey.cuda.devices[0].unusable = Some("NVRTC 13.0 does not know it".into());
    assert_eq!(survey.choose(Request::Cuda, None).unwrap().device.index, 1);
    let error = survey.choose(Request::Cuda, Some(0)).unwrap_err().to_string();
    assert!(error.contains("device 0 (Old): NVRTC 13.0 does not know it"), "{error}");

    survey.cuda.devices.truncate(1);
    let choice = survey.choose(Request::Auto, None).unwrap();
    assert_eq!(choice.backend, Backend::Wgpu);
    assert!(choice.reason.contains("NVRTC 13.0"), "{}", choice.reason);
}

#[cfg(feature = "wgpu")]
#[test]
fn adapters_are_counted_within_their_kind_and_sorted_best_first() {
    let mut list = vec![
        device(Backend::Wgpu, 0, "llvmpipe", Kind::Cpu),
        device(Backend::Wgpu, 0, "Iris", Kind::Integrated),
        device(Backend::Wgpu, 0, "first", Kind::Discrete),
        device(Backend::Wgpu, 0, "second", Kind::Discrete),
    ];
    super::wgpu::number(&mut list);
    let order: Vec<_> = list.iter().map(|d| (d.index, d.name.as_str(), d.kind_index)).collect();
    assert_eq!(order, [(0, "first", 0), (1, "second", 1), (2, "Iris", 0), (3, "llvmpipe", 0)]);
}

/// The real machine: whatever it has, the survey answers, agrees with `choose`, and lists each device under its index.
#[test]
fn this_machine_is_surveyed() {
    let survey = Survey::take();
    for found in [&survey.cuda, &survey.wgpu, &survey.cpu] {
        for (index, device) in found.devices.iter().enumerate() {
            assert_eq!(device.index, index);
            assert!(!device.name.is_empty() && !device.api.is_empty());
            assert!(device.planes.is_none_or(|(min, max)| 0 < min && min <= max));
        }
        assert!(!found.devices.is_empty() || !found.missing.is_empty());
        assert!(found.missing.iter().all(|missing| !missing.what.is_empty() && missing.remedy.ends_with('.')));
    }
    assert_eq!(survey.cpu.devices.len(), 1);
    assert_eq!(survey.choose(Request::Auto, None), choose(Request::Auto, None));
    match (choose(Request::Wgpu, None), survey.wgpu.usable()) {
        (Ok(choice), true) => assert_eq!(choice.device, survey.wgpu.devices[0]),
        (Err(error), false) => {
            assert!(error.to_string().starts_with("the wgpu backend cannot run here: no WGPU adapter"))
        }
        (other, usable) => panic!("usable {usable}, but {other:?}"),
    }
}
