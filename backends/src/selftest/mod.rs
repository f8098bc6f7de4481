//! Every kernel of a backend against the plain-tensor reference in fp32, on fresh random inputs.
//!
//! The oracle gets the very values that the kernel gets, already rounded to the kernel's dtype, so what differs is the
//! order of fp32 sums and the last rounding. Gradients are added to buffers that are not zero; memory that a kernel must
//! overwrite is filled with NaN first.

mod activations;
mod attention;
mod decode;
mod embedding;
mod linear;
mod loss;
mod norm;
mod optimizer;
mod residual_norm;

use burn_flex::Flex;
use burn_tensor::{DType, Int, Tensor, TensorData};

use crate::dropout::{Dropout, mix64};
use crate::ops::{BlockDims, DecoderBackend};

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The trait's method, and which of its results.
    pub op: &'static str,
    /// Of the inputs.
    pub dtype: DType,
    pub shape: String,
    /// L2 norm of the difference over that of the expected values; infinite where a value is not finite.
    pub error: f64,
    pub tolerance: f64,
}

impl Case {
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// The largest relative error of a result in `dtype`.
///
/// fp32: sums of up to some thousand terms in another order, and each device's own tanh and square root. fp16 and bf16:
/// the rounding of the result, at most 2^-11 and 2^-8 of each value, and its rounding to the other neighbour where the
/// fp32 values differ.
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 1e-3,
        DType::BF16 => 8e-3,
        _ => 1e-5,
    }
}

/// Sizes that are multiples of nothing, and sizes that suit vectors.
const DIMS: [BlockDims; 2] = [
    BlockDims { batch: 2, seq: 19, heads: 3, head_dim: 10, rotary_dim: 6, mlp: 37 },
    BlockDims { batch: 2, seq: 33, heads: 2, head_dim: 64, rotary_dim: 32, mlp: 512 },
];

/// Operations that are run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Norm,
    Activations,
    Embedding,
    Optimizer,
    Linear,
    Products,
    Loss,
    Attention,
    /// Whole blocks of 64 tokens, heads of 64.
    AttentionBlocks,
    Decode,
}

impl Group {
    pub const ALL: [Self; 10] = [
        Self::Norm,
        Self::Activations,
        Self::Embedding,
        Self::Optimizer,
        Self::Linear,
        Self::Products,
        Self::Loss,
        Self::Attention,
        Self::AttentionBlocks,
        Self::Decode,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Norm => "norm",
            Self::Activations => "activations",
            Self::Embedding => "embedding",
            Self::Optimizer => "optimizer",
            Self::Linear => "linear",
            Self::Products => "products",
            Self::Loss => "loss",
            Self::Attention => "attention",
            Self::AttentionBlocks => "attention-blocks",
            Self::Decode => "decode",
        }
    }
}

/// Runs a group's kernels with inputs in `dtype`, which the device must support; the inputs follow from `seed`.
pub fn run<B: DecoderBackend>(device: &B::Device, group: Group, dtype: DType, seed: u64) -> Vec<Case> {
    let mut bench = Bench::<B> { device: device.clone(), dtype, state: mix64(seed), cases: Vec::new() };
    match group {
        Group::Norm => {
            norm::run(&mut bench);
            residual_norm::run(&mut bench);
        }
        Group::Activations => activations::run(&mut bench),
        Group::Embedding => embedding::run(&mut bench),
        Group::Optimizer => optimizer::run(&mut bench),
        Group::Linear => linear::run(&mut bench),
        Group::Products => linear::products(&mut bench),
        Group::Loss => loss::run(&mut bench),
        Group::Attention => attention::run(&mut bench),
        Group::AttentionBlocks => attention::blocks(&mut bench),
        Group::Decode => decode::run(&mut bench),
    }
    bench.cases
}

/// Draws inputs, and keeps what was compared.
struct Bench<B: DecoderBackend> {
    device: B::Device,
    dtype: DType,
    state: u64,
    cases: Vec<Case>,
}

impl<B: DecoderBackend> Bench<B> {
    fn uniform(&mut self) -> f64 {
        self.state = mix64(self.state);
        (self.state >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normal values (Box and Muller), rounded to `dtype`: for the kernel in that dtype, for the oracle in fp32.
    fn draw<const D: usize>(&mut self, shape: [usize; D], dtype: DType) -> (Tensor<B, D>, Tensor<Flex, D>) {
        let len = shape.iter().product();
        let values: Vec<f32> = (0..len)
            .map(|_| {
                let (radius, turn) = ((1.0 - self.uniform()).ln() * -2.0, self.uniform());
                (radius.sqrt() * (std::f64::consts::TAU * turn).cos()) as f32
            })
            .collect();
        let data = TensorData::new(values, shape).convert_dtype(dtype);
        let oracle = Tensor::from_data(data.clone().convert_dtype(DType::F32), (&Default::default(), DType::F32));
        (Tensor::from_data(data, (&self.device, dtype)), oracle)
    }

    fn ints(&self, values: Vec<i32>) -> (Tensor<B, 1, Int>, Tensor<Flex, 1, Int>) {
        let data = TensorData::new(values.clone(), [values.len()]);
        (
            Tensor::from_data(data.clone(), (&self.device, DType::I32)),
            Tensor::from_data(data, (&Default::default(), DType::I32)),
        )
    }

    fn scalar(&self, value: f32) -> Tensor<B, 1> {
        Tensor::from_data([value], (&self.device, DType::F32))
    }

    fn nan<const D: usize>(&self, shape: [usize; D], dtype: DType) -> Tensor<B, D> {
        Tensor::full(shape, f32::NAN, (&self.device, dtype))
    }

    /// Leaves NaN in memory that the device's allocator is likely to hand out next.
    fn poison<const D: usize>(&self, shape: [usize; D], dtype: DType) {
        let filled = [(); 3].map(|()| self.nan(shape, dtype));
        drop(filled.map(Tensor::into_data));
    }

    /// Compares a result; its own dtype decides the tolerance.
    fn compare<const D: usize>(
        &mut self,
        op: &'static str,
        shape: &str,
        found: Tensor<B, D>,
        expected: Tensor<Flex, D>,
    ) {
        let dtype = found.dtype();
        self.compare_rounded(op, shape, dtype, found, expected);
    }

    /// Compares a result that was computed from values rounded to `dtype`, wider as it may be itself.
    fn compare_rounded<const D: usize>(
        &mut self,
        op: &'static str,
        shape: &str,
        dtype: DType,
        found: Tensor<B, D>,
        expected: Tensor<Flex, D>,
    ) {
        let tolerance = tolerance(dtype);
        let error = relative_error(&host(found), &host(expected));
        self.cases.push(Case { op, dtype: self.dtype, shape: shape.into(), error, tolerance });
    }
}

fn host<B: DecoderBackend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    #[expect(clippy::expect_used, reason = "converted on the same line")]
    tensor.into_data().convert_dtype(DType::F32).into_vec().expect("just converted to fp32")
}

fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() || found.iter().any(|value| !value.is_finite()) {
        return f64::INFINITY;
    }
    let square = |value: f64| value * value;
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = expected.iter().map(|value| square(f64::from(*value))).sum();
    (difference / norm.max(f64::MIN_POSITIVE)).sqrt()
}

fn label(dims: BlockDims) -> String {
    let BlockDims { batch, seq, heads, head_dim, rotary_dim, mlp } = dims;
    format!("{batch} x {seq}, {heads} heads of {head_dim}, rotary {rotary_dim}, MLP {mlp}")
}

/// Without dropout and with it, in the middle of a global batch.
fn dropouts() -> [Option<Dropout>; 2] {
    [None, Dropout::new(0.3, 11, 5, 40).map(|dropout| dropout.at_layer(2))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_and_nan_is_never_small() {
        assert_eq!(relative_error(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert!((relative_error(&[3.0, 4.5], &[3.0, 4.0]) - 0.1).abs() < 1e-12);
        assert_eq!(relative_error(&[f32::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(relative_error(&[1.0], &[1.0, 2.0]), f64::INFINITY);
    }

    /// The CPU's own loops pass, so a failure elsewhere is not the oracle's.
    #[test]
    fn the_cpu_agrees_with_the_reference() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for group in Group::ALL {
                for case in run::<Flex>(&Default::default(), group, dtype, 3) {
                    assert!(case.passed(), "{case:?}");
                }
            }
        }
    }
}
