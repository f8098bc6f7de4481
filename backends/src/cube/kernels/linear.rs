//! A linear layer: y = x W^T + b, dx = dy W, dW += dy^T x, db += the column sums of dy, as many as the
//! bias' slot has.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use burn_tensor::{DType, Tensor};
use trainer_shaders::column_sums::{Sums, add_column_sums, add_partials, scratch_len};
use trainer_shaders::few_rows::{FEW_ROWS, few_rows};

use super::matmul::{Out, Part, Side, product};
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
use super::matmul::{Turned, turned_product};
use super::rotary::rotary;
use super::tensor::{CubeTensors, binding, buffer, cube, empty, float, modify, slot};
use crate::ops::{BiasGrad, BlockDims, MatrixSlot, RotaryTable, Turn, VectorSlot, WeightGrads};

pub fn forward<R: CubeRuntime, B: CubeTensors<R>>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
) -> Tensor<B, 2> {
    let sizes = [x.dims()[0], weight.dims()[0]];
    let (x, weight, bias) = (cube(x), cube(weight), cube(bias));
    let y = empty(&x, sizes, x.dtype);
    if sizes[0] <= FEW_ROWS && x.dtype == weight.dtype && x.dtype == bias.dtype {
        let [rows, outputs] = sizes;
        let k = weight.meta.shape()[1];
        few_rows(&x.client, [rows, outputs, k], buffer(&x), buffer(&weight), buffer(&bias), buffer(&y), None);
        return float(y);
    }
    product(Part::whole(&x), Side::Rows, Part::whole(&weight), Side::Rows, Some(&bias), Out::new(&y));
    float(y)
}

/// As `forward`, to `[N, W]` whose q and k then turn: in the product where its kernel does that.
pub fn rotary_forward<R: CubeRuntime, B: CubeTensors<R>>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    table: &RotaryTable<B>,
    dims: BlockDims,
) -> Tensor<B, 2> {
    #[cfg(all(feature = "cuda", not(target_os = "macos")))]
    if x.dims()[0] > FEW_ROWS && dims.rotary_dim > 0 && has_own_products(&cube(x.clone())) {
        let [x, weight] = [&x, &weight].map(|matrix| cube(matrix.clone()));
        let (bias, cos, sin) = (cube(bias.clone()), cube(table.cos.clone()), cube(table.sin.clone()));
        let y = empty(&x, [dims.tokens(), dims.fused()], x.dtype);
        let turned = Turned {
            seq: dims.seq,
            cols: 2 * dims.hidden(),
            head_dim: dims.head_dim,
            half: dims.rotary_dim / 2,
            cosines: binding(&cos),
            sines: binding(&sin),
        };
        if turned_product(Part::whole(&x), Part::whole(&weight), &bias, turned, Out::new(&y)) {
            return float(y);
        }
    }
    rotary(forward(x, weight, bias), table, dims, Turn::Forward)
}

/// Whether products in CUDA C++ may be made of a tensor: of its device and dtype.
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
fn has_own_products<R: CubeRuntime>(x: &CubeTensor<R>) -> bool {
    x.dtype != DType::F32 && trainer_shaders::cuda_gemm::available::ampere(&x.client)
}

/// Adds the weight's and the bias' gradients to their slots of `flat`.
pub fn add_gradients<R: CubeRuntime>(
    flat: &CubeTensor<R>,
    dy: &CubeTensor<R>,
    x: Part<'_, R>,
    weight: MatrixSlot,
    bias: VectorSlot,
) {
    let MatrixSlot { offset, rows, cols } = weight;
    product(Part::whole(dy), Side::Columns, x, Side::Columns, None, Out::added(flat, offset, [rows, cols]));
    if bias.len > 0 {
        add_bias_gradient(flat, dy, bias);
    }
}

/// Adds the sums of the matrix' first columns to their slot of `flat`.
fn add_bias_gradient<R: CubeRuntime>(flat: &CubeTensor<R>, dy: &CubeTensor<R>, bias: VectorSlot) {
    let [rows, row] = [dy.meta.shape()[0], dy.meta.shape()[1]];
    let partial = empty(dy, [scratch_len([rows, bias.len])], DType::F32);
    let sums = Sums { partial: binding(&partial), out: slot(flat, bias.offset, bias.len) };
    add_column_sums(&dy.client, [rows, bias.len], row, buffer(dy), sums);
}

/// Rows that are added up in one stage.
const FEW_SUMS: usize = 2048;

pub fn bias_grad<R: CubeRuntime, B: CubeTensors<R>>(sums: Tensor<B, 2>, grad: BiasGrad<'_, B>) {
    let (sizes, sums, bias) = (sums.dims(), cube(sums), grad.bias);
    modify(grad.flat, |flat| {
        if sizes[0] <= FEW_SUMS && sums.dtype == DType::F32 {
            add_partials(&sums.client, binding(&sums), 0, sizes, slot(flat, bias.offset, bias.len));
        } else {
            add_bias_gradient(flat, &sums, bias);
        }
    });
}

pub fn weight_grad<R: CubeRuntime, B: CubeTensors<R>>(dy: Tensor<B, 2>, x: Tensor<B, 2>, grads: WeightGrads<'_, B>) {
    let (dy, x) = (cube(dy), cube(x));
    modify(grads.flat, |flat| add_gradients(flat, &dy, Part::whole(&x), grads.weight, grads.bias));
}

pub fn input_grad<R: CubeRuntime, B: CubeTensors<R>>(dy: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
    let sizes = [dy.dims()[0], weight.dims()[1]];
    let (dy, weight) = (cube(dy), cube(weight));
    let dx = empty(&dy, sizes, dy.dtype);
    product(Part::whole(&dy), Side::Rows, Part::whole(&weight), Side::Columns, None, Out::new(&dx));
    float(dx)
}
