use burn_cubecl::CubeRuntime;
use burn_tensor::Tensor;
use trainer_shaders::rotary::{self, Sizes};

use super::tensor::{CubeTensors, binding, buffer, contiguous, owned, primitive, tensor};
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
    let (cos, sin) = (contiguous(table.cos.clone()), contiguous(table.sin.clone()));
    let fused = owned(primitive(fused));
    rotary::rotate(&fused.client, sizes, buffer(fused.clone()), [binding(&cos), binding(&sin)], turn == Turn::Back);
    tensor(fused)
}
