//! The emulated driver's memory, as this process has it loaded.

use std::ffi::c_int;
use std::sync::OnceLock;

use libloading::Library;

struct Driver {
    device: unsafe extern "C" fn(*mut c_int) -> c_int,
    range: unsafe extern "C" fn(*mut u64, *mut usize, u64) -> c_int,
    _library: Library,
}

static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();

fn driver() -> Option<&'static Driver> {
    let load = || {
        // SAFETY: the driver is loaded already; its functions have the types that cuda.h declares.
        unsafe {
            let library = Library::new("libcuda.so.1").ok()?;
            let device = *library.get(b"cuCtxGetDevice\0").ok()?;
            let range = *library.get(b"cuMemGetAddressRange_v2\0").ok()?;
            Some(Driver { device, range, _library: library })
        }
    };
    DRIVER.get_or_init(load).as_ref()
}

/// The device that is current in this thread.
pub fn current_device() -> Option<usize> {
    let mut device = 0;
    // SAFETY: writes one int.
    let status = unsafe { (driver()?.device)(&mut device) };
    (status == 0).then_some(device as usize)
}

/// Whether `bytes` at `address` are within one allocation of device memory.
pub fn holds(address: u64, bytes: usize) -> bool {
    let Some(driver) = driver() else { return false };
    let (mut base, mut size) = (0, 0);
    // SAFETY: writes the two numbers.
    let status = unsafe { (driver.range)(&mut base, &mut size, address) };
    bytes == 0 || status == 0 && address - base + bytes as u64 <= size as u64
}
