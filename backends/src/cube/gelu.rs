use burn_cubecl::CubeRuntime;
use burn_tensor::Tensor;
use trainer_shaders::gelu::{self, Columns};

use super::tensor::{CubeTensors, buffer, contiguous, empty, owned, primitive, tensor};
use crate::ops::BlockDims;

fn columns(dims: BlockDims) -> Columns {
    Columns { rows: dims.tokens(), row: dims.fused(), start: 3 * dims.hidden(), cols: dims.mlp }
}

pub fn forward<R: CubeRuntime, B: CubeTensors<R>>(fused: Tensor<B, 2>, dims: BlockDims) -> Tensor<B, 2> {
    let fused = contiguous(fused);
    let h = empty(&fused, [dims.tokens(), dims.mlp], fused.dtype);
    gelu::forward(&fused.client, columns(dims), buffer(fused.clone()), buffer(h.clone()));
    tensor(h)
}

pub fn backward<R: CubeRuntime, B: CubeTensors<R>>(
    dh: Tensor<B, 2>,
    fused: Tensor<B, 2>,
    dims: BlockDims,
    into: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let (dh, fused, into) = (contiguous(dh), contiguous(fused), owned(primitive(into)));
    gelu::backward(&fused.client, columns(dims), buffer(dh.clone()), buffer(fused.clone()), buffer(into.clone()));
    tensor(into)
}
