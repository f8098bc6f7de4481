//! The CUDA driver API, as far as cubecl-cuda and cudarc call it: names, argument orders and numbers are cuda.h's.
//!
//! Streams are in order and every call is done when it returns. The environment says what the device is:
//!
//! | variable | meaning |
//! |---|---|
//! | `CUDA_EMULATOR_CAPABILITY` | compute capability, 80 or 90 (default 80) |
//! | `CUDA_EMULATOR_DEVICES` | how many there are, all the same (default 1) |
//! | `CUDA_EMULATOR_FREE_MIB` | what can be allocated in all, as if others had taken the rest (default: all of it) |
//! | `CUDA_EMULATOR_EXECUTE` | 1: memory is real and kernels run; else memory is a counter and launches do nothing |
//! | `CUDA_EMULATOR_DIR` | folder for every module's PTX (`NNNN.ptx`) and `launches`: "NNNN grid block shared" a line |
//! | `CUDA_EMULATOR_MULTIPROCESSORS` | as the device reports them (default 108, or 132 at 90) |
//! | `CUDA_EMULATOR_ASCENDING` | 1: tensor maps whose strides do not ascend are refused |
//! | `CUDA_EMULATOR_SPOIL` | kernels that are not run as they are written (spoil.rs) |
//! | `CUDA_EMULATOR_SEED` | the order in which a block's warps take turns (default 0) |
//!
//! A violation is printed and ends the process: there is no state in which to go on.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::attributes::attribute;
use crate::copy_2d::{Copy2D, HOST, Side};
use crate::launch::{Launch, launch};
use crate::memory::Memory;
use crate::program::Kernel;
use crate::spoil::{Spoiled, spoiled};
use crate::tensor_map::{Arguments, BYTES};

type Status = c_int;
const SUCCESS: Status = 0;
const INVALID_VALUE: Status = 1;
const OUT_OF_MEMORY: Status = 2;
const INVALID_DEVICE: Status = 101;
const INVALID_CONTEXT: Status = 201;
const NOT_FOUND: Status = 500;
const ILLEGAL_INSTRUCTION: Status = 715;
const INVALID_CLUSTER_SIZE: Status = 912;

struct Module {
    text: String,
    kernels: Vec<Arc<Kernel>>,
    refused: Option<String>,
}

/// What a CUfunction points to; lives forever.
struct Function {
    module: usize,
    kernel: Option<Arc<Kernel>>,
    refused: Option<String>,
}

struct Driver {
    execute: bool,
    devices: c_int,
    capability: i32,
    multiprocessors: Option<u64>,
    seed: u64,
    ascending: bool,
    /// Bytes that may be allocated, where that is less than there are.
    free: Option<usize>,
    folder: Option<PathBuf>,
    memory: Memory,
    /// The next address where memory is a counter.
    next: u64,
    modules: Vec<Module>,
}

static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);
static LAUNCHES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The current context; 0 for none.
    static CONTEXT: Cell<usize> = const { Cell::new(0) };
}

struct Guard(MutexGuard<'static, Option<Driver>>);

impl std::ops::Deref for Guard {
    type Target = Driver;
    fn deref(&self) -> &Driver {
        self.0.as_ref().expect("driver() made one")
    }
}

impl std::ops::DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut Driver {
        self.0.as_mut().expect("driver() made one")
    }
}

fn driver() -> Guard {
    let mut guard = DRIVER.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    guard.get_or_insert_with(|| {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        Driver {
            execute: number("CUDA_EMULATOR_EXECUTE") == Some(1),
            devices: number("CUDA_EMULATOR_DEVICES").unwrap_or(1) as c_int,
            capability: number("CUDA_EMULATOR_CAPABILITY").unwrap_or(80) as i32,
            multiprocessors: number("CUDA_EMULATOR_MULTIPROCESSORS"),
            seed: number("CUDA_EMULATOR_SEED").unwrap_or(0),
            ascending: number("CUDA_EMULATOR_ASCENDING") == Some(1),
            free: number("CUDA_EMULATOR_FREE_MIB").map(|mib| (mib as usize) << 20),
            folder: std::env::var_os("CUDA_EMULATOR_DIR").map(PathBuf::from),
            memory: Memory::new(),
            next: 0x7000_0000_0000,
            modules: Vec::new(),
        }
    });
    Guard(guard)
}

fn end(message: &str) -> ! {
    eprintln!("cuda-emulator: {message}");
    std::process::abort()
}

impl Driver {
    fn attribute(&self, kind: c_int) -> c_int {
        attribute(self.capability, self.multiprocessors, kind)
    }

    fn total(&self) -> usize {
        if self.execute { 16 << 30 } else { 80 << 30 }
    }

    fn allocate(&mut self, bytes: usize) -> Option<u64> {
        if self.execute {
            if self.memory.total() + bytes > self.free.unwrap_or_else(|| self.total()) {
                return None;
            }
            return self.memory.allocate(bytes);
        }
        let address = self.next;
        self.next += bytes.next_multiple_of(512) as u64;
        Some(address)
    }

    /// Ends the process where a copy leaves what is allocated.
    fn check(&self, address: u64, bytes: usize) {
        if !self.memory.holds(address, bytes) {
            end(&format!("a copy of {bytes} bytes at {address:#x} is not within an allocation"));
        }
    }
}

/// # Safety
/// `to` is null or valid for a write.
unsafe fn put<T>(to: *mut T, value: T) -> Status {
    if to.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: by this function's contract.
    unsafe { to.write(value) };
    SUCCESS
}

/// Calls that have nothing to do here.
macro_rules! nothing {
    ($($name:ident($($argument:ty),*);)*) => {
        $(#[unsafe(no_mangle)]
        pub extern "C" fn $name($(_: $argument),*) -> Status {
            SUCCESS
        })*
    };
}

nothing! {
    cuInit(c_uint);
    cuDevicePrimaryCtxRelease_v2(c_int);
    cuCtxSynchronize();
    cuStreamSynchronize(*mut c_void);
    cuStreamDestroy_v2(*mut c_void);
    cuStreamWaitEvent(*mut c_void, *mut c_void, c_uint);
    cuEventDestroy_v2(*mut c_void);
    cuEventRecord(*mut c_void, *mut c_void);
    cuEventSynchronize(*mut c_void);
    cuEventQuery(*mut c_void);
    cuModuleUnload(*mut c_void);
    cuFuncSetAttribute(*mut c_void, c_int, c_int);
}

/// Functions that take pointers from the caller, who keeps cuda.h's contract.
macro_rules! api {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block)*) => {
        $(
        /// # Safety
        /// As cuda.h says of the pointers.
        #[unsafe(no_mangle)]
        #[allow(unused_unsafe, reason = "some only write through put()")]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> Status {
            // SAFETY: the caller's pointers are valid, as cuda.h asks.
            unsafe { $body }
        })*
    };
}

api! {
    fn cuDriverGetVersion(version: *mut c_int) {
        put(version, 13040)
    }
    fn cuDeviceGetCount(count: *mut c_int) {
        put(count, driver().devices)
    }
    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        put(device, ordinal);
        if (0..driver().devices).contains(&ordinal) { SUCCESS } else { INVALID_DEVICE }
    }
    fn cuDeviceGetName(name: *mut c_char, length: c_int, _device: c_int) {
        let text = format!("Emulated sm_{}", driver().capability);
        let count = text.len().min((length - 1) as usize);
        name.copy_from_nonoverlapping(text.as_ptr().cast(), count);
        put(name.add(count), 0)
    }
    fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) {
        put(bytes, driver().total())
    }
    fn cuDeviceGetAttribute(value: *mut c_int, kind: c_int, _device: c_int) {
        put(value, driver().attribute(kind))
    }
    // A context is its device's number, from 1.
    fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: c_int) {
        put(context, std::ptr::without_provenance_mut(device as usize + 1))
    }
    fn cuCtxSetCurrent(context: *mut c_void) {
        CONTEXT.set(context.addr());
        SUCCESS
    }
    fn cuCtxGetCurrent(context: *mut *mut c_void) {
        put(context, std::ptr::without_provenance_mut(CONTEXT.get()))
    }
    fn cuCtxGetDevice(device: *mut c_int) {
        match CONTEXT.get() {
            0 => INVALID_CONTEXT,
            context => put(device, context as c_int - 1),
        }
    }
    fn cuMemGetAddressRange_v2(base: *mut u64, bytes: *mut usize, pointer: u64) {
        let Some((start, size)) = driver().memory.allocation(pointer) else { return NOT_FOUND };
        // Either may be null.
        put(base, start);
        put(bytes, size);
        SUCCESS
    }
    fn cuStreamCreate(stream: *mut *mut c_void, _flags: c_uint) {
        put(stream, std::ptr::without_provenance_mut(1))
    }
    fn cuEventCreate(event: *mut *mut c_void, _flags: c_uint) {
        put(event, std::ptr::without_provenance_mut(1))
    }
    fn cuMemAlloc_v2(pointer: *mut u64, bytes: usize) {
        let address = driver().allocate(bytes);
        address.map_or(OUT_OF_MEMORY, |address| put(pointer, address))
    }
    fn cuMemAllocAsync(pointer: *mut u64, bytes: usize, _stream: *mut c_void) {
        cuMemAlloc_v2(pointer, bytes)
    }
    fn cuMemFree_v2(pointer: u64) {
        let mut driver = driver();
        if driver.execute && !driver.memory.free(pointer) {
            end(&format!("freed {pointer:#x}, which is no live allocation"));
        }
        SUCCESS
    }
    fn cuMemFreeAsync(pointer: u64, _stream: *mut c_void) {
        cuMemFree_v2(pointer)
    }
    fn cuMemGetInfo_v2(unused: *mut usize, total: *mut usize) {
        let driver = driver();
        put(unused, driver.total() - driver.memory.total());
        put(total, driver.total())
    }
    fn cuMemAllocHost_v2(pointer: *mut *mut c_void, bytes: usize) {
        // The size is kept before the memory, for the free.
        let Ok(layout) = host_layout(bytes) else { return OUT_OF_MEMORY };
        let base = std::alloc::alloc(layout);
        if base.is_null() {
            return OUT_OF_MEMORY;
        }
        base.cast::<usize>().write(bytes);
        put(pointer, base.add(HOST_HEADER).cast())
    }
    fn cuMemFreeHost(pointer: *mut c_void) {
        let base = pointer.cast::<u8>().sub(HOST_HEADER);
        let bytes = base.cast::<usize>().read();
        std::alloc::dealloc(base, host_layout(bytes).expect("it was allocated with this layout"));
        SUCCESS
    }
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, _stream: *mut c_void) {
        let driver = driver();
        if driver.execute {
            driver.check(to, bytes);
            std::ptr::copy_nonoverlapping(from.cast::<u8>(), to as *mut u8, bytes);
        }
        SUCCESS
    }
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, _stream: *mut c_void) {
        let driver = driver();
        if driver.execute {
            driver.check(from, bytes);
            std::ptr::copy_nonoverlapping(from as *const u8, to.cast::<u8>(), bytes);
        } else {
            to.cast::<u8>().write_bytes(0, bytes);
        }
        SUCCESS
    }
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, _stream: *mut c_void) {
        let driver = driver();
        if driver.execute {
            driver.check(from, bytes);
            driver.check(to, bytes);
            std::ptr::copy(from as *const u8, to as *mut u8, bytes);
        }
        SUCCESS
    }
    fn cuMemsetD8Async(to: u64, value: u8, bytes: usize, _stream: *mut c_void) {
        let driver = driver();
        if driver.execute {
            driver.check(to, bytes);
            (to as *mut u8).write_bytes(value, bytes);
        }
        SUCCESS
    }
    fn cuMemcpy2DAsync_v2(copy: *const Copy2D, _stream: *mut c_void) {
        let (driver, copy) = (driver(), &*copy);
        let (from, to) = (&copy.source, &copy.target);
        for row in 0..copy.height {
            let place = |side: &Side| {
                let base = if side.kind == HOST { side.host as u64 } else { side.device };
                let address = base + ((side.y + row) * side.pitch + side.x) as u64;
                if driver.execute && side.kind != HOST {
                    driver.check(address, copy.width);
                }
                address
            };
            let (source, target) = (place(from), place(to));
            if driver.execute {
                std::ptr::copy(source as *const u8, target as *mut u8, copy.width);
            } else if to.kind == HOST {
                (target as *mut u8).write_bytes(0, copy.width);
            }
        }
        SUCCESS
    }
    fn cuModuleLoadData(module: *mut *mut c_void, image: *const c_void) {
        let text = CStr::from_ptr(image.cast()).to_string_lossy();
        let mut driver = driver();
        let number = driver.modules.len() + 1;
        if let Some(folder) = &driver.folder {
            let path = folder.join(format!("{number:04}.ptx"));
            if let Err(error) = std::fs::write(&path, text.as_bytes()) {
                end(&format!("{}: {error}", path.display()));
            }
        }
        let lowered = if driver.execute { crate::lower::module(&text, &mut driver.memory) } else { Ok(Vec::new()) };
        let (kernels, refused) = match lowered {
            Ok(kernels) => (kernels, None),
            Err(refused) => (Vec::new(), Some(refused)),
        };
        driver.modules.push(Module { text: text.into_owned(), kernels, refused });
        put(module, std::ptr::without_provenance_mut(number))
    }
    fn cuModuleGetFunction(function: *mut *mut c_void, module: *mut c_void, name: *const c_char) {
        let name = CStr::from_ptr(name).to_string_lossy();
        let (number, driver) = (module.addr(), driver());
        let Some(loaded) = number.checked_sub(1).and_then(|at| driver.modules.get(at)) else { return INVALID_VALUE };
        let kernel = loaded.kernels.iter().find(|kernel| kernel.name == name).cloned();
        if kernel.is_none() && driver.execute && loaded.refused.is_none() {
            return NOT_FOUND;
        }
        let entry = Function { module: number, kernel, refused: loaded.refused.clone() };
        put(function, std::ptr::from_mut(Box::leak(Box::new(entry))).cast())
    }
    fn cuLaunchKernel(
        function: *mut c_void, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint,
        _stream: *mut c_void, arguments: *mut *mut c_void, _extra: *mut *mut c_void,
    ) {
        let function = &*function.cast::<Function>();
        let driver = driver();
        if let Some(folder) = &driver.folder {
            let line = format!("{:04} {gx}x{gy}x{gz} {bx}x{by}x{bz} {shared}\n", function.module);
            let file = OpenOptions::new().create(true).append(true).open(folder.join("launches"));
            if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
                end(&format!("{}: {error}", folder.display()));
            }
        }
        // What the device itself would refuse.
        let threads = u64::from(bx) * u64::from(by) * u64::from(bz);
        if gx == 0 || gy == 0 || gz == 0 || gy > 65535 || gz > 65535 || threads == 0 || threads > 1024 {
            return INVALID_VALUE;
        }
        if !driver.execute {
            return SUCCESS;
        }
        let Some(kernel) = &function.kernel else {
            end(function.refused.as_deref().unwrap_or("a function without a kernel"))
        };
        match spoiled(&kernel.name, &driver.modules[function.module - 1].text) {
            Some(Spoiled::Idle) => return SUCCESS,
            Some(Spoiled::Refused) => return ILLEGAL_INSTRUCTION,
            Some(Spoiled::Endless) => std::thread::sleep(Duration::MAX),
            None => {}
        }
        if !(gx as usize).is_multiple_of(kernel.cluster) {
            return INVALID_CLUSTER_SIZE;
        }
        let static_and_dynamic = kernel.static_shared + shared as usize;
        if static_and_dynamic > driver.attribute(97) as usize {
            return INVALID_VALUE;
        }
        let mut parameters = vec![0u8; kernel.parameter_bytes];
        for (at, &(offset, bytes)) in kernel.parameters.iter().enumerate() {
            let argument = (*arguments.add(at)).cast::<u8>();
            parameters[offset..offset + bytes].copy_from_slice(std::slice::from_raw_parts(argument, bytes));
        }
        let mut grid = Launch::new([gx, gy, gz], [bx, by, bz], shared as usize, parameters)
            .with_memory(driver.memory.ranges());
        grid.seed = driver.seed ^ (LAUNCHES.fetch_add(1, Ordering::Relaxed) as u64).wrapping_mul(0x2545_f491_4f6c_dd1d);
        if let Err(fault) = launch(kernel, grid) {
            end(&format!("{fault}, module {:04}", function.module));
        }
        SUCCESS
    }
    fn cuTensorMapEncodeTiled(
        map: *mut c_void, kind: c_uint, rank: c_uint, address: u64, dims: *const u64, strides: *const u64,
        box_dims: *const c_uint, element_strides: *const c_uint, interleave: c_uint, swizzle: c_uint, _l2: c_uint,
        fill: c_uint,
    ) {
        if !(1..=5).contains(&rank) {
            return INVALID_VALUE;
        }
        let rank = rank as usize;
        let words = |from: *const c_uint| std::slice::from_raw_parts(from, rank).iter().map(|&word| word.into()).collect();
        let arguments = Arguments {
            kind: kind.into(),
            address,
            dims: std::slice::from_raw_parts(dims, rank).to_vec(),
            strides: if rank > 1 { std::slice::from_raw_parts(strides, rank - 1).to_vec() } else { Vec::new() },
            box_dims: words(box_dims),
            element_strides: words(element_strides),
            interleave: interleave.into(),
            swizzle: swizzle.into(),
            fill: fill.into(),
        };
        if driver().ascending && !arguments.strides.is_sorted() {
            return INVALID_VALUE;
        }
        let Some(encoded) = arguments.map() else { return INVALID_VALUE };
        map.cast::<[u64; BYTES / 8]>().write_unaligned(encoded.to_words());
        SUCCESS
    }
    fn cuTensorMapEncodeIm2col(map: *mut c_void) {
        map.cast::<u8>().write_bytes(0, 128);
        SUCCESS
    }
    fn cuTensorMapEncodeIm2colWide(map: *mut c_void) {
        map.cast::<u8>().write_bytes(0, 128);
        SUCCESS
    }
    // NVRTC asks the driver for private tables where it finds one, and does without where there is none.
    fn cuGetExportTable(table: *mut *const c_void, _id: *const c_void) {
        put(table, std::ptr::null());
        NOT_FOUND
    }
    fn cuGetErrorName(_error: c_int, text: *mut *const c_char) {
        put(text, c"CUDA_ERROR_EMULATED".as_ptr())
    }
    fn cuGetErrorString(_error: c_int, text: *mut *const c_char) {
        put(text, c"the emulated driver refused".as_ptr())
    }
}

const HOST_HEADER: usize = 64;

fn host_layout(bytes: usize) -> Result<std::alloc::Layout, std::alloc::LayoutError> {
    std::alloc::Layout::from_size_align(bytes + HOST_HEADER, HOST_HEADER)
}
