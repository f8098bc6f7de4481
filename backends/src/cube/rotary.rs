use burn_cubecl::CubeRuntime;
use burn_tensor::Tensor;
use trainer_shaders::rotary::{self, Sizes};

use super::tensor::{CubeTensors, binding, buffer, cube, float, owned};
use crate::ops::{BlockDims, RotaryTable, Turn};

pub fn rotary<R: CubeRuntime, B: CubeTensors<R>>(
    fused: Tensor<B, 2>,
    table: &RotaryTable<B>,
    dims: BlockDims,
    turn: Turn,
) -> Tensor<B, 2> {
    if dims.rotary_dim == 0 {
        return fused;
    }
    let sizes = Sizes {
        tokens: dims.tokens(),
        seq: dims.seq,
        heads: dims.heads,
        head_dim: dims.head_dim,
        rotary_dim: dims.rotary_dim,
        row: dims.fused(),
        table_cols: table.cos.dims()[1],
    };
    let (cos, sin) = (cube(table.cos.clone()), cube(table.sin.clone()));
    let fused = owned(fused);
    rotary::rotate(&fused.client, sizes, buffer(&fused), [binding(&cos), binding(&sin)], turn == Turn::Back);
    float(fused)
}
