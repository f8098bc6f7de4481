//! What the emulated device says of itself: an A100's numbers or, from capability 90 on, an H100's.

use std::ffi::c_int;

/// The value of a CUdevice_attribute; 0 for those that nobody asks for.
pub fn attribute(capability: i32, multiprocessors: Option<u64>, kind: c_int) -> c_int {
    let hopper = capability >= 90;
    match kind {
        1..=3 => 1024,   // threads a block, block x, y
        4 => 64,         // block z
        5 => c_int::MAX, // grid x
        6 | 7 => 65535,  // grid y, z
        8 => 48 << 10,   // shared memory a block
        10 => 32,        // warp
        // Multiprocessors.
        16 => multiprocessors.unwrap_or(if hopper { 132 } else { 108 }) as c_int,
        75 => capability / 10, // compute capability
        76 => capability % 10,
        97 => (if hopper { 227 } else { 163 }) << 10, // shared memory a block, opted in
        115 => 1,                                     // memory pools
        _ => 0,
    }
}
