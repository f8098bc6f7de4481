use burn_cubecl::CubeRuntime;
use burn_tensor::{DType, Int, Tensor};
use trainer_shaders::embedding;

use super::tensor::{CubeTensors, binding, buffer, contiguous, empty, modify, slot, tensor, token_ids};
use crate::ops::MatrixSlot;

pub fn forward<R: CubeRuntime, B: CubeTensors<R>>(table: Tensor<B, 2>, tokens: Tensor<B, 1, Int>) -> Tensor<B, 2> {
    let sizes = [tokens.dims()[0], table.dims()[1]];
    let (table, tokens) = (contiguous(table), token_ids(tokens));
    let x = empty(&table, sizes, DType::F32);
    embedding::forward(&table.client, sizes, buffer(table.clone()), binding(&tokens), binding(&x));
    tensor(x)
}

pub fn backward<R: CubeRuntime, B: CubeTensors<R>>(
    dx: Tensor<B, 2>,
    tokens: Tensor<B, 1, Int>,
    grads: &mut Tensor<B, 1>,
    table: MatrixSlot,
) {
    let sizes = dx.dims();
    let (dx, tokens) = (contiguous(dx), token_ids(tokens));
    let order = empty(&dx, [sizes[0]], DType::U32);
    modify(grads, |flat| {
        let rows = slot(flat, table.offset, table.rows * table.cols);
        embedding::backward(&dx.client, sizes, binding(&dx), binding(&tokens), binding(&order), rows);
    });
}
