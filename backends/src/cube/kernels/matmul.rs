//! Matrix products of burn-cubecl's tensors: which kernel runs on which device.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use burn_tensor::DType;
use cubecl::Runtime;
use cubecl::client::ComputeClient;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::std::InputBinding;
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub use trainer_shaders::cuda_gemm::Turned;
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
use trainer_shaders::cuda_gemm::{self, Setting, Settings};
use trainer_shaders::device::{Buffer, wait_for_room};
use trainer_shaders::epilogue::{self, epilogue};
use trainer_shaders::gemm::{Destination, Operand, gemm};

use super::super::tuning::{self, Multiplier, Routine};
use super::tensor::{binding, buffer, empty, part, slot};
use crate::tuning::Product;

/// Consecutive rows of a row-major matrix. The matrix is bound whole and read from the first of them on, since a row need
/// not start where the device can bind.
#[derive(Clone, Copy)]
pub struct Part<'a, R: CubeRuntime> {
    matrix: &'a CubeTensor<R>,
    first: usize,
    rows: usize,
}

impl<'a, R: CubeRuntime> Part<'a, R> {
    pub fn whole(matrix: &'a CubeTensor<R>) -> Self {
        Self { matrix, first: 0, rows: matrix.meta.shape()[0] }
    }

    pub fn rows(matrix: &'a CubeTensor<R>, first: usize, rows: usize) -> Self {
        Self { matrix, first, rows }
    }

    fn cols(&self) -> usize {
        self.matrix.meta.shape()[1]
    }

    /// The operand's extents along m (or n) and along k.
    fn extents(&self, side: Side) -> [usize; 2] {
        if side == Side::Rows { [self.rows, self.cols()] } else { [self.cols(), self.rows] }
    }

    fn operand(&self, side: Side) -> Operand<R> {
        let cols = self.cols();
        let strides = if side == Side::Rows { [cols, 1] } else { [1, cols] };
        Operand { buffer: buffer(self.matrix), start: self.first * cols, strides }
    }

    #[cfg(all(feature = "cuda", not(target_os = "macos")))]
    fn cuda_operand(&self, side: Side) -> trainer_shaders::cuda_gemm::Operand<R> {
        let cols = self.cols();
        let (buffer, start) = (buffer(self.matrix), self.first * cols);
        trainer_shaders::cuda_gemm::Operand { buffer, start, rows: self.rows, cols, k_rows: side == Side::Columns }
    }

    /// The rows as a tensor of their own: a view where the device can bind them in place, else a copy.
    fn tensor(&self) -> CubeTensor<R> {
        let (cols, align) = (self.cols(), self.matrix.client.properties().memory.alignment as usize);
        if self.rows == self.matrix.meta.shape()[0] {
            self.matrix.clone()
        } else if (self.first * cols * self.matrix.elem_size()).is_multiple_of(align) {
            part(self.matrix, self.first * cols, [self.rows, cols])
        } else {
            burn_cubecl::kernel::slice(self.matrix.clone(), &[self.first..self.first + self.rows, 0..cols])
        }
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

/// Where a product goes: a row-major matrix at `start` of a buffer that nobody else reads meanwhile.
pub struct Out<'a, R: CubeRuntime> {
    tensor: &'a CubeTensor<R>,
    buffer: Buffer<R>,
    start: usize,
    sizes: [usize; 2],
    accumulate: bool,
}

impl<'a, R: CubeRuntime> Out<'a, R> {
    pub fn new(matrix: &'a CubeTensor<R>) -> Self {
        Self::rows(matrix, 0, matrix.meta.shape()[0])
    }

    pub fn rows(matrix: &'a CubeTensor<R>, first: usize, rows: usize) -> Self {
        let cols = matrix.meta.shape()[1];
        let (start, sizes) = (first * cols, [rows, cols]);
        Self { tensor: matrix, buffer: buffer(matrix), start, sizes, accumulate: false }
    }

    /// Added to the matrix at `offset` of a flat buffer.
    pub fn added(flat: &'a CubeTensor<R>, offset: usize, sizes: [usize; 2]) -> Self {
        let (binding, start) = slot(flat, offset, sizes[0] * sizes[1]);
        let buffer = Buffer { binding, dtype: flat.dtype.into() };
        Self { tensor: flat, buffer, start, sizes, accumulate: true }
    }
}

/// The kernel that a product runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Ours: any dtypes, in place, without planes or tensor cores.
    Registers,
    /// cubek's: tensor cores for fp16 and bf16. It only overwrites, so what is added to something (a bias, gradients so far)
    /// is made in a buffer of its own and then goes through our epilogue.
    Cubek,
}

/// Longest fp32 sum that is left to cubek, which makes it in one run: 300,001 terms were 1.9e-4 off. Ours are sums of sums.
const CUBEK_K: usize = 16_384;

/// Whether the device multiplies matrices of fp16 or bf16 as such.
pub fn has_tensor_cores<R: Runtime>(client: &ComputeClient<R>) -> bool {
    !client.properties().features.matmul.cmma.is_empty()
}

/// Blocks of the kernel for compute capability 9.0.
pub fn sharing_blocks<R: Runtime>(client: &ComputeClient<R>) -> Option<usize> {
    #[cfg(all(feature = "cuda", not(target_os = "macos")))]
    if cuda_gemm::available::hopper(client) {
        return client.properties().hardware.num_streaming_multiprocessors.map(|count| count as usize);
    }
    let _ = client;
    None
}

impl Route {
    /// For products of `k` terms whose operands are taken in `dtype`.
    fn of<R: CubeRuntime>(client: &ComputeClient<R>, dtype: DType, k: usize) -> Self {
        if has_tensor_cores(client) && (dtype != DType::F32 || k <= CUBEK_K) { Self::Cubek } else { Self::Registers }
    }
}

/// The dtype that a product on tensor cores takes both operands in: the narrower one.
fn common<R: CubeRuntime>(a: &CubeTensor<R>, b: &CubeTensor<R>) -> DType {
    if a.elem_size() <= b.elem_size() { a.dtype } else { b.dtype }
}

/// out[m, n] = sum over k of a[m, k] b[n, k] (+ bias[n]), or added to what `out` holds; fp32 sums, any float dtypes.
///
/// # Panics
/// If the matrices' sizes do not fit each other.
pub fn product<R: CubeRuntime>(
    a: Part<'_, R>,
    a_side: Side,
    b: Part<'_, R>,
    b_side: Side,
    bias: Option<&CubeTensor<R>>,
    out: Out<'_, R>,
) {
    let Out { tensor, buffer: out, start, sizes: [m, n], accumulate } = out;
    let ([a_m, k], [b_n, b_k]) = (a.extents(a_side), b.extents(b_side));
    assert!(a_m == m && b_n == n && k == b_k, "[{a_m}, {k}] x [{b_n}, {b_k}]^T does not give [{m}, {n}]");
    let client = &tensor.client;
    // Products are the longest kernels, and a few launches apart.
    wait_for_room(client);
    // Of the layer, by which way its operands lie.
    let chosen = match (a_side, b_side) {
        (Side::Rows, Side::Rows) => tuning::multiplier(Product::Forward, [k, n]),
        (Side::Rows, Side::Columns) => tuning::multiplier(Product::InputGrad, [n, k]),
        (Side::Columns, _) => tuning::multiplier(Product::WeightGrad, [n, m]),
    };
    let bias = bias.map(buffer);
    #[cfg(all(feature = "cuda", not(target_os = "macos")))]
    if let Some(settings) = cuda_settings(chosen) {
        let to = cuda_gemm::Destination { buffer: out.clone(), start, accumulate };
        if cuda_gemm::gemm(client, settings, &a.cuda_operand(a_side), &b.cuda_operand(b_side), bias.clone(), None, to) {
            return;
        }
        if chosen.is_some() {
            tuning::refuse();
        }
    }
    let (route, routine) = match chosen {
        Some(Multiplier::Registers) => (Route::Registers, None),
        Some(Multiplier::Cubek(routine)) => (Route::Cubek, Some(routine)),
        Some(Multiplier::Wgmma(_) | Multiplier::Mma(_)) | None => {
            (Route::of(client, common(a.matrix, b.matrix), k), None)
        }
    };
    match route {
        Route::Registers => {
            let out = Destination { buffer: out, start, row_stride: n, accumulate };
            gemm(client, [m, n, k], a.operand(a_side), b.operand(b_side), bias, out);
        }
        Route::Cubek if m * n == 0 => {}
        Route::Cubek => {
            let align = client.properties().memory.alignment as usize;
            if bias.is_none() && !accumulate && (start * tensor.elem_size()).is_multiple_of(align) {
                return cubek_product(a, a_side, b, b_side, routine, &part(tensor, start, [m, n]));
            }
            let product = empty(tensor, [m, n], DType::F32);
            cubek_product(a, a_side, b, b_side, routine, &product);
            let destination = epilogue::Destination { buffer: out, start, accumulate };
            epilogue(client, [m, n], binding(&product), bias, destination);
        }
    }
}

/// Which kernels in CUDA C++ may make a product; none where another is chosen.
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
fn cuda_settings(chosen: Option<Multiplier>) -> Option<Settings> {
    let off = Settings { hopper: Setting::Off, ampere: Setting::Off };
    match chosen {
        Some(Multiplier::Wgmma(blueprint)) => Some(Settings { hopper: blueprint.parse().unwrap_or_default(), ..off }),
        Some(Multiplier::Mma(blueprint)) => Some(Settings { ampere: blueprint.parse().unwrap_or_default(), ..off }),
        Some(_) => None,
        None => Some(crate::tensor_cores::settings()),
    }
}

/// x W^T + b whose columns turn on their way to memory, all of one dtype. Whether that was launched: else nothing was.
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub fn turned_product<R: CubeRuntime>(
    x: Part<'_, R>,
    weight: Part<'_, R>,
    bias: &CubeTensor<R>,
    turned: Turned<R>,
    out: Out<'_, R>,
) -> bool {
    let Out { tensor, buffer: to, start, sizes: [_, n], accumulate } = out;
    let chosen = tuning::multiplier(Product::Forward, [x.cols(), n]);
    let Some(settings) = cuda_settings(chosen) else { return false };
    let [a, b] = [x, weight].map(|operand| operand.cuda_operand(Side::Rows));
    let to = cuda_gemm::Destination { buffer: to, start, accumulate };
    cuda_gemm::gemm(&tensor.client, settings, &a, &b, Some(buffer(bias)), Some(turned), to)
}

/// Whether products with operands of `dtype` take the other operand in that dtype only: cubek would cast fp32 for each of them.
pub fn narrows<R: CubeRuntime>(client: &ComputeClient<R>, dtype: DType) -> bool {
    dtype != DType::F32 && Route::of(client, dtype, 0) == Route::Cubek
}

/// Writes the product, summed in fp32, into the contiguous `out` `[m, n]`.
///
/// Simple kernels only: cubek's double-unit ones give wrong results on an odd number of k-stages (tracel-ai/burn issue
/// 5626). fp32 stays on units, since tensor cores would round it to TF32. Operands of two dtypes (fp32 gradients of
/// logits, fp16 weights) are brought to the narrower one, as PyTorch's autocast has them.
///
/// `chosen` comes first, where it takes these operands.
fn cubek_product<R: CubeRuntime>(
    a: Part<'_, R>,
    a_side: Side,
    b: Part<'_, R>,
    b_side: Side,
    chosen: Option<Routine>,
    out: &CubeTensor<R>,
) {
    let (a, b) = (a.tensor(), b.tensor());
    let dtype = common(&a, &b);
    let [mut lhs, mut rhs] = [a, b].map(|x| if x.dtype == dtype { x } else { burn_cubecl::kernel::cast(x, dtype) });
    // Transposed by strides alone: nothing is copied.
    if a_side == Side::Columns {
        lhs.meta.swap(0, 1);
    }
    if b_side == Side::Rows {
        rhs.meta.swap(0, 1);
    }
    let globals = MatmulGlobalElems { lhs: dtype.into(), rhs: dtype.into(), out: out.dtype.into() };
    // A routine that does not suit the shape or the dtype says so before it launches anything.
    let launch = |routine: Routine| {
        let [lhs, rhs] = [&lhs, &rhs].map(|x| InputBinding::new(binding(x), dtype.into()));
        launch_ref(&routine.strategy(), &out.client, lhs, rhs, binding(out), &mut MatmulElems::from_globals(&globals))
    };
    let k = lhs.meta.shape()[1];
    let suits = |routine: Routine| routine.takes(dtype, k) && launch(routine).is_ok();
    if let Some(chosen) = chosen {
        if suits(chosen) {
            return;
        }
        tuning::refuse();
    }
    let tensor_cores = has_tensor_cores(&out.client) && suits(Routine::SimpleCyclicCmma);
    if !tensor_cores {
        #[expect(
            clippy::panic,
            reason = "burn's operations return no errors; the program ends as failed, as for a lost device"
        )]
        launch(Routine::SimpleUnit)
            .unwrap_or_else(|error| panic!("no matrix product of this device takes {dtype:?}: {error:?}"));
    }
}
