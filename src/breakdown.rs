//! What breaks down rather than fails: drivers and tensor libraries that panic, most often for want of memory.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use crate::error::{Error, Result};

static LISTENING: Once = Once::new();
static OUT_OF_MEMORY: AtomicBool = AtomicBool::new(false);
/// Panics on threads that work off a device's queue.
static ON_DEVICES: AtomicUsize = AtomicUsize::new(0);

/// What a kernel has refused to do, in the words that it gave.
static REFUSAL: Mutex<Option<String>> = Mutex::new(None);

/// In a refusal of trainer-shaders' `check_iterations`.
const REFUSED: &str = "this software device ends loops after";

/// How CUDA, Vulkan, wgpu and CubeCL say that memory has run out, in lower case.
const SIGNS: [&str; 7] = [
    "out of memory",
    "outofmemory",
    "out_of_memory",
    "out_of_device_memory",
    "out_of_host_memory",
    "not enough memory",
    // CubeCL's IoError::BufferTooBig.
    "can't allocate buffer of size",
];

/// Runs `work`; `None` where it panicked, or a device's thread did meanwhile. The first panic's own message has been told.
///
/// CubeCL catches what its devices' threads panic with and goes on with the next task: the one that failed has then done
/// nothing, and whatever is read afterwards may be anything. So such a panic is nobody's to overlook.
pub fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    LISTENING.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let message = message(info);
            if says_out_of_memory(&message) {
                OUT_OF_MEMORY.store(true, Ordering::SeqCst);
            }
            let refuses = message.contains(REFUSED);
            if refuses {
                REFUSAL.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
            }
            // Every later task that needed what the first did not do panics too.
            let repeated = is_devices() && ON_DEVICES.fetch_add(1, Ordering::SeqCst) > 0;
            if !repeated && !refuses {
                tell(info);
            }
        }));
    });
    let before = ON_DEVICES.load(Ordering::SeqCst);
    let result = catch_unwind(AssertUnwindSafe(work)).ok();
    // The caller knows of it now, and whoever calls the caller need not.
    let after = ON_DEVICES.swap(before, Ordering::SeqCst);
    result.filter(|_| after == before)
}

/// To be asked before anything that a device has computed is believed: shown, kept or saved.
///
/// # Errors
/// A device's thread has panicked, so that what was computed since is worth nothing.
pub fn check() -> Result<()> {
    match ON_DEVICES.load(Ordering::SeqCst) {
        0 => Ok(()),
        _ => Err(broken()),
    }
}

/// What to say of work that broke down.
pub fn broken() -> Error {
    if let Some(refusal) = &*REFUSAL.lock().unwrap_or_else(PoisonError::into_inner) {
        return Error::input(refusal);
    }
    Error::failed(match out_of_memory() {
        true => {
            "the device has run out of memory, or has no buffers of the size that is needed: give it less at a time, and see \
             whether other programs use it"
        }
        false => "the program or the device broke down; the message above says where",
    })
}

/// Whether a panic of this process was for want of memory.
pub fn out_of_memory() -> bool {
    OUT_OF_MEMORY.load(Ordering::SeqCst)
}

/// Whether this thread works off a device's queue: CubeCL calls them DSU-0-0 and DSD-0-0, by stage, device and number.
fn is_devices() -> bool {
    let current = std::thread::current();
    current.name().is_some_and(|name| name.starts_with("DSU-") || name.starts_with("DSD-"))
}

fn message(info: &PanicHookInfo<'_>) -> String {
    info.payload_as_str().unwrap_or_default().to_owned()
}

fn says_out_of_memory(message: &str) -> bool {
    let message = message.to_lowercase();
    SIGNS.iter().any(|sign| message.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_messages_are_known() {
        for message in [
            "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
            "called `Result::unwrap()` on an `Err` value: can't allocate buffer of size: 67108864\nNo backtrace available",
            "wgpu error: Out of Memory",
            "called `Result::unwrap()` on an `Err` value: IoError(BufferTooBig: OutOfMemory)",
        ] {
            assert!(says_out_of_memory(message), "{message}");
        }
        assert!(!says_out_of_memory("index out of bounds: the len is 3 but the index is 3"));
        assert_eq!(caught(|| 5), Some(5));
        assert_eq!(caught(|| -> u8 { panic!("on purpose") }), None);
    }

    #[test]
    fn a_kernels_refusal_is_the_error() {
        let refusal =
            "attention over so many tokens takes 70000 loop iterations; this software device ends loops after 65000";
        assert_eq!(caught(|| -> u8 { panic!("{refusal}") }), None);
        let error = broken();
        assert_eq!((error.to_string().as_str(), error.exit_code()), (refusal, 2));
        *REFUSAL.lock().unwrap() = None;
    }
}
