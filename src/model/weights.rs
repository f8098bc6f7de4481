//! A decoder's weights as flat buffers on a device, and their way from and to the host.

use burn_tensor::{DType, Tensor, TensorData};
use trainer_backends::DecoderBackend;
use trainer_backends::dropout::mix64;

use super::architecture::Architecture;
use super::table::{Entry, ParameterTable};

/// Flat buffers, one a parameter group, all of one dtype.
pub type Buffers<B> = Vec<Tensor<B, 1>>;

/// Standard deviation of the initial matrices (phi-1's `initializer_range`).
const INIT_STD: f64 = 0.02;

/// fp32 host memory of every group.
pub struct HostBuffers {
    pub groups: Vec<Vec<f32>>,
}

impl HostBuffers {
    pub fn zeros(table: &ParameterTable) -> Self {
        Self { groups: table.groups.iter().map(|group| vec![0.0; group.len]).collect() }
    }

    pub fn slice(&self, entry: &Entry) -> &[f32] {
        &self.groups[entry.group][entry.range()]
    }

    pub fn slice_mut(&mut self, entry: &Entry) -> &mut [f32] {
        &mut self.groups[entry.group][entry.range()]
    }

    /// Matrices from a normal distribution with deviation 0.02, norms at 1, biases at 0. Each tensor's values depend on
    /// the seed and its name only, so a model with another number of layers starts from the same ones.
    pub fn init(arch: &Architecture, table: &ParameterTable, seed: u64) -> Self {
        debug_assert_eq!(table.groups.len(), arch.layers + 2);
        let mut host = Self::zeros(table);
        for entry in &table.entries {
            let values = host.slice_mut(entry);
            if entry.shape.len() == 2 {
                let stream = entry.name.bytes().fold(mix64(seed), |hash, byte| mix64(hash ^ u64::from(byte)));
                fill_normal(values, stream);
            } else if entry.name.ends_with("layernorm.weight") {
                values.fill(1.0);
            }
        }
        host
    }

    /// Moves the buffers to a device in `dtype`.
    pub fn upload<B: DecoderBackend>(self, device: &B::Device, dtype: DType) -> Buffers<B> {
        self.groups
            .into_iter()
            .map(|values| {
                let len = values.len();
                Tensor::<B, 1>::from_data(TensorData::new(values, [len]), (device, DType::F32)).cast(dtype)
            })
            .collect()
    }

    /// Copies buffers of any float dtype to the host.
    pub fn download<B: DecoderBackend>(buffers: &Buffers<B>) -> Self {
        Self { groups: buffers.iter().map(download_one).collect() }
    }
}

/// Takes one buffer to the host as fp32; where it is there already and nothing else holds it, nothing is copied.
pub fn take_one<B: DecoderBackend, const D: usize>(buffer: Tensor<B, D>) -> Vec<f32> {
    #[expect(clippy::expect_used, reason = "the dtype is that of the cast")]
    buffer.cast(DType::F32).into_data().into_vec().expect("fp32 after the cast")
}

/// Copies one buffer to the host as fp32.
pub fn download_one<B: DecoderBackend, const D: usize>(buffer: &Tensor<B, D>) -> Vec<f32> {
    take_one(buffer.clone())
}

/// Box-Muller on a counter-based generator: element i depends on (stream, i) only.
fn fill_normal(values: &mut [f32], stream: u64) {
    use rayon::prelude::*;
    values.par_chunks_mut(4096).enumerate().for_each(|(chunk, values)| {
        for (i, pair) in values.chunks_mut(2).enumerate() {
            let bits = mix64(stream ^ mix64((chunk * 2048 + i) as u64));
            // 32 bits each; the radius never takes the logarithm of zero.
            let radius = (-2.0 * (((bits >> 32) as f64 + 0.5) / 4_294_967_296.0).ln()).sqrt();
            let angle = std::f64::consts::TAU * f64::from(bits as u32) / 4_294_967_296.0;
            for (value, unit) in pair.iter_mut().zip([angle.cos(), angle.sin()]) {
                *value = (INIT_STD * radius * unit) as f32;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_weights_are_normal_and_reproducible() {
        let arch = Architecture::phi(2, 128, 2, 512, 64);
        let table = ParameterTable::new(&arch);
        let host = HostBuffers::init(&arch, &table, 5);
        let entry = &table.entries[0];
        let values = host.slice(entry);
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64;
        // 65,536 draws: five standard errors.
        assert!(mean.abs() < 5.0 * 0.02 / 256.0, "{mean}");
        assert!((variance.sqrt() / 0.02 - 1.0).abs() < 5.0 / 362.0, "{variance}");
        let beyond = values.iter().filter(|x| x.abs() > 0.04).count() as f64 / values.len() as f64;
        assert!((beyond - 0.0455).abs() < 0.005, "{beyond}");
        assert_eq!(HostBuffers::init(&arch, &table, 5).groups, host.groups);
        assert_ne!(HostBuffers::init(&arch, &table, 6).groups, host.groups);
        let norm = table.entries.iter().find(|entry| entry.name.contains("input_layernorm.weight")).unwrap();
        assert!(host.slice(norm).iter().all(|x| *x == 1.0));
    }
}
