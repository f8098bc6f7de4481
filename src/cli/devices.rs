//! `trainer devices`: what this machine can train on, and what `auto` would take.

use std::fmt::Write;

use serde::Serialize;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};
use trainer_backends::discovery::{DeviceInfo, Kind, Missing, Request, Survey};

use super::args::{DevicesArgs, Global};
use crate::error::Result;
use crate::report::table::{Align, Table, bytes};

pub fn run(args: &DevicesArgs, _: &Global) -> Result<()> {
    let report = Report::of(with_host_memory(Survey::take()));
    if args.json { super::print_json(&report) } else { super::print(&report.text()) }
}

/// The object that `--json` prints.
#[derive(Serialize)]
struct Report {
    devices: Vec<DeviceInfo>,
    missing: Lacks,
    auto: Auto,
}

/// What keeps each backend from running; empty where nothing does.
#[derive(Serialize)]
struct Lacks {
    cuda: Vec<Missing>,
    wgpu: Vec<Missing>,
}

/// What `--backend auto` takes.
#[derive(Serialize)]
struct Auto {
    backend: Option<String>,
    device: Option<usize>,
    reason: String,
}

impl Report {
    fn of(survey: Survey) -> Self {
        let auto = match survey.choose(Request::Auto, None) {
            Ok(choice) => Auto {
                backend: Some(choice.backend.to_string()),
                device: Some(choice.device.index),
                reason: choice.reason,
            },
            Err(error) => Auto { backend: None, device: None, reason: error.to_string() },
        };
        Self {
            devices: survey.devices().cloned().collect(),
            missing: Lacks { cuda: survey.cuda.missing, wgpu: survey.wgpu.missing },
            auto,
        }
    }

    fn text(&self) -> String {
        let mut devices = Table::new([
            ("backend", Align::Left),
            ("device", Align::Right),
            ("name", Align::Left),
            ("kind", Align::Left),
            ("memory", Align::Right),
            ("f16", Align::Left),
            ("bf16", Align::Left),
            ("planes", Align::Left),
            ("tensor cores", Align::Left),
        ]);
        let mut limits = Table::new([
            ("backend", Align::Left),
            ("device", Align::Right),
            ("binding", Align::Right),
            ("buffer", Align::Right),
            ("shared", Align::Right),
            ("bindings", Align::Right),
            ("cubes", Align::Right),
            ("cores", Align::Right),
            ("interface", Align::Left),
            ("driver", Align::Left),
        ]);
        for device in &self.devices {
            devices.row(features(device));
            limits.row(limits_of(device));
        }
        let mut text = format!("{devices}\nLimits (- means that the interface tells none)\n{limits}");
        for device in &self.devices {
            if let Some(what) = &device.unusable {
                let _ = write!(text, "\n{} {} cannot be used: {what}", device.backend, device.index);
            }
        }
        for (backend, missing) in [("cuda", &self.missing.cuda), ("wgpu", &self.missing.wgpu)] {
            for Missing { what, remedy } in missing {
                let _ = write!(text, "\n{backend} cannot run here: {what}\n    {remedy}");
            }
        }
        let _ = writeln!(text, "\nauto takes {}", self.auto.reason);
        text
    }
}

fn features(device: &DeviceInfo) -> [String; 9] {
    let yes = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
    let kind = if device.software { "software".to_owned() } else { device.kind.to_string() };
    let planes = match device.planes {
        Some((min, max)) if min == max => min.to_string(),
        Some((min, max)) => format!("{min}-{max}"),
        None => "no".to_owned(),
    };
    let capability =
        device.compute_capability.map(|(major, minor)| format!(" (sm_{major}{minor})")).unwrap_or_default();
    [
        device.backend.to_string(),
        device.index.to_string(),
        format!("{}{capability}", device.name),
        kind,
        optional(device.memory_bytes.map(bytes)),
        yes(device.f16),
        yes(device.bf16),
        planes,
        device.tensor_cores.clone().unwrap_or_else(|| "no".to_owned()),
    ]
}

fn limits_of(device: &DeviceInfo) -> [String; 10] {
    [
        device.backend.to_string(),
        device.index.to_string(),
        optional(device.max_binding_bytes.map(bytes)),
        optional(device.max_buffer_bytes.map(bytes)),
        optional(device.max_shared_memory.map(bytes)),
        optional(device.max_bindings.map(|count| count.to_string())),
        optional(device.max_cubes.map(|count| count.to_string())),
        optional(device.cores.map(|count| count.to_string())),
        device.api.clone(),
        device.driver.clone(),
    ]
}

fn optional(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}

/// The host's memory, for the CPU and for software adapters, which have no other.
fn with_host_memory(mut survey: Survey) -> Survey {
    let system =
        System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()));
    // In a container, its limit and not the machine's memory is what can be had.
    let limit = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory);
    let total = system.total_memory().min(limit);
    // Software computes in it, and a GPU of the processor has no other; of such a one Metal tells no size.
    let in_host_memory = |device: &&mut DeviceInfo| {
        device.software || (device.kind == Kind::Integrated && device.memory_bytes.is_none())
    };
    for device in survey.cpu.devices.iter_mut().chain(survey.wgpu.devices.iter_mut().filter(in_host_memory)) {
        device.memory_bytes = Some(total).filter(|bytes| *bytes > 0).or(device.memory_bytes);
    }
    survey
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_shown() {
        let report = Report::of(with_host_memory(Survey::take()));
        let text = report.text();
        for device in &report.devices {
            assert!(text.contains(&device.name), "{text}");
        }
        assert!(text.contains("\nauto takes "));
        let cpu = report.devices.last().unwrap();
        assert!(cpu.memory_bytes.unwrap() > 1 << 26 && cpu.cores.unwrap() > 0);

        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["devices"].as_array().unwrap().len(), report.devices.len());
        assert_eq!(json["devices"][report.devices.len() - 1]["backend"], "cpu");
        assert!(json["auto"]["reason"].as_str().unwrap().starts_with(json["auto"]["backend"].as_str().unwrap()));
        for missing in json["missing"]["cuda"].as_array().unwrap() {
            assert!(text.contains(missing["what"].as_str().unwrap()));
        }
    }
}
