//! What breaks down rather than fails: drivers and tensor libraries that panic, most often for want of memory.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

static LISTENING: Once = Once::new();
static OUT_OF_MEMORY: AtomicBool = AtomicBool::new(false);

/// How CUDA, Vulkan, wgpu and CubeCL say that memory has run out.
const SIGNS: [&str; 6] = [
    "out of memory",
    "OutOfMemory",
    "OUT_OF_MEMORY",
    "OUT_OF_DEVICE_MEMORY",
    "OUT_OF_HOST_MEMORY",
    "Not enough memory",
];

/// Runs `work`; `None` where it panicked, which the panic's own message has told.
pub fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    LISTENING.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // The device's own thread may be the one that knows; others then only find it gone.
            if says_out_of_memory(&message(info)) {
                OUT_OF_MEMORY.store(true, Ordering::SeqCst);
            }
            tell(info);
        }));
    });
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Whether a panic of this process was for want of memory.
pub fn out_of_memory() -> bool {
    OUT_OF_MEMORY.load(Ordering::SeqCst)
}

fn message(info: &PanicHookInfo<'_>) -> String {
    info.payload_as_str().unwrap_or_default().to_owned()
}

fn says_out_of_memory(message: &str) -> bool {
    SIGNS.iter().any(|sign| message.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_messages_are_known() {
        for message in [
            "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
            "wgpu error: Out of Memory: OUT_OF_DEVICE_MEMORY",
            "called `Result::unwrap()` on an `Err` value: IoError(BufferTooBig: OutOfMemory)",
        ] {
            assert!(says_out_of_memory(message), "{message}");
        }
        assert!(!says_out_of_memory("index out of bounds: the len is 3 but the index is 3"));
        assert_eq!(caught(|| 5), Some(5));
        assert_eq!(caught(|| -> u8 { panic!("on purpose") }), None);
    }
}
