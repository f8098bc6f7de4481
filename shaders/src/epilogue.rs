//! What follows a product whose kernel only overwrites: bias, adding to what is there, rounding to another dtype.

use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

use crate::device::Buffer;
use crate::elementwise::{spread, unit_index, width};
use crate::tuning::Choice;

/// What is decided when the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Blueprint {
    bias: bool,
    accumulate: bool,
}

/// out[start + i] (+)= product[i] (+ bias[i mod columns]). Sizes are in vectors.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn epilogue_kernel<V: Float, O: Float, N: Size>(
    product: &Array<Vector<f32, N>>,
    bias: &Array<Vector<V, N>>,
    out: &mut Array<Vector<O, N>>,
    len: usize,
    columns: usize,
    start: usize,
    #[comptime] blueprint: Blueprint,
    #[define(V, O)] _dtypes: [StorageType; 2],
) {
    let at = unit_index();
    if at < len {
        let mut value = product[at];
        if comptime!(blueprint.bias) {
            value += Vector::<f32, N>::cast_from(bias[at % columns]);
        }
        if comptime!(blueprint.accumulate) {
            value += Vector::<f32, N>::cast_from(out[start + at]);
        }
        out[start + at] = Vector::cast_from(value);
    }
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
    let by = width(&[n, start]);
    let (count, dim) = spread(client, len / by, Some(Choice::EpilogueUnits));
    // SAFETY: each unit compares its index with `len`; the caller promises that `out` holds `start + len` elements.
    unsafe {
        epilogue_kernel::launch_unchecked(
            client,
            count,
            dim,
            by,
            product.into_tensor_arg().into_array_arg(),
            bias.arg(),
            out.arg(),
            len / by,
            n / by,
            start / by,
            blueprint,
            dtypes,
        );
    }
}
