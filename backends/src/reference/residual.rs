use burn_backend::Backend;
use burn_tensor::{DType, Tensor};

use super::{row_mask, wide};
use crate::dropout::{Dropout, Site};
use crate::ops::BlockDims;

fn drop<B: Backend>(x: Tensor<B, 2>, site: Site, seq: usize, dropout: Option<Dropout>) -> Tensor<B, 2> {
    match dropout {
        None => x,
        Some(dropout) => {
            let [rows, cols] = x.dims();
            let mask = row_mask(dropout, site, rows, cols, seq, &x.device());
            x * mask
        }
    }
}

pub fn residual<B: Backend>(
    x: Tensor<B, 2>,
    attention: Tensor<B, 2>,
    mlp: Tensor<B, 2>,
    dims: BlockDims,
    dropout: Option<Dropout>,
) -> Tensor<B, 2> {
    x + drop(wide(attention), Site::AttentionResidual, dims.seq, dropout)
        + drop(wide(mlp), Site::MlpResidual, dims.seq, dropout)
}

pub fn residual_backward<B: Backend>(
    dx: Tensor<B, 2>,
    dims: BlockDims,
    dropout: Option<Dropout>,
    dtype: DType,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let branch = |site| drop(dx.clone(), site, dims.seq, dropout).cast(dtype);
    (branch(Site::AttentionResidual), branch(Site::MlpResidual))
}

pub fn embedding_dropout<B: Backend>(x: Tensor<B, 2>, seq: usize, dropout: Option<Dropout>) -> Tensor<B, 2> {
    drop(x, Site::Embedding, seq, dropout)
}
