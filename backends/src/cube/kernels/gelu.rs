use burn_cubecl::CubeRuntime;
use burn_tensor::{DType, Tensor};
use trainer_shaders::column_sums::{Sums, scratch_len};
use trainer_shaders::gelu::{self, Columns};

use super::tensor::{CubeTensors, binding, buffer, cube, empty, float, modify, owned, slot};
use crate::ops::{BiasGrad, BlockDims};

fn columns(dims: BlockDims) -> Columns {
    Columns { rows: dims.tokens(), row: dims.fused(), start: 3 * dims.hidden(), cols: dims.mlp }
}

pub fn forward<R: CubeRuntime, B: CubeTensors<R>>(fused: Tensor<B, 2>, dims: BlockDims) -> Tensor<B, 2> {
    let fused = cube(fused);
    let h = empty(&fused, [dims.tokens(), dims.mlp], fused.dtype);
    gelu::forward(&fused.client, columns(dims), buffer(&fused), buffer(&h));
    float(h)
}

pub fn backward<R: CubeRuntime, B: CubeTensors<R>>(
    dh: Tensor<B, 2>,
    fused: Tensor<B, 2>,
    dims: BlockDims,
    into: Tensor<B, 2>,
    grad: BiasGrad<'_, B>,
) -> Tensor<B, 2> {
    let (dh, fused, into) = (cube(dh), cube(fused), owned(into));
    let partial = empty(&dh, [scratch_len([dims.tokens(), dims.mlp])], DType::F32);
    modify(grad.flat, |flat| {
        let sums = Sums { partial: binding(&partial), out: slot(flat, grad.bias.offset, grad.bias.len) };
        gelu::backward(&fused.client, columns(dims), buffer(&dh), buffer(&fused), buffer(&into), sums);
    });
    float(into)
}
