//! Rates that a device does not exceed.

use clap::Args;
use trainer_backends::discovery::DeviceInfo;

use super::value::above_zero;
use crate::config::Precision;
use crate::model::work::Ceilings;
use crate::parallel::scaling::Gpu;
use crate::report::peak::{memory_rate, peak_flops};

/// Ceilings as the user gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Args)]
pub struct CeilingArgs {
    /// TFLOP/s of large matrix products on this device, as measured [default: the data sheet's, where the device is known]
    #[arg(long, value_name = "TFLOPS", value_parser = above_zero)]
    pub matmul_tflops: Option<f64>,
    /// TFLOP/s of attention's products [default: that of large matrix products]
    #[arg(long, value_name = "TFLOPS", value_parser = above_zero)]
    pub attention_tflops: Option<f64>,
    /// GB/s of a large copy, read and written, as measured [default: the data sheet's]
    #[arg(long, value_name = "GBS", value_parser = above_zero)]
    pub memory_gbs: Option<f64>,
}

impl CeilingArgs {
    /// With what a data sheet says where nothing is given; `None` where it says nothing either.
    fn or(&self, sheet: Option<[f64; 2]>) -> Option<Ceilings> {
        let matmul = self.matmul_tflops.map(|rate| rate * 1e12).or(sheet.map(|[matmul, _]| matmul))?;
        let memory = self.memory_gbs.map(|rate| rate * 1e9).or(sheet.map(|[_, memory]| memory))?;
        Some(Ceilings { matmul, attention: self.attention_tflops.map_or(matmul, |rate| rate * 1e12), memory })
    }

    /// For a GPU that was named.
    pub fn of_gpu(&self, gpu: Option<Gpu>, precision: Precision) -> Option<Ceilings> {
        self.or(gpu.map(|gpu| [gpu.peak(precision), gpu.bandwidth]))
    }

    /// For the device that a command runs on.
    pub fn of_device(&self, device: &DeviceInfo, precision: Precision) -> Option<Ceilings> {
        self.or(peak_flops(&device.name, precision).zip(memory_rate(&device.name)).map(<[f64; 2]>::from))
    }
}
