//! What follows a product whose kernel only overwrites: bias, adding to what is there, rounding to another dtype.

use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

use crate::device::{Buffer, cubes};

const UNITS: usize = 64;

/// What is decided when the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Blueprint {
    bias: bool,
    accumulate: bool,
}

/// out[start + i] (+)= product[i] (+ bias[i mod n]).
#[cube(launch_unchecked)]
fn epilogue_kernel<V: Float, O: Float>(
    product: &Array<f32>,
    bias: &Array<V>,
    out: &mut Array<O>,
    len: usize,
    n: usize,
    start: usize,
    #[comptime] blueprint: Blueprint,
    #[define(V, O)] _dtypes: [StorageType; 2],
) {
    let at = CUBE_POS * (CUBE_DIM as usize) + UNIT_POS as usize;
    if at >= len {
        terminate!();
    }
    let mut value = product[at];
    if comptime!(blueprint.bias) {
        value += f32::cast_from(bias[at % n]);
    }
    if comptime!(blueprint.accumulate) {
        value += f32::cast_from(out[start + at]);
    }
    out[start + at] = O::cast_from(value);
}

/// Where the product goes.
pub struct Destination<R: Runtime> {
    pub buffer: Buffer<R>,
    /// Index of the first element.
    pub start: usize,
    /// Add to what is there instead of overwriting it.
    pub accumulate: bool,
}

/// Puts `product` `[m, n]` fp32, plus `bias` `[n]` if there is one, into the destination's `m * n` elements, or adds it to
/// them.
pub fn epilogue<R: Runtime>(
    client: &ComputeClient<R>,
    [m, n]: [usize; 2],
    product: TensorBinding<R>,
    bias: Option<Buffer<R>>,
    Destination { buffer: out, start, accumulate }: Destination<R>,
) {
    let len = m * n;
    if len == 0 {
        return;
    }
    let blueprint = Blueprint { bias: bias.is_some(), accumulate };
    // Without a bias the binding is still declared; the product stands in and is not read through it.
    let float = StorageType::Scalar(ElemType::Float(FloatKind::F32));
    let bias = bias.unwrap_or_else(|| Buffer { binding: product.clone(), dtype: float });
    let dtypes = [bias.dtype, out.dtype];
    // SAFETY: each unit compares its index with `len`; the caller promises that `out` holds `start + len` elements.
    unsafe {
        epilogue_kernel::launch_unchecked(
            client,
            cubes(client, len.div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            product.into_tensor_arg().into_array_arg(),
            bias.arg(),
            out.arg(),
            len,
            n,
            start,
            blueprint,
            dtypes,
        );
    }
}
