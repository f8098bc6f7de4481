use burn_backend::Backend;
use burn_tensor::Tensor;

use super::{accumulate, assign_columns, wide};
use crate::ops::{BiasGrad, BlockDims, WeightGrads};

/// y = x W^T + b.
pub fn linear<B: Backend>(x: Tensor<B, 2>, weight: Tensor<B, 2>, bias: Tensor<B, 1>) -> Tensor<B, 2> {
    let dtype = x.dtype();
    (wide(x).matmul(wide(weight).transpose()) + wide(bias).unsqueeze::<2>()).cast(dtype)
}

/// dW += dy^T x, db += the column sums of dy, as many as the bias' slot has.
pub fn linear_weight_grad<B: Backend>(dy: Tensor<B, 2>, x: Tensor<B, 2>, grads: WeightGrads<'_, B>) {
    let dy = wide(dy);
    let (rows, cols) = (dy.dims()[1], x.dims()[1]);
    let dweight = dy.clone().transpose().matmul(wide(x));
    accumulate(grads.flat, grads.weight.offset, dweight.reshape([rows * cols]));
    if grads.bias.len > 0 {
        let sums = dy.sum_dim(0).reshape([rows]).slice([0..grads.bias.len]);
        accumulate(grads.flat, grads.bias.offset, sums);
    }
}

/// db += the column sums of `sums` `[S, C]`.
pub fn bias_grad<B: Backend>(sums: Tensor<B, 2>, grad: BiasGrad<'_, B>) {
    let sums = wide(sums).sum_dim(0).reshape([grad.bias.len]);
    accumulate(grad.flat, grad.bias.offset, sums);
}

/// dx = dy W.
pub fn linear_input_grad<B: Backend>(dy: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
    let dtype = dy.dtype();
    wide(dy).matmul(wide(weight)).cast(dtype)
}

/// Both of them.
pub fn linear_backward<B: Backend>(
    dy: Tensor<B, 2>,
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    grads: WeightGrads<'_, B>,
) -> Tensor<B, 2> {
    linear_weight_grad(dy.clone(), x, grads);
    linear_input_grad(dy, weight)
}

/// sqrt(2 / pi) and the cubic coefficient of GELU's tanh form (Hendrycks and Gimpel; `gelu_new` in transformers).
const GELU: (f64, f64) = (0.797_884_560_802_865_4, 0.044_715);

fn fc1_columns<B: Backend>(fused: Tensor<B, 2>, dims: BlockDims) -> Tensor<B, 2> {
    let start = 3 * dims.hidden();
    wide(fused.slice([0..dims.tokens(), start..start + dims.mlp]))
}

/// 0.5 u (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3))).
pub fn gelu<B: Backend>(fused: Tensor<B, 2>, dims: BlockDims) -> Tensor<B, 2> {
    let dtype = fused.dtype();
    let u = fc1_columns(fused, dims);
    let cube = u.clone() * u.clone() * u.clone();
    let tanh = ((u.clone() + cube * GELU.1) * GELU.0).tanh();
    (u * (tanh + 1.0) * 0.5).cast(dtype)
}

pub fn gelu_backward<B: Backend>(
    dh: Tensor<B, 2>,
    fused: Tensor<B, 2>,
    dims: BlockDims,
    into: Tensor<B, 2>,
    grad: BiasGrad<'_, B>,
) -> Tensor<B, 2> {
    let u = fc1_columns(fused, dims);
    let square = u.clone() * u.clone();
    let tanh = ((square.clone() * u.clone() * GELU.1 + u.clone()) * GELU.0).tanh();
    let sech2 = (tanh.clone() * tanh.clone()).neg() + 1.0;
    let inner = (square * (3.0 * GELU.1) + 1.0) * GELU.0;
    let slope = (tanh + 1.0) * 0.5 + u * sech2 * inner * 0.5;
    let du = wide(dh) * slope;
    accumulate(grad.flat, grad.bias.offset, du.clone().sum_dim(0).reshape([dims.mlp]));
    assign_columns(into, 3 * dims.hidden(), du)
}
