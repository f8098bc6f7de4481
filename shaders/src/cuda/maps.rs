//! Whether the driver makes the tensor maps that kernels would like to have.

use std::mem::MaybeUninit;
use std::sync::OnceLock;

use cubecl::prelude::*;
use cudarc::driver::sys::{
    CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave, CUtensorMapL2promotion,
    CUtensorMapSwizzle, cuTensorMapEncodeTiled,
};

use super::{WIDTH, cuda};

/// Whether strides may be in any order, which is not known of every driver: it is asked once, for a map that nothing reads
/// through. Where it does not make one with ascending strides either, the question was wrong, and maps in use will tell.
pub(crate) fn strides_in_any_order<R: Runtime>(client: &ComputeClient<R>) -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    cuda(client).is_some() && *ANSWER.get_or_init(|| makes([1024, 128, 8192]) || !makes([128, 1024, 8192]))
}

/// A map of 16-bit elements with these strides, in bytes, the innermost first.
fn makes(strides: [u64; 3]) -> bool {
    let mut map = MaybeUninit::<CUtensorMap>::uninit();
    let (sizes, boxes, each) = ([WIDTH as u64, 4, 8, 16], [WIDTH as u32, 2, 4, 8], [1; 4]);
    // Aligned, and never read.
    let address = std::ptr::without_provenance_mut(1 << 32);
    // SAFETY: the arrays have as many elements as the map has dimensions, the strides one less, and outlive the call; the
    // driver is there, since there is a client.
    let status = unsafe {
        cuTensorMapEncodeTiled(
            map.as_mut_ptr(),
            CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            4,
            address,
            sizes.as_ptr(),
            strides.as_ptr(),
            boxes.as_ptr(),
            each.as_ptr(),
            CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    status.result().is_ok()
}
