//! NCCL: collectives on the memory of NVIDIA GPUs, through the library that is found at run time.
//!
//! Names, argument orders and numbers are nccl.h's, which has all of them since version 2.13. cudarc has these
//! functions too, but looks for libnccl.so, which only NVIDIA's development packages bring; what a user has is
//! libnccl.so.2, as PyTorch and the pip wheel do.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use cudarc::driver::{CudaContext, CudaStream};
use libloading::Library;

use crate::transfer::DeviceSpan;

/// ncclResult_t
type Status = c_int;
const SUCCESS: Status = 0;
/// ncclDataType_t: a word, of which no operation asks what it means.
const UINT32: c_int = 3;
/// ncclDataType_t
const FLOAT32: c_int = 7;
/// ncclRedOp_t
const SUM: c_int = 0;

type Comm = *mut c_void;

/// ncclUniqueId: how ranks find each other. Every rank joins with that of one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueId(pub [u8; 128]);

/// The library's functions. `stream` and buffers are CUDA's.
struct Functions {
    get_version: unsafe extern "C" fn(*mut c_int) -> Status,
    get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> Status,
    comm_init_rank: unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int) -> Status,
    comm_destroy: unsafe extern "C" fn(Comm) -> Status,
    get_error_string: unsafe extern "C" fn(Status) -> *const c_char,
    get_last_error: unsafe extern "C" fn(Comm) -> *const c_char,
    get_async_error: unsafe extern "C" fn(Comm, *mut Status) -> Status,
    group_start: unsafe extern "C" fn() -> Status,
    group_end: unsafe extern "C" fn() -> Status,
    all_reduce: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, *mut c_void) -> Status,
    reduce_scatter: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, *mut c_void) -> Status,
    reduce: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, c_int, Comm, *mut c_void) -> Status,
    all_gather: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, Comm, *mut c_void) -> Status,
    broadcast: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, *mut c_void) -> Status,
    _library: Library,
}

static FUNCTIONS: OnceLock<Result<Functions, String>> = OnceLock::new();

const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];
const REMEDY: &str = "pip install nvidia-nccl-cu12 (or apt-get install libnccl2 with NVIDIA's repository) and put the folder \
                      of libnccl.so.2 on LD_LIBRARY_PATH";

impl Functions {
    /// # Errors
    /// No NCCL on this machine, or one that is too old: a sentence that says how to get one.
    fn get() -> Result<&'static Self, String> {
        FUNCTIONS.get_or_init(Self::load).as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Self, String> {
        // SAFETY: loads NCCL, whose initialisers are the vendor's.
        let library = NAMES.iter().find_map(|name| unsafe { Library::new(name) }.ok());
        let library = library.ok_or_else(|| format!("there is no NCCL (libnccl.so.2 not found): {REMEDY}"))?;
        let old = |error: libloading::Error| format!("this NCCL lacks a function ({error}): {REMEDY}");
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: nccl.h declares the function with the type of the field that it is stored in.
                *unsafe { library.get($name) }.map_err(old)?
            };
        }
        Ok(Self {
            get_version: symbol!(b"ncclGetVersion\0"),
            get_unique_id: symbol!(b"ncclGetUniqueId\0"),
            comm_init_rank: symbol!(b"ncclCommInitRank\0"),
            comm_destroy: symbol!(b"ncclCommDestroy\0"),
            get_error_string: symbol!(b"ncclGetErrorString\0"),
            get_last_error: symbol!(b"ncclGetLastError\0"),
            get_async_error: symbol!(b"ncclCommGetAsyncError\0"),
            group_start: symbol!(b"ncclGroupStart\0"),
            group_end: symbol!(b"ncclGroupEnd\0"),
            all_reduce: symbol!(b"ncclAllReduce\0"),
            reduce_scatter: symbol!(b"ncclReduceScatter\0"),
            reduce: symbol!(b"ncclReduce\0"),
            all_gather: symbol!(b"ncclAllGather\0"),
            broadcast: symbol!(b"ncclBroadcast\0"),
            _library: library,
        })
    }

    /// `comm` may be null.
    fn check(&self, what: &str, comm: Comm, status: Status) -> Result<(), String> {
        if status == SUCCESS {
            return Ok(());
        }
        let text = |text: *const c_char| {
            // SAFETY: NCCL returns null or a text of its own that ends with a zero.
            if text.is_null() { String::new() } else { unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned() }
        };
        // SAFETY: any number is allowed, and a null communicator too.
        let (name, last) = unsafe { (text((self.get_error_string)(status)), text((self.get_last_error)(comm))) };
        let last = last.trim();
        let detail = if last.is_empty() { String::new() } else { format!(" ({last})") };
        Err(format!("NCCL's {what} fails: {name}{detail}; NCCL_DEBUG=INFO tells more"))
    }
}

/// The version of the NCCL on this machine, as in "2.28.3".
///
/// # Errors
/// None there: how to get it.
pub fn version() -> Result<String, String> {
    let functions = Functions::get()?;
    let mut version = 0;
    // SAFETY: writes one int.
    functions.check("ncclGetVersion", std::ptr::null_mut(), unsafe { (functions.get_version)(&mut version) })?;
    // 1000 x major + 100 x minor + patch up to 2.8; since then 10000 x major.
    let major = if version < 10_000 { 1000 } else { 10_000 };
    Ok(format!("{}.{}.{}", version / major, version % major / 100, version % 100))
}

/// A new id, which one rank makes for all.
///
/// # Errors
/// No NCCL, or no network that it can use.
pub fn unique_id() -> Result<UniqueId, String> {
    let functions = Functions::get()?;
    let mut id = UniqueId([0; 128]);
    // SAFETY: writes the 128 bytes of an ncclUniqueId.
    functions.check("ncclGetUniqueId", std::ptr::null_mut(), unsafe { (functions.get_unique_id)(&mut id) })?;
    Ok(id)
}

/// This process's GPU among the others'. Operations are queued in a stream of their own and waited for before they return:
/// they are called from a thread beside the one that queues kernels. Every rank calls the same ones in the same order.
pub struct Communicator {
    functions: &'static Functions,
    comm: Comm,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    rank: usize,
    size: usize,
}

// SAFETY: NCCL allows a communicator to be used from any thread, by one at a time; `Collective`'s contract is that all ranks
// call the same operations in the same order, which two threads of a rank at a time could not do.
unsafe impl Send for Communicator {}
// SAFETY: as above.
unsafe impl Sync for Communicator {}

impl Communicator {
    /// Joins the other ranks, and waits for them.
    ///
    /// # Errors
    /// No NCCL, no such device, ranks that cannot reach each other, or two of them on the same GPU.
    pub fn join(id: UniqueId, rank: usize, size: usize, device: usize) -> Result<Self, String> {
        let functions = Functions::get()?;
        let driver = |error: cudarc::driver::DriverError| format!("CUDA device {device} cannot be used: {error}");
        let context = CudaContext::new(device).map_err(driver)?;
        context.bind_to_thread().map_err(driver)?;
        let stream = context.new_stream().map_err(driver)?;
        let mut comm = std::ptr::null_mut();
        // SAFETY: the id is passed by value, and the context of the device is current.
        let status = unsafe { (functions.comm_init_rank)(&mut comm, size as c_int, id, rank as c_int) };
        functions.check("ncclCommInitRank", std::ptr::null_mut(), status)?;
        Ok(Self { functions, comm, context, stream, rank, size })
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// Sums fp32 `values` over the ranks, in place.
    ///
    /// # Errors
    /// What NCCL or the driver fails with.
    pub fn all_reduce(&self, values: &DeviceSpan) -> Result<(), String> {
        let at = values.address as *mut c_void;
        self.run("ncclAllReduce", |nccl, stream| {
            // SAFETY: the span is that many bytes of live device memory.
            unsafe { (nccl.all_reduce)(at, at, values.bytes / 4, FLOAT32, SUM, self.comm, stream) }
        })
    }

    /// This rank's part of the sum of fp32 `values` over the ranks; `parts` count elements.
    ///
    /// # Errors
    /// As `all_reduce`.
    pub fn reduce_scatter(&self, values: &DeviceSpan, own: &DeviceSpan, parts: &[Range<usize>]) -> Result<(), String> {
        self.check_parts(parts, 4, own, values)?;
        let (from, to) = (values.address as *const u8, own.address as *mut c_void);
        if let Some(len) = even(parts) {
            return self.run("ncclReduceScatter", |nccl, stream| {
                // SAFETY: `check_parts` has compared lengths; spans are live device memory.
                unsafe { (nccl.reduce_scatter)(from.cast(), to, len, FLOAT32, SUM, self.comm, stream) }
            });
        }
        // NCCL scatters equal parts only: one reduction for each owner, together.
        self.grouped("ncclReduce", parts, |nccl, root, part, stream| {
            // SAFETY: as above; the pointer stays within the span, and only the root's result is written.
            unsafe {
                let from = from.add(4 * part.start).cast();
                (nccl.reduce)(from, to, part.len(), FLOAT32, SUM, root, self.comm, stream)
            }
        })
    }

    /// `whole`, of which each rank brings its own part; `parts` count 32-bit words.
    ///
    /// # Errors
    /// As `all_reduce`.
    pub fn all_gather(&self, own: &DeviceSpan, whole: &DeviceSpan, parts: &[Range<usize>]) -> Result<(), String> {
        self.check_parts(parts, 4, own, whole)?;
        let (from, to) = (own.address as *const c_void, whole.address as *mut u8);
        if let Some(len) = even(parts) {
            return self.run("ncclAllGather", |nccl, stream| {
                // SAFETY: `check_parts` has compared lengths; spans are live device memory.
                unsafe { (nccl.all_gather)(from, to.cast(), len, UINT32, self.comm, stream) }
            });
        }
        self.grouped("ncclBroadcast", parts, |nccl, root, part, stream| {
            // SAFETY: as above; only the root's source is read.
            unsafe {
                let to = to.add(4 * part.start).cast();
                (nccl.broadcast)(from, to, part.len(), UINT32, root, self.comm, stream)
            }
        })
    }

    /// `part` holds this rank's part and `whole` all of them, in elements of `size` bytes.
    fn check_parts(
        &self,
        parts: &[Range<usize>],
        size: usize,
        part: &DeviceSpan,
        whole: &DeviceSpan,
    ) -> Result<(), String> {
        let (own, all) = (parts.get(self.rank).map(|own| own.len() * size), parts.last().map(|last| last.end * size));
        if parts.len() == self.size && own == Some(part.bytes) && all == Some(whole.bytes) {
            return Ok(());
        }
        Err(format!(
            "an exchange of {} bytes in {} parts, of which this rank's has {}, does not fit {} ranks",
            whole.bytes,
            parts.len(),
            part.bytes,
            self.size
        ))
    }

    /// Queues an operation, and waits until it is done.
    fn run(&self, what: &str, queue: impl FnOnce(&Functions, *mut c_void) -> Status) -> Result<(), String> {
        let driver = |error: cudarc::driver::DriverError| format!("CUDA fails in an exchange: {error}");
        self.context.bind_to_thread().map_err(driver)?;
        let status = queue(self.functions, self.stream.cu_stream().cast());
        self.functions.check(what, self.comm, status)?;
        self.stream.synchronize().map_err(driver)?;
        let mut failed = SUCCESS;
        // SAFETY: writes one int.
        let status = unsafe { (self.functions.get_async_error)(self.comm, &mut failed) };
        self.functions.check("ncclCommGetAsyncError", self.comm, status)?;
        self.functions.check(what, self.comm, failed)
    }

    /// One operation for each rank's part, of which NCCL makes one.
    fn grouped(
        &self,
        what: &str,
        parts: &[Range<usize>],
        queue: impl Fn(&Functions, c_int, &Range<usize>, *mut c_void) -> Status,
    ) -> Result<(), String> {
        self.run(what, |nccl, stream| {
            // SAFETY: takes nothing.
            let begun = unsafe { (nccl.group_start)() };
            let queued = parts.iter().enumerate().map(|(root, part)| queue(nccl, root as c_int, part, stream));
            let failed = std::iter::once(begun).chain(queued).find(|status| *status != SUCCESS);
            // SAFETY: as above. A group that was begun is ended whatever has failed.
            let ended = unsafe { (nccl.group_end)() };
            failed.unwrap_or(ended)
        })
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: every operation has been waited for, and nothing refers to the communicator any more.
            unsafe { (self.functions.comm_destroy)(self.comm) };
        }
    }
}

/// The length of parts that are equally long.
fn even(parts: &[Range<usize>]) -> Option<usize> {
    let len = parts.first()?.len();
    parts.iter().all(|part| part.len() == len).then_some(len)
}
