//! Matrix products in CUDA C++ (shaders/cuda), for what CubeCL cannot say: wgmma, and mma.sync with its operands on their
//! way while others are multiplied. CubeCL compiles them and launches them in its own stream.

mod ampere;
mod ampere_blueprint;
mod hopper;
mod hopper_blueprint;
mod setting;
mod task;

use cubecl::ir::FloatKind;
use cubecl::prelude::*;
use cubecl::server::{Binding, KernelArguments};

pub use self::setting::Setting;
use self::task::Form;
use crate::cuda::{self, ALIGN, float};
use crate::device::Buffer;

/// The kernels' choices.
pub mod blueprint {
    pub use super::ampere_blueprint::Blueprint as Ampere;
    pub use super::hopper_blueprint::Blueprint as Hopper;
}

/// Whether a kernel runs on a device.
pub mod available {
    pub use super::ampere::available as ampere;
    pub use super::hopper::available as hopper;
}

/// Rows of a 16-bit matrix without gaps.
pub struct Operand<R: Runtime> {
    pub buffer: Buffer<R>,
    /// Index of the first row's first element.
    pub start: usize,
    pub rows: usize,
    pub cols: usize,
    /// The rows run along k, not along m (or n).
    pub k_rows: bool,
}

/// Where the product goes: row-major, without gaps.
pub struct Destination<R: Runtime> {
    pub buffer: Buffer<R>,
    /// Index of the first element.
    pub start: usize,
    /// Add to what is there instead of overwriting it.
    pub accumulate: bool,
}

impl<R: Runtime> Operand<R> {
    /// Whether its rows can be copied in vectors.
    fn aligned(&self) -> bool {
        let start = self.buffer.binding.handle.offset_start.unwrap_or(0) as usize + self.start * 2;
        start.is_multiple_of(ALIGN) && (self.cols * 2).is_multiple_of(ALIGN)
    }

    fn binding(&self) -> Binding {
        let mut binding = self.buffer.binding.handle.clone();
        binding.offset_start = Some(binding.offset_start.unwrap_or(0) + self.start as u64 * 2);
        binding
    }

    /// Extents along m (or n) and along k.
    fn extents(&self) -> [usize; 2] {
        if self.k_rows { [self.cols, self.rows] } else { [self.rows, self.cols] }
    }
}

/// Columns of a product that turn by their row's position (rotary.rs): pairs (i, i + `half`) of each head.
pub struct Turned<R: Runtime> {
    /// Row r has position r % seq.
    pub seq: usize,
    /// How many turn, whole heads from the first on.
    pub cols: usize,
    pub head_dim: usize,
    pub half: usize,
    /// A row a position, `half` columns, fp32.
    pub cosines: TensorBinding<R>,
    pub sines: TensorBinding<R>,
}

/// Columns that a lane's share of goes to memory at a time: both of a pair have to be among them.
const GROUP: usize = 32;

impl<R: Runtime> Turned<R> {
    fn suits(&self) -> bool {
        let aligned = |table: &TensorBinding<R>| table.handle.offset_start.unwrap_or(0).is_multiple_of(ALIGN as u64);
        self.half.is_multiple_of(8)
            && 2 * self.half <= GROUP
            && self.head_dim.is_multiple_of(GROUP)
            && aligned(&self.cosines)
            && aligned(&self.sines)
    }
}

/// Which of the kernels may be used, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Compute capability 9.0.
    pub hopper: Setting<blueprint::Hopper>,
    /// 8.0 and later, where `hopper` does not make the product.
    pub ampere: Setting<blueprint::Ampere>,
}

/// out[m, n] = sum over k of a[m, k] b[n, k] (+ bias[n]), some columns turned, or added to what `out` holds; fp32 sums.
/// Whether that was launched: not on devices that have neither, nor for operands that are not both fp16 or both bf16, or whose
/// rows are not aligned to 16 bytes; and turned only into vectors of 16 bits, where a lane has both of each pair.
///
/// # Panics
/// If the operands' extents do not fit each other.
#[must_use]
pub fn gemm<R: Runtime>(
    client: &ComputeClient<R>,
    settings: Settings,
    a: &Operand<R>,
    b: &Operand<R>,
    bias: Option<Buffer<R>>,
    turned: Option<Turned<R>>,
    out: Destination<R>,
) -> bool {
    let Some(product) = Product::of(a, b, bias, turned, out) else { return false };
    hopper::launch(client, settings.hopper, [a, b], &product) || ampere::launch(client, settings.ampere, &product)
}

/// A product that the kernels can make.
struct Product {
    m: usize,
    n: usize,
    form: Form,
    /// The operands', the bias' (any where there is none) and the destination's.
    buffers: Vec<Binding>,
    /// What the kernels are told: the sizes and where the output starts.
    numbers: Vec<u64>,
}

impl Product {
    /// `None` for operands that are not both fp16 or both bf16, or whose rows are not aligned.
    ///
    /// # Panics
    /// If the operands' extents do not fit each other.
    fn of<R: Runtime>(
        a: &Operand<R>,
        b: &Operand<R>,
        bias: Option<Buffer<R>>,
        turned: Option<Turned<R>>,
        out: Destination<R>,
    ) -> Option<Self> {
        let ([m, k], [n, b_k]) = (a.extents(), b.extents());
        assert!(k == b_k, "a has {k} terms a sum, b {b_k}");
        let (input, right) = (float(a.buffer.dtype)?, float(b.buffer.dtype)?);
        let output = float(out.buffer.dtype)?;
        let bias_kind = bias.as_ref().map(|bias| float(bias.dtype));
        let few = [m, n, k].iter().all(|size| (1..=i32::MAX as usize / 2).contains(size));
        if input == FloatKind::F32 || input != right || bias_kind == Some(None) {
            return None;
        }
        if !few || !a.aligned() || !b.aligned() {
            return None;
        }
        let vector = if output == FloatKind::F32 { 2 } else { ALIGN / 2 };
        let in_pairs = |bias: &Buffer<R>| bias.binding.handle.offset_start.unwrap_or(0).is_multiple_of(4);
        let form = Form {
            k_rows: [a.k_rows, b.k_rows],
            input,
            output,
            bias: bias_kind.flatten(),
            accumulate: out.accumulate,
            wide: n.is_multiple_of(vector) && out.start.is_multiple_of(vector) && bias.as_ref().is_none_or(in_pairs),
            turned: turned.as_ref().map(|turned| [turned.half, turned.head_dim]),
        };
        let in_vectors = form.wide && output != FloatKind::F32 && !form.accumulate;
        if turned.as_ref().is_some_and(|turned| !in_vectors || !turned.suits()) {
            return None;
        }
        let destination = out.buffer.binding.handle;
        // Without a bias a pointer is still passed, and not read through.
        let bias = bias.map_or_else(|| destination.clone(), |bias| bias.binding.handle);
        let mut buffers = vec![a.binding(), b.binding(), bias, destination];
        let (seq, cols) = turned.as_ref().map_or((1, 0), |turned| (turned.seq, turned.cols));
        buffers.extend(turned.into_iter().flat_map(|Turned { cosines, sines, .. }| [cosines.handle, sines.handle]));
        let numbers = [m, n, k, out.start, seq, cols].map(|number| number as u64).to_vec();
        Some(Self { m, n, form, buffers, numbers })
    }

    fn arguments(&self) -> KernelArguments {
        cuda::arguments(self.buffers.clone(), self.numbers.clone())
    }
}
