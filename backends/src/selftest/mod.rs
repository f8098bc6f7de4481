//! Every operation of a backend against the plain-tensor reference, on fresh random inputs.
//!
//! The reference runs on burn-flex in fp32 from the same inputs, rounded to the dtype under test first. Outputs are taken
//! where freed memory is full of NaN, gradients are added to buffers that are not zero, and whole flat buffers are compared,
//! so that what a kernel leaves out or writes beside its slot is seen.

mod activations;
mod embedding;
mod norm;
mod optimizer;

use burn_flex::Flex;
use burn_tensor::{DType, Int, Tensor, TensorData};
use serde::Serialize;

use crate::DecoderBackend;
use crate::dropout::{Dropout, mix64};
use crate::ops::BlockDims;

/// One comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Case {
    pub op: String,
    pub dtype: String,
    pub shape: String,
    /// |found - expected| / |expected|, in the Euclidean norm over all elements; NaN where anything found is not finite.
    pub error: f64,
    pub tolerance: f64,
}

impl Case {
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Sums of up to a few thousand fp32 terms in two orders.
const TOLERANCE_F32: f64 = 2e-5;
/// One rounding to 11 bits on each side, where neighbouring values may fall to either.
const TOLERANCE_F16: f64 = 1e-3;
/// The same with 8 bits.
const TOLERANCE_BF16: f64 = 8e-3;

/// What a backend's result in `dtype` may differ from the reference's.
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => TOLERANCE_F16,
        DType::BF16 => TOLERANCE_BF16,
        _ => TOLERANCE_F32,
    }
}

/// Runs every comparison on `device` in `dtypes`; the same `seed` gives the same inputs.
pub fn run<B: DecoderBackend>(device: &B::Device, dtypes: &[DType], seed: u64) -> Vec<Case> {
    let mut cases = Vec::new();
    for &dtype in dtypes {
        let mut bench = Bench::<B> { device: device.clone(), dtype, state: seed, cases: Vec::new() };
        norm::run(&mut bench);
        activations::run(&mut bench);
        embedding::run(&mut bench);
        optimizer::run(&mut bench);
        cases.append(&mut bench.cases);
    }
    cases
}

/// Makes inputs on both backends and collects the comparisons.
struct Bench<B: DecoderBackend> {
    device: B::Device,
    /// Of weights and activations.
    dtype: DType,
    state: u64,
    cases: Vec<Case>,
}

/// The same values on the backend under test and on the reference's.
#[derive(Clone)]
struct Pair<B: DecoderBackend, const D: usize> {
    tested: Tensor<B, D>,
    reference: Tensor<Flex, D>,
}

impl<B: DecoderBackend> Bench<B> {
    /// Uniform in [-1, 1).
    fn draw(&mut self) -> f32 {
        self.state = self.state.wrapping_add(1);
        (mix64(self.state) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Random values in `dtype`.
    fn random_as<const D: usize>(&mut self, shape: [usize; D], dtype: DType) -> Pair<B, D> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.draw()).collect();
        self.pair(TensorData::new(values, shape), dtype)
    }

    /// The same values on both sides, rounded to `dtype`.
    fn pair<const D: usize>(&self, data: TensorData, dtype: DType) -> Pair<B, D> {
        let reference = Tensor::<Flex, D>::from_data(data, (&Default::default(), DType::F32)).cast(dtype);
        let tested = Tensor::from_data(reference.clone().into_data(), (&self.device, dtype));
        Pair { tested, reference }
    }

    /// Random values rounded to `dtype`, widened again for the reference, whose results are then not rounded.
    fn random_wide<const D: usize>(&mut self, shape: [usize; D], dtype: DType) -> (Tensor<B, D>, Tensor<Flex, D>) {
        let Pair { tested, reference } = self.random_as(shape, dtype);
        (tested, reference.cast(DType::F32))
    }

    /// A random number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.state = self.state.wrapping_add(1);
        (mix64(self.state) % limit as u64) as usize
    }

    /// The same ids on both sides.
    fn ints(&self, ids: Vec<i32>) -> (Tensor<B, 1, Int>, Tensor<Flex, 1, Int>) {
        let data = TensorData::from(&ids[..]);
        let tested = Tensor::from_data(data.clone(), (&self.device, DType::I32));
        (tested, Tensor::from_data(data, (&Default::default(), DType::I32)))
    }

    fn nan<const D: usize>(&self, shape: [usize; D], dtype: DType) -> Tensor<B, D> {
        Tensor::full(shape, f32::NAN, (&self.device, dtype))
    }

    /// Fills memory of these sizes with NaN and frees it, so that results that are not written are not finite.
    fn poison(&self, lens: &[usize], dtype: DType) {
        for &len in lens {
            let _ = Tensor::<B, 1>::full([len], f32::NAN, (&self.device, dtype));
        }
        // A device that cannot be waited for says so at the next read-back, where it is reported.
        let _ = B::sync(&self.device);
    }

    /// Notes how far `found` is from `expected`.
    fn compare<const D: usize>(&mut self, op: &str, shape: &str, found: Tensor<B, D>, expected: Tensor<Flex, D>) {
        let tolerance = tolerance(found.dtype());
        let error = relative_error(&host(found), &host(expected));
        self.note(op, shape, error, tolerance);
    }

    fn note(&mut self, op: &str, shape: &str, error: f64, tolerance: f64) {
        let (op, shape) = (op.into(), shape.into());
        self.cases.push(Case { op, dtype: format!("{:?}", self.dtype).to_lowercase(), shape, error, tolerance });
    }
}

fn host<B: DecoderBackend, const D: usize>(x: Tensor<B, D>) -> Vec<f32> {
    x.into_data().convert::<f32>().into_vec().expect("the data were just converted to f32")
}

fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len(), "the result has another size than the reference's");
    if found.iter().any(|x| !x.is_finite()) {
        return f64::NAN;
    }
    let square = |x: f64| x * x;
    let difference: f64 = found.iter().zip(expected).map(|(f, e)| square(f64::from(*f) - f64::from(*e))).sum();
    let norm: f64 = expected.iter().map(|e| square(f64::from(*e))).sum();
    // A gradient that is zero in exact arithmetic is compared absolutely.
    (difference / norm.max(1e-12)).sqrt()
}

/// Sizes that are multiples of nothing, and sizes that suit vectors.
const DIMS: [BlockDims; 2] = [
    BlockDims { batch: 2, seq: 19, heads: 3, head_dim: 10, rotary_dim: 6, mlp: 37 },
    BlockDims { batch: 2, seq: 33, heads: 2, head_dim: 64, rotary_dim: 32, mlp: 512 },
];

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
    fn a_wrong_or_missing_element_is_an_error() {
        let expected = vec![1.0; 10_000];
        let mut found = expected.clone();
        assert_eq!(relative_error(&found, &expected), 0.0);
        found[77] = 2.0;
        assert!(relative_error(&found, &expected) > TOLERANCE_BF16);
        found[77] = f32::NAN;
        let case = Case {
            op: String::new(),
            dtype: String::new(),
            shape: String::new(),
            error: relative_error(&found, &expected),
            tolerance: 1.0,
        };
        assert!(!case.passed());
    }

    /// The CPU's own operations are held against the reference by the same code.
    #[test]
    fn the_cpu_passes() {
        for case in run::<Flex>(&Default::default(), &[DType::F32, DType::F16], 1) {
            assert!(case.passed(), "{case:?}");
        }
    }
}
