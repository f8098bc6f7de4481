//! Random inputs of an operation: drawn on the device, or the same values again on the CPU.

use burn_tensor::{DType, Distribution, Int, Tensor, TensorData};
use trainer_backends::DecoderBackend;
use trainer_backends::dropout::mix64;

/// Where the next input comes from.
enum Source {
    /// Drawn; what was drawn is kept where someone is to be given the same.
    Draw { seed: u64, keep: bool },
    /// What was drawn, in the same order, widened to fp32.
    Given,
}

/// Hands out inputs.
pub struct Inputs<B: DecoderBackend> {
    device: B::Device,
    source: Source,
    /// Values in their order: kept, or still to be given.
    values: Vec<TensorData>,
}

impl<B: DecoderBackend> Inputs<B> {
    /// Inputs that follow from `seed`; with `keep`, `recorded` has their values.
    pub fn draw(device: &B::Device, seed: u64, keep: bool) -> Self {
        B::seed(device, seed);
        Self { device: device.clone(), source: Source::Draw { seed, keep }, values: Vec::new() }
    }

    /// The inputs that another one has drawn.
    pub fn given(recorded: Vec<TensorData>) -> Self {
        // The last first, so that each is taken off the end.
        let values = recorded.into_iter().rev().collect();
        Self { device: B::Device::default(), source: Source::Given, values }
    }

    pub fn device(&self) -> &B::Device {
        &self.device
    }

    /// The values so far, for `given`.
    pub fn recorded(self) -> Vec<TensorData> {
        self.values
    }

    /// Normal values of a standard deviation, in `dtype`.
    pub fn normal<const D: usize>(&mut self, shape: [usize; D], deviation: f64, dtype: DType) -> Tensor<B, D> {
        self.next(dtype, |device| {
            let normal = Distribution::Normal(0.0, deviation);
            Tensor::<B, D>::random(shape, normal, (device, DType::F32)).cast(dtype)
        })
    }

    /// What follows from other inputs, so that the CPU takes the device's: it has been rounded there.
    pub fn derived<const D: usize>(&mut self, make: impl FnOnce() -> Tensor<B, D>, dtype: DType) -> Tensor<B, D> {
        self.next(dtype, |_| make())
    }

    fn next<const D: usize>(&mut self, dtype: DType, make: impl FnOnce(&B::Device) -> Tensor<B, D>) -> Tensor<B, D> {
        match self.source {
            Source::Draw { keep, .. } => {
                let tensor = make(&self.device);
                if keep {
                    self.values.push(tensor.clone().into_data());
                }
                tensor
            }
            Source::Given => {
                #[expect(clippy::expect_used, reason = "an operation asks for the same inputs in the same order")]
                let data = self.values.pop().expect("as many as were drawn");
                Tensor::from_data(data.convert_dtype(dtype), (&self.device, dtype))
            }
        }
    }

    /// `len` token ids below `vocab`: the same for every seed's turn, drawn on the host.
    pub fn tokens(&mut self, len: usize, vocab: usize) -> Tensor<B, 1, Int> {
        let data = match self.source {
            Source::Draw { seed, keep } => {
                let token = |i: usize| (mix64(mix64(seed) ^ i as u64) % vocab as u64) as i32;
                let data = TensorData::new((0..len).map(token).collect::<Vec<i32>>(), [len]);
                if keep {
                    self.values.push(data.clone());
                }
                data
            }
            #[expect(clippy::expect_used, reason = "as above")]
            Source::Given => self.values.pop().expect("as many as were drawn"),
        };
        Tensor::from_data(data, (&self.device, DType::I32))
    }
}
