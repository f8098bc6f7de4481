//! Times of operations, and the rates that a device reaches.

use std::time::{Duration, Instant};

use burn_tensor::{DType, Distribution, Tensor};
use trainer_backends::DecoderBackend;

use super::prepared::Prepared;
use crate::error::{Error, Result};

/// Of the device's caches together, and some: inputs of less are drawn several times and taken in turn.
const CACHES: u64 = 256 << 20;
/// Sets of inputs at most.
const SETS: u64 = 8;
/// A measurement takes about this long, so that the clock and the wait for the device do not count.
const MEASUREMENT: Duration = Duration::from_millis(20);

/// Sets of inputs for an operation that moves `bytes`.
pub fn sets(bytes: u64) -> u64 {
    CACHES.div_ceil(bytes.max(1)).clamp(1, SETS)
}

/// Seconds a call: median, least and most of the measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Times {
    fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        Self { median: seconds[seconds.len() / 2], min: seconds[0], max: seconds[seconds.len() - 1] }
    }
}

fn wait<B: DecoderBackend>(device: &B::Device) -> Result<()> {
    B::sync(device).map_err(|error| Error::failed(format!("the device failed: {error}")))
}

/// Times `call`, which gets the index of the call, in `repeats` measurements of as many calls as it takes.
fn timed<B: DecoderBackend>(device: &B::Device, repeats: usize, mut call: impl FnMut(usize)) -> Result<Times> {
    let mut count = 0;
    let mut measure = |calls: usize| -> Result<f64> {
        wait::<B>(device)?;
        let begun = Instant::now();
        for _ in 0..calls {
            call(count);
            count += 1;
        }
        wait::<B>(device)?;
        Ok(begun.elapsed().as_secs_f64() / calls as f64)
    };
    // Kernels are compiled and memory is allocated by the first.
    measure(1)?;
    let one = measure(1)?;
    let calls = (MEASUREMENT.as_secs_f64() / one.max(1e-9)).ceil().clamp(1.0, 1000.0) as usize;
    Ok(Times::of((0..repeats).map(|_| measure(calls)).collect::<Result<_>>()?))
}

/// Times an operation, its sets of inputs in turn.
pub fn time<B: DecoderBackend>(device: &B::Device, sets: &mut [Prepared<B>], repeats: usize) -> Result<Times> {
    let count = sets.len();
    timed::<B>(device, repeats, |call| sets[call % count].run())
}

/// What the device was seen to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// FLOP/s of a large square product.
    pub matmul: f64,
    /// Bytes/s of a large copy, read and written.
    pub memory: f64,
}

/// Measures both: on larger and larger sizes, until one is worth its launch or has more than `largest` bytes.
pub fn rates<B: DecoderBackend>(device: &B::Device, dtype: DType, largest: u64) -> Result<Rates> {
    let enough = 0.01;
    let (mut matmul, mut memory) = (0.0f64, 0.0f64);
    for n in [256usize, 512, 1024, 2048, 4096, 8192] {
        let normal = Distribution::Normal(0.0, 1.0);
        let [a, b] = [(); 2].map(|()| Tensor::<B, 2>::random([n, n], normal, (device, DType::F32)).cast(dtype));
        let seconds = timed::<B>(device, 3, |_| drop(B::linear_input_grad(a.clone(), b.clone())))?.median;
        matmul = matmul.max(2.0 * (n as f64).powi(3) / seconds);
        if seconds > enough {
            break;
        }
    }
    for len in [1usize << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28] {
        if 4 * len as u64 > largest {
            break;
        }
        let x = Tensor::<B, 1>::zeros([len], (device, DType::F32)).add_scalar(0.5);
        let seconds = timed::<B>(device, 3, |_| drop(x.clone().mul_scalar(1.5)))?.median;
        // Small ones measure the caches, where the device is not slow.
        if len >= 1 << 24 || seconds > enough {
            memory = memory.max(8.0 * len as f64 / seconds);
        }
        if seconds > enough {
            break;
        }
    }
    Ok(Rates { matmul, memory })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_inputs_are_drawn_several_times() {
        assert_eq!(sets(1 << 40), 1);
        assert_eq!(sets(100 << 20), 3);
        assert_eq!((sets(1), sets(0)), (8, 8));
    }

    #[test]
    fn the_median_counts() {
        let times = Times::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((times.median, times.min, times.max), (2.0, 1.0, 3.0));
    }

    #[test]
    fn every_measurement_waits_and_calls() {
        let mut calls = 0;
        let times = timed::<trainer_backends::Cpu>(&Default::default(), 3, |call| {
            assert_eq!(call, calls);
            calls += 1;
            std::thread::sleep(Duration::from_millis(3));
        });
        let times = times.unwrap();
        assert!(times.min >= 3e-3 && times.median <= times.max, "{times:?}");
        // Two to find out, then three measurements of some.
        assert!(calls >= 5 && (calls - 2) % 3 == 0, "{calls}");
    }
}
