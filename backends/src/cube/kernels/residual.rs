use burn_cubecl::CubeRuntime;
use burn_tensor::{DType, Tensor};
use trainer_shaders::epilogue::{Destination, epilogue};
use trainer_shaders::residual::{self, Site as Mask, Sizes};

use super::tensor::{CubeTensors, binding, buffer, cube, empty, float, owned};
use crate::dropout::{Dropout, Site};
use crate::ops::BlockDims;

/// As kernels take it; head 0, since these sites have none.
fn mask(dropout: Dropout, site: Site) -> Mask {
    Mask {
        key: dropout.key,
        first_sequence: dropout.first_sequence,
        place: dropout.layer << 16 | site as u32,
        threshold: dropout.threshold,
        scale: dropout.scale(),
    }
}

pub fn branches(dropout: Dropout) -> [Mask; 2] {
    [Site::AttentionResidual, Site::MlpResidual].map(|site| mask(dropout, site))
}

pub fn forward<R: CubeRuntime, B: CubeTensors<R>>(
    x: Tensor<B, 2>,
    attention: Tensor<B, 2>,
    mlp: Tensor<B, 2>,
    dims: BlockDims,
    dropout: Option<Dropout>,
) -> Tensor<B, 2> {
    let [rows, cols] = x.dims();
    let (x, attention, mlp) = (cube(x), cube(attention), cube(mlp));
    let out = empty(&x, [rows, cols], DType::F32);
    let sizes = Sizes { rows, cols, seq: dims.seq };
    let inputs = [buffer(&attention), buffer(&mlp)];
    residual::forward(&x.client, sizes, binding(&x), inputs, binding(&out), dropout.map(branches));
    float(out)
}

pub fn backward<R: CubeRuntime, B: CubeTensors<R>>(
    dx: Tensor<B, 2>,
    dims: BlockDims,
    dropout: Option<Dropout>,
    dtype: DType,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let [rows, cols] = dx.dims();
    let Some(dropout) = dropout else {
        // Both branches' gradient is the sum's: one buffer, shared.
        if dtype == DType::F32 {
            return (dx.clone(), dx);
        }
        let dx = cube(dx);
        let branch = empty(&dx, [rows, cols], dtype);
        let out = Destination { buffer: buffer(&branch), start: 0, accumulate: false };
        epilogue(&dx.client, [rows, cols], binding(&dx), None, out);
        let branch: Tensor<B, 2> = float(branch);
        return (branch.clone(), branch);
    };
    let dx = cube(dx);
    let [da, db] = [(); 2].map(|()| empty(&dx, [rows, cols], dtype));
    let sizes = Sizes { rows, cols, seq: dims.seq };
    residual::backward(&dx.client, sizes, binding(&dx), [buffer(&da), buffer(&db)], branches(dropout));
    (float(da), float(db))
}

pub fn embedding_dropout<R: CubeRuntime, B: CubeTensors<R>>(
    x: Tensor<B, 2>,
    seq: usize,
    dropout: Option<Dropout>,
) -> Tensor<B, 2> {
    let Some(dropout) = dropout else { return x };
    let [rows, cols] = x.dims();
    let x = owned(x);
    residual::dropout(&x.client, Sizes { rows, cols, seq }, binding(&x), mask(dropout, Site::Embedding));
    float(x)
}
