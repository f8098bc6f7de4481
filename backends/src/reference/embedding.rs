use burn_backend::Backend;
use burn_tensor::{IndexingUpdateOp, Int, Tensor};

use super::wide;
use crate::ops::MatrixSlot;

/// Rows of the table, widened: the residual stream starts in fp32.
pub fn embedding<B: Backend>(table: Tensor<B, 2>, tokens: Tensor<B, 1, Int>) -> Tensor<B, 2> {
    wide(table.select(0, tokens))
}

pub fn embedding_backward<B: Backend>(
    dx: Tensor<B, 2>,
    tokens: Tensor<B, 1, Int>,
    grads: &mut Tensor<B, 1>,
    table: MatrixSlot,
) {
    let MatrixSlot { offset, rows, cols } = table;
    let range = offset..offset + rows * cols;
    grads.inplace(|flat| {
        let old = flat.clone().slice([range.clone()]).reshape([rows, cols]);
        let new = old.select_assign(0, tokens, dx, IndexingUpdateOp::Add);
        flat.slice_assign([range], new.reshape([rows * cols]))
    });
}
