//! Whether a variant's results are right.

use burn_tensor::{DType, Tensor};
use trainer_backends::selftest;
use trainer_backends::{Cpu, DecoderBackend};

use super::prepared::Results;

/// What results are held against.
enum Expected<B: DecoderBackend> {
    /// The CPU's in fp32, from the same inputs: values on the host.
    Cpu(Vec<Vec<f32>>),
    /// Those of the rule's own variant: where the CPU would take minutes.
    First(Results<B>),
}

/// Results as they should be.
pub struct Check<B: DecoderBackend>(Expected<B>);

/// How far results are off: the worst of an operation's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// L2 norm of the difference over that of the expected values; infinite where a value is not finite.
    pub error: f64,
    /// Largest difference of a value over the largest expected one.
    pub largest: f64,
}

impl Difference {
    fn of(sums: [f64; 4]) -> Self {
        let [difference, norm, largest, scale] = sums;
        let ratio =
            |a: f64, b: f64| if a.is_finite() && b.is_finite() { a / b.max(f64::MIN_POSITIVE) } else { f64::INFINITY };
        Self { error: ratio(difference, norm).sqrt(), largest: ratio(largest, scale) }
    }

    fn worse(self, other: Self) -> Self {
        Self { error: self.error.max(other.error), largest: self.largest.max(other.largest) }
    }
}

impl<B: DecoderBackend> Check<B> {
    pub fn against_cpu(results: Results<Cpu>) -> Self {
        Self(Expected::Cpu(results.into_iter().map(host).collect()))
    }

    pub fn against_first(results: Results<B>) -> Self {
        Self(Expected::First(results))
    }

    pub fn name(&self) -> &'static str {
        match self.0 {
            Expected::Cpu(_) => "cpu",
            Expected::First(_) => "rule",
        }
    }

    /// The largest error of a right result. Against another variant of one dtype, both are rounded.
    pub fn tolerance(&self, dtype: DType) -> f64 {
        let one = selftest::tolerance(dtype);
        match self.0 {
            Expected::Cpu(_) => one,
            Expected::First(_) => 2.0 * one,
        }
    }

    /// Leaves NaN in memory that the allocator is likely to hand out next, so that what a variant leaves unwritten shows.
    pub fn poison(&self, device: &B::Device) {
        let sizes: Vec<(usize, DType)> = match &self.0 {
            Expected::Cpu(values) => values.iter().map(|values| (values.len(), DType::F32)).collect(),
            Expected::First(results) => results.iter().map(|result| (result.dims()[0], result.dtype())).collect(),
        };
        for (len, dtype) in sizes {
            drop(Tensor::<B, 1>::full([len], f32::NAN, (device, dtype)));
        }
    }

    pub fn compare(&self, found: Results<B>) -> Difference {
        let none = Difference { error: 0.0, largest: 0.0 };
        match &self.0 {
            Expected::Cpu(expected) => {
                let each = found.into_iter().zip(expected).map(|(found, expected)| on_host(&host(found), expected));
                each.fold(none, Difference::worse)
            }
            Expected::First(expected) => {
                let each = found.into_iter().zip(expected).map(|(found, expected)| on_device(found, expected.clone()));
                each.fold(none, Difference::worse)
            }
        }
    }
}

fn host<B: DecoderBackend>(tensor: Tensor<B, 1>) -> Vec<f32> {
    #[expect(clippy::expect_used, reason = "converted on the same line")]
    tensor.into_data().convert_dtype(DType::F32).into_vec().expect("just converted to fp32")
}

fn on_host(found: &[f32], expected: &[f32]) -> Difference {
    if found.len() != expected.len() || found.iter().any(|value| !value.is_finite()) {
        return Difference { error: f64::INFINITY, largest: f64::INFINITY };
    }
    let pairs = || found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - f64::from(*b), f64::from(*b)));
    let sum = |value: fn((f64, f64)) -> f64| pairs().map(value).sum::<f64>();
    let most = |value: fn((f64, f64)) -> f64| pairs().map(value).fold(0.0, f64::max);
    Difference::of([sum(|(d, _)| d * d), sum(|(_, e)| e * e), most(|(d, _)| d.abs()), most(|(_, e)| e.abs())])
}

/// Without bringing what may be gigabytes to the host.
fn on_device<B: DecoderBackend>(found: Tensor<B, 1>, expected: Tensor<B, 1>) -> Difference {
    let expected = expected.cast(DType::F32);
    let difference = found.cast(DType::F32).sub(expected.clone());
    let number = |tensor: Tensor<B, 1>| f64::from(host(tensor).first().copied().unwrap_or(f32::NAN));
    let squares = |tensor: &Tensor<B, 1>| number(tensor.clone().mul(tensor.clone()).sum());
    let largest = |tensor: &Tensor<B, 1>| number(tensor.clone().abs().max());
    Difference::of([squares(&difference), squares(&expected), largest(&difference), largest(&expected)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_and_nan_is_never_small() {
        let same = on_host(&[3.0, 4.0], &[3.0, 4.0]);
        assert_eq!(same, Difference { error: 0.0, largest: 0.0 });
        let off = on_host(&[3.0, 4.5], &[3.0, 4.0]);
        assert!((off.error - 0.1).abs() < 1e-12 && (off.largest - 0.125).abs() < 1e-12, "{off:?}");
        for (found, expected) in [(&[f32::NAN, 1.0][..], &[1.0f32, 1.0][..]), (&[1.0], &[1.0, 2.0])] {
            assert_eq!(on_host(found, expected).error, f64::INFINITY);
        }
    }

    #[test]
    fn the_device_finds_the_same_differences_as_the_host() {
        let (found, expected) = ([1.0f32, -2.5, 3.0, 0.0], [1.0f32, -2.0, 3.5, 0.25]);
        let on_cpu = |values: [f32; 4]| Tensor::<Cpu, 1>::from_data(values, &Default::default());
        let (a, b) = (on_host(&found, &expected), on_device(on_cpu(found), on_cpu(expected)));
        assert!((a.error - b.error).abs() < 1e-6 && (a.largest - b.largest).abs() < 1e-6, "{a:?} {b:?}");
        let nan = on_device(on_cpu([f32::NAN; 4]), on_cpu(expected));
        assert_eq!(nan.error, f64::INFINITY);
    }

    #[test]
    fn wrong_results_are_outside_the_tolerance() {
        let tensor = |value: f32| vec![Tensor::<Cpu, 1>::from_data([1.0, value], &Default::default())];
        for check in [Check::<Cpu>::against_cpu(tensor(2.0)), Check::against_first(tensor(2.0))] {
            assert!(check.compare(tensor(2.0)).error <= check.tolerance(DType::F32));
            assert!(check.compare(tensor(2.001)).error > check.tolerance(DType::F16) / 10.0);
            assert!(check.compare(tensor(2.001)).error > check.tolerance(DType::F32));
        }
    }
}
