//! A linear layer: y = x W^T + b, dx = dy W, dW += dy^T x, db += the column sums of dy.

use burn_backend::TensorMetadata;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use burn_tensor::{DType, Tensor};
use trainer_shaders::column_sums::{add_column_sums, scratch_len};

use super::matmul::{Part, Side, product};
use super::tensor::{Slots, buffer, contiguous, empty, primitive, tensor};
use crate::ops::{MatrixSlot, VectorSlot, WeightGrads};

pub fn forward<R, F, I, BT>(
    x: Tensor<CubeBackend<R, F, I, BT>, 2>,
    weight: Tensor<CubeBackend<R, F, I, BT>, 2>,
    bias: Tensor<CubeBackend<R, F, I, BT>, 1>,
) -> Tensor<CubeBackend<R, F, I, BT>, 2>
where
    R: CubeRuntime,
    R::Server: cubecl::server::ComputeServer,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    let (x, weight) = (primitive(x), primitive(weight));
    let y = empty(&x, [x.shape()[0], weight.shape()[0]], x.dtype);
    product((x, Side::Rows), (weight, Side::Rows), Some(contiguous(bias)), y.clone(), false);
    tensor(y)
}

/// Adds the weight's and the bias' gradients to their slots.
pub fn add_gradients<R: CubeRuntime>(
    slots: &Slots<R>,
    dy: CubeTensor<R>,
    x: impl Into<Part<R>>,
    weight: MatrixSlot,
    bias: VectorSlot,
) {
    let dweight = slots.at(weight.offset, [weight.rows, weight.cols]);
    product((dy.clone(), Side::Columns), (x, Side::Columns), None, dweight, true);
    let [rows, cols] = [dy.shape()[0], dy.shape()[1]];
    let partial = empty(&dy, [scratch_len(rows, cols)], DType::F32);
    let dbias = slots.at(bias.offset, [bias.len]);
    add_column_sums(slots.client(), [rows, cols], buffer(dy), partial.binding(), dbias.binding());
}

pub fn backward<R, F, I, BT>(
    dy: Tensor<CubeBackend<R, F, I, BT>, 2>,
    x: Tensor<CubeBackend<R, F, I, BT>, 2>,
    weight: Tensor<CubeBackend<R, F, I, BT>, 2>,
    grads: WeightGrads<'_, CubeBackend<R, F, I, BT>>,
) -> Tensor<CubeBackend<R, F, I, BT>, 2>
where
    R: CubeRuntime,
    R::Server: cubecl::server::ComputeServer,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    let (dy, x, weight) = (contiguous(dy), primitive(x), primitive(weight));
    Slots::write(grads.flat, |slots| add_gradients(slots, dy.clone(), x, grads.weight, grads.bias));
    let dx = empty(&dy, [dy.shape()[0], weight.shape()[1]], dy.dtype);
    product((dy, Side::Rows), (weight, Side::Columns), None, dx.clone(), false);
    tensor(dx)
}
