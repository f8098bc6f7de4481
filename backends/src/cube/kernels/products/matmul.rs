//! Matrix products of burn-cubecl's tensors: which kernel runs on which device.

use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use burn_tensor::DType;
use cubecl::client::ComputeClient;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::{Strategy, launch_ref};
use cubek::std::InputBinding;
use trainer_shaders::epilogue::epilogue;
use trainer_shaders::gemm::{Destination, Operand, gemm};

use super::tensor::{buffer, can_view, empty, view};

/// Consecutive rows of a matrix. The matrix is bound whole and read from the first of them on, since a row need not
/// start where the device can bind.
pub struct Part<R: CubeRuntime> {
    pub matrix: CubeTensor<R>,
    pub first: usize,
    pub rows: usize,
}

impl<R: CubeRuntime> From<CubeTensor<R>> for Part<R> {
    fn from(matrix: CubeTensor<R>) -> Self {
        Self { first: 0, rows: matrix.shape()[0], matrix }
    }
}

/// Which way an operand lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The operand's m (or n) runs down the rows, k along them: x in x W^T.
    Rows,
    /// The operand's m (or n) runs along the rows, k down them: dy in dy^T x.
    Columns,
}

/// The operand's extents along m (or n) and along k.
fn extents<R: CubeRuntime>(part: &Part<R>, side: Side) -> [usize; 2] {
    let (rows, cols) = (part.rows, part.matrix.shape()[1]);
    if side == Side::Rows { [rows, cols] } else { [cols, rows] }
}

/// Where the operand's elements are.
fn operand<R: CubeRuntime>(part: Part<R>, side: Side) -> Operand<R> {
    let (row, column) = (part.matrix.meta.strides()[0], part.matrix.meta.strides()[1]);
    let strides = if side == Side::Rows { [row, column] } else { [column, row] };
    Operand { buffer: buffer(part.matrix), start: part.first * row, strides }
}

/// The kernel that a product runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Ours: any dtypes, in place, without planes or tensor cores.
    Registers,
    /// cubek's, in a buffer of its own and then through our epilogue: tensor cores for fp16 and bf16.
    Cubek,
}

impl Route {
    /// cubek's where there are tensor cores; its unit kernels on planes lose to our registers without (CUBECL.md's
    /// figures), and fp32 stays fp32 (its tensor-core kernels would round it to TF32).
    pub fn of<R: CubeRuntime>(client: &ComputeClient<R>) -> Self {
        if client.properties().features.matmul.cmma.is_empty() { Self::Registers } else { Self::Cubek }
    }
}

/// out[m, n] = sum over k of a[m, k] b[n, k] (+ bias[n]), added to what `out` holds if `accumulate`; fp32 sums, any
/// float dtypes. `out` is row-major and nobody else's.
///
/// # Panics
/// If the matrices' sizes do not fit each other.
pub fn product<R: CubeRuntime>(
    a: (impl Into<Part<R>>, Side),
    b: (impl Into<Part<R>>, Side),
    bias: Option<CubeTensor<R>>,
    out: impl Into<Part<R>>,
    accumulate: bool,
) {
    let (a, b, out) = ((a.0.into(), a.1), (b.0.into(), b.1), out.into());
    let route = Route::of(&out.matrix.client);
    product_on(route, a, b, bias, out, accumulate);
}

fn product_on<R: CubeRuntime>(
    route: Route,
    (a, a_side): (Part<R>, Side),
    (b, b_side): (Part<R>, Side),
    bias: Option<CubeTensor<R>>,
    out: Part<R>,
    accumulate: bool,
) {
    let client = out.matrix.client.clone();
    let (m, n) = (out.rows, out.matrix.shape()[1]);
    let ([a_m, k], [b_n, b_k]) = (extents(&a, a_side), extents(&b, b_side));
    assert!(a_m == m && b_n == n && k == b_k, "[{a_m}, {k}] x [{b_n}, {b_k}]^T does not give [{m}, {n}]");
    if m * n == 0 {
        return;
    }
    let start = out.first * n;
    let bias = bias.map(buffer);
    match route {
        Route::Registers => {
            let (a, b) = (operand(a, a_side), operand(b, b_side));
            gemm(
                &client,
                [m, n, k],
                a,
                b,
                bias,
                Destination { buffer: buffer(out.matrix), start, row_stride: n, accumulate },
            );
        }
        Route::Cubek => {
            let product = cubek_product((a, a_side), (b, b_side), [m, n]);
            epilogue(&client, [m, n], product.binding(), bias, buffer(out.matrix), start, accumulate);
        }
    }
}

/// The part's rows as a tensor of their own: a view where the device can bind them in place, else a copy.
fn rows<R: CubeRuntime>(part: Part<R>) -> CubeTensor<R> {
    let Part { matrix, first, rows } = part;
    if rows == matrix.shape()[0] {
        return matrix;
    }
    let cols = matrix.shape()[1];
    if can_view(&matrix, first * cols) {
        return view(&matrix, first * cols, [rows, cols]);
    }
    burn_cubecl::kernel::slice(matrix, &[first..first + rows, 0..cols])
}

/// Rows and columns exchanged, by strides alone.
fn transposed<R: CubeRuntime>(mut matrix: CubeTensor<R>) -> CubeTensor<R> {
    matrix.meta.swap(0, 1);
    matrix
}

/// The product in a new fp32 `[m, n]`.
///
/// Simple kernels only: cubek's double-unit ones give wrong results on an odd number of k-stages (tracel-ai/burn issue
/// 5626). Operands of two dtypes (fp32 gradients of logits, fp16 weights) are brought to the narrower one, as PyTorch's
/// autocast has them.
fn cubek_product<R: CubeRuntime>(
    (a, a_side): (Part<R>, Side),
    (b, b_side): (Part<R>, Side),
    shape: [usize; 2],
) -> CubeTensor<R> {
    let (a, b) = (rows(a), rows(b));
    let dtype = if a.dtype.size() <= b.dtype.size() { a.dtype } else { b.dtype };
    let [a, b] =
        [a, b].map(|matrix| if matrix.dtype == dtype { matrix } else { burn_cubecl::kernel::cast(matrix, dtype) });
    let lhs = if a_side == Side::Rows { a } else { transposed(a) };
    let rhs = if b_side == Side::Rows { transposed(b) } else { b };
    let out = empty(&lhs, shape, DType::F32);
    let globals = MatmulGlobalElems { lhs: dtype.into(), rhs: dtype.into(), out: DType::F32.into() };
    let launch = |strategy: Strategy| {
        let mut dtypes = MatmulElems::from_globals(&globals);
        let [lhs, rhs] = [&lhs, &rhs].map(|matrix| InputBinding::new(matrix.clone().binding(), dtype.into()));
        launch_ref(&strategy, &out.client, lhs, rhs, out.clone().binding(), &mut dtypes)
    };
    let tensor_cores = dtype != DType::F32 && launch(Strategy::SimpleCyclicCmma(Default::default())).is_ok();
    if !tensor_cores {
        launch(Strategy::SimpleUnit(Default::default()))
            .unwrap_or_else(|error| panic!("no matrix product of this device takes {shape:?} in {dtype:?}: {error:?}"));
    }
    out
}
