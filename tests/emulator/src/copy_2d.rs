//! The argument of cuMemcpy2DAsync: fields, their order and numbers are cuda.h's.

use std::ffi::{c_int, c_void};

/// CU_MEMORYTYPE_HOST
pub const HOST: c_int = 1;

/// Half of a CUDA_MEMCPY2D.
#[repr(C)]
pub struct Side {
    pub x: usize,
    pub y: usize,
    pub kind: c_int,
    pub host: *const c_void,
    pub device: u64,
    array: *const c_void,
    pub pitch: usize,
}

/// CUDA_MEMCPY2D
#[repr(C)]
pub struct Copy2D {
    pub source: Side,
    pub target: Side,
    pub width: usize,
    pub height: usize,
}
