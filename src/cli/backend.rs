//! From the chosen device to code that is generic over its backend.

use burn_tensor::DType;
use trainer_backends::discovery::{Backend, Choice};
use trainer_backends::{Cpu, DecoderBackend};

use super::args::Global;
use super::choose_device;
use crate::breakdown;
use crate::config::Precision;
use crate::error::{Error, Result, Short};
use crate::report::memory::machine_memory;
use crate::report::peak::peak_flops;
use crate::report::voice;
use crate::train::device::DeviceFacts;
use crate::train::state::dtype;

/// A command's work, for whichever backend was chosen.
pub trait Task {
    type Output;
    /// Whether the task is to find out which kernels work, so that none is refused before.
    const JUDGES_KERNELS: bool = false;

    fn run<B: DecoderBackend>(self, device: &B::Device, choice: &Choice) -> Result<Self::Output>;
}

/// Chooses the device that the options name, says which and why, and runs `task` there.
///
/// # Errors
/// A backend that is not there, and whatever the task fails with.
pub fn with_backend<T: Task>(global: &Global, task: T) -> Result<T::Output> {
    let choice = choose_device(global)?;
    voice::say(&format!("backend {}", choice.reason));
    if !T::JUDGES_KERNELS {
        refuse_what_failed(&choice)?;
    }
    on_device(&choice, global, task)
}

/// Leaves out the kernels that a trial on this device has found wanting; there is one where there was none before.
///
/// # Errors
/// A value of TRAINER_TRIAL, TRAINER_WGMMA or TRAINER_MMA that is none.
pub fn refuse_what_failed(choice: &Choice) -> Result<()> {
    #[cfg(all(feature = "cuda", not(target_os = "macos")))]
    if choice.backend == Backend::Cuda {
        check_tensor_cores()?;
        crate::trial::refuse_what_failed(&choice.device)?;
    }
    let _ = choice;
    Ok(())
}

/// # Errors
/// A value of TRAINER_WGMMA or TRAINER_MMA that is none.
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub fn check_tensor_cores() -> Result<()> {
    trainer_backends::tensor_cores::check().map_err(|error| Error::input(error.to_string()))
}

/// A task with the kernels' choices set first.
struct Tuned<'a, T: Task> {
    choices: &'a [String],
    task: T,
}

impl<T: Task> Task for Tuned<'_, T> {
    type Output = T::Output;

    fn run<B: DecoderBackend>(self, device: &B::Device, choice: &Choice) -> Result<T::Output> {
        for assignment in self.choices {
            let (name, value) = assignment.split_once('=').ok_or_else(|| {
                Error::input(format!(
                    "--tune takes NAME=VALUE, as `trainer sweep` prints it, not {}",
                    Short(assignment)
                ))
            })?;
            B::tune(device, name, Some(value)).map_err(|error| Error::input(format!("--tune: {error}")))?;
        }
        let done = self.task.run::<B>(device, choice);
        breakdown::check()?;
        done
    }
}

/// Runs `task` on a device, with the kernels' choices that the options name.
///
/// # Errors
/// A backend that is not in this build, a choice that its kernels do not have, and whatever the task fails with.
pub fn on_device<T: Task>(choice: &Choice, global: &Global, task: T) -> Result<T::Output> {
    let task = Tuned { choices: &global.tune, task };
    match choice.backend {
        Backend::Cpu => task.run::<Cpu>(&Default::default(), choice),
        #[cfg(feature = "wgpu")]
        Backend::Wgpu => {
            let device = trainer_backends::wgpu_device(&choice.device);
            task.run::<trainer_backends::Wgpu>(&device, choice)
        }
        #[cfg(all(feature = "cuda", not(target_os = "macos")))]
        Backend::Cuda => {
            check_tensor_cores()?;
            let device = trainer_backends::cuda_device(&choice.device);
            task.run::<trainer_backends::Cuda>(&device, choice)
        }
        #[allow(unreachable_patterns)]
        other => Err(Error::input(format!("this build has no {other} backend: build it with --features {other}"))),
    }
}

/// What a run shows of its device.
pub fn facts(choice: &Choice, precision: Precision) -> DeviceFacts {
    DeviceFacts {
        description: format!("{}: {} ({})", choice.backend, choice.device.name, choice.device.api),
        peak_flops: peak_flops(&choice.device.name, precision),
        max_binding_bytes: choice.device.max_binding_bytes,
        memory_bytes: choice.device.memory_bytes.or_else(|| (choice.backend == Backend::Cpu).then(machine_memory)),
    }
}

/// # Errors
/// A dtype that the device does not compute in.
pub fn check_precision<B: DecoderBackend>(device: &B::Device, precision: Precision) -> Result<DType> {
    let dtype = dtype(precision);
    if B::supports_dtype(device, dtype) {
        return Ok(dtype);
    }
    Err(Error::input(format!(
        "this device does not compute in {precision}: choose another --precision (every device has fp32), or another device"
    )))
}
