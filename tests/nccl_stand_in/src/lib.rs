//! Stands in for `libnccl.so.2` where there are no GPUs: names, argument orders and numbers are nccl.h's. Buffers are memory
//! of the CUDA emulator (tests/emulator), which is the host's own, so that an operation is: everybody's bytes to the first
//! rank over a socket, and the result back. Operations are done when they return or, inside a group, when the group ends.
//!
//! What NCCL refuses, or hangs on, is refused here: two ranks on one device, ranks that call different operations, buffers
//! that are no device memory or too short, a stream of none.

#![deny(unsafe_op_in_unsafe_fn)]

mod comm;
mod memory;

use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_int, c_void};

use comm::{Comm, Id, Kind, Operation};

type Status = c_int;
const SUCCESS: Status = 0;
const SYSTEM_ERROR: Status = 2;
const INVALID_ARGUMENT: Status = 4;
const INVALID_USAGE: Status = 5;

/// Version 2.28.3, as NCCL writes it.
const VERSION: c_int = 22_803;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Operations of the group that is open.
    static QUEUED: RefCell<Vec<(*mut Comm, Operation)>> = const { RefCell::new(Vec::new()) };
}

/// Says why, as NCCL_DEBUG=WARN would.
fn refuse(status: Status, why: &str) -> Status {
    eprintln!("nccl-stand-in: {why}");
    status
}

/// # Safety
/// `to` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetVersion(to: *mut c_int) -> Status {
    // SAFETY: by this function's contract.
    unsafe { to.write(VERSION) };
    SUCCESS
}

/// # Safety
/// `to` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetUniqueId(to: *mut Id) -> Status {
    match comm::unique_id() {
        Ok(id) => {
            // SAFETY: by this function's contract.
            unsafe { to.write(id) };
            SUCCESS
        }
        Err(error) => refuse(SYSTEM_ERROR, &error.to_string()),
    }
}

/// # Safety
/// `to` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommInitRank(to: *mut *mut Comm, size: c_int, id: Id, rank: c_int) -> Status {
    let Some(device) = memory::current_device() else { return refuse(INVALID_USAGE, "no CUDA device is current") };
    if size < 1 || !(0..size).contains(&rank) {
        return refuse(INVALID_ARGUMENT, &format!("rank {rank} of {size}"));
    }
    match Comm::join(&id, rank as usize, size as usize, device) {
        Ok(comm) => {
            // SAFETY: by this function's contract.
            unsafe { to.write(Box::into_raw(Box::new(comm))) };
            SUCCESS
        }
        Err(error) => refuse(INVALID_USAGE, &error.to_string()),
    }
}

/// # Safety
/// `comm` came from `ncclCommInitRank` and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommDestroy(comm: *mut Comm) -> Status {
    if comm.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: by this function's contract.
    drop(unsafe { Box::from_raw(comm) });
    SUCCESS
}

/// # Safety
/// `status` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommGetAsyncError(comm: *mut Comm, status: *mut Status) -> Status {
    if comm.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: by this function's contract.
    unsafe { status.write(SUCCESS) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGetErrorString(status: Status) -> *const c_char {
    let text = match status {
        SUCCESS => c"no error",
        SYSTEM_ERROR => c"unhandled system error",
        INVALID_ARGUMENT => c"invalid argument",
        INVALID_USAGE => c"invalid usage",
        _ => c"unknown result code",
    };
    text.as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGetLastError(_: *mut Comm) -> *const c_char {
    c"the stand-in has said why".as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGroupStart() -> Status {
    DEPTH.set(DEPTH.get() + 1);
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGroupEnd() -> Status {
    match DEPTH.get() {
        0 => return refuse(INVALID_USAGE, "a group ends that was not begun"),
        depth => DEPTH.set(depth - 1),
    }
    if DEPTH.get() > 0 {
        return SUCCESS;
    }
    let run = |(comm, operation)| {
        // SAFETY: `queue` was called with a live communicator, and its buffers live until the group has ended.
        unsafe { run(comm, &operation) }
    };
    QUEUED.take().into_iter().map(run).find(|status| *status != SUCCESS).unwrap_or(SUCCESS)
}

/// # Safety
/// As of `queue`.
unsafe fn run(comm: *mut Comm, operation: &Operation) -> Status {
    // SAFETY: by this function's contract.
    match unsafe { (*comm).run(operation) } {
        Ok(()) => SUCCESS,
        Err(error) => refuse(SYSTEM_ERROR, &error.to_string()),
    }
}

/// Now, or at the end of the group.
///
/// # Safety
/// `comm` is live, and buffers are as long as nccl.h says; they are looked up in the emulator.
unsafe fn queue(comm: *mut Comm, stream: *mut c_void, operation: Operation) -> Status {
    if comm.is_null() || stream.is_null() {
        return refuse(INVALID_ARGUMENT, "no communicator, or no stream");
    }
    // SAFETY: by this function's contract.
    if let Err(why) = unsafe { (*comm).check(&operation) } {
        return refuse(INVALID_ARGUMENT, &why);
    }
    if DEPTH.get() > 0 {
        QUEUED.with_borrow_mut(|queued| queued.push((comm, operation)));
        return SUCCESS;
    }
    // SAFETY: by this function's contract.
    unsafe { run(comm, &operation) }
}

macro_rules! operations {
    ($($name:ident($($argument:ident: $type:ty),*) = $kind:expr, $reduces:expr;)*) => {
        $(
        /// # Safety
        /// As nccl.h says of communicator and buffers.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            from: *const c_void, to: *mut c_void, count: usize, dtype: c_int, $($argument: $type,)* comm: *mut Comm,
            stream: *mut c_void,
        ) -> Status {
            let reduces: Option<c_int> = $reduces;
            let operation = Operation { kind: $kind, reduces, from: from as u64, to: to as u64, count, dtype };
            // SAFETY: by this function's contract.
            unsafe { queue(comm, stream, operation) }
        })*
    };
}

operations! {
    ncclAllReduce(op: c_int) = Kind::AllReduce, Some(op);
    ncclReduceScatter(op: c_int) = Kind::ReduceScatter, Some(op);
    ncclReduce(op: c_int, root: c_int) = Kind::Reduce(root as usize), Some(op);
    ncclAllGather() = Kind::AllGather, None;
    ncclBroadcast(root: c_int) = Kind::Broadcast(root as usize), None;
}
