//! What a run needs to know of its device.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::ParameterTable;
use crate::model::memory::{Memory, Plan};

/// The device, for the user, for MFU, and for what it cannot hold.
#[derive(Clone, Debug)]
pub struct DeviceFacts {
    /// "cpu, AMD EPYC": for the table at the start.
    pub description: String,
    /// Peak matmul FLOP/s in the run's precision, where it is known.
    pub peak_flops: Option<f64>,
    /// Largest range of a buffer that a kernel can bind, where there is a limit.
    pub max_binding_bytes: Option<u64>,
    /// All of its memory, where that is known; the machine's, for the CPU.
    pub memory_bytes: Option<u64>,
}

impl DeviceFacts {
    /// # Errors
    /// A model whose flat fp32 buffers are larger than what the device's kernels can bind.
    pub fn check_bindings(&self, table: &ParameterTable) -> Result<()> {
        let largest = table.groups.iter().map(|group| 4 * group.len as u64).max().unwrap_or(0);
        match self.max_binding_bytes {
            Some(limit) if largest > limit => Err(Error::input(format!(
                "{} binds at most {} MiB at a time, and this model's largest parameter group takes {} MiB in fp32: choose \
                 a smaller vocabulary or hidden size, or another device (--backend cuda or cpu)",
                self.description,
                limit >> 20,
                largest.div_ceil(1 << 20)
            ))),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// A configuration that takes more than the device has, by an estimate that counts only what a step cannot do without;
    /// with the largest micro-batch that would fit.
    pub fn check_memory(&self, config: &Config, ranks: usize) -> Result<()> {
        let estimate = |micro_batch| estimate(config, ranks, micro_batch);
        let needed = estimate(config.train.micro_batch);
        let Some(memory) = self.memory_bytes.filter(|memory| needed > *memory) else { return Ok(()) };
        let advice = match smaller(config, ranks).find(|micro_batch| estimate(*micro_batch) <= memory) {
            Some(fitting) => {
                format!("--set train.micro_batch={fitting} would fit (the batch stays {})", config.train.batch)
            }
            None => format!(
                "even one sequence at a time takes {}: choose a smaller model, train.recompute=block, a narrower precision, \
                 or more devices",
                gib(estimate(1))
            ),
        };
        Err(Error::input(format!(
            "training takes about {} at micro-batches of {} sequences, and {} has {}: {advice}",
            gib(needed),
            config.train.micro_batch,
            self.description,
            gib(memory)
        )))
    }

    /// After the device has run out of memory.
    pub fn out_of_memory(&self, config: &Config, ranks: usize) -> Error {
        let half = config.train.micro_batch / 2;
        let advice = match smaller(config, ranks).find(|micro_batch| *micro_batch <= half) {
            Some(fitting) => {
                let (now, then) = (estimate(config, ranks, config.train.micro_batch), estimate(config, ranks, fitting));
                format!(
                    "--set train.micro_batch={fitting} takes about {} where now it is {} (the batch stays {})",
                    gib(then),
                    gib(now),
                    config.train.batch
                )
            }
            None => "train.recompute=block takes less, as does a smaller model".into(),
        };
        Error::failed(format!(
            "{} has run out of memory at micro-batches of {}: {advice}, and if other programs use the device, they may stand \
             in the way; the last checkpoint is intact",
            self.description, config.train.micro_batch
        ))
    }
}

/// Smaller micro-batches that divide the batch, the largest first.
fn smaller(config: &Config, ranks: usize) -> impl Iterator<Item = usize> {
    let batch = config.train.batch;
    (1..config.train.micro_batch).rev().filter(move |micro_batch| batch.is_multiple_of(micro_batch * ranks))
}

fn estimate(config: &Config, ranks: usize, micro_batch: usize) -> u64 {
    let plan = Plan { devices: ranks as u64, micro_batch: micro_batch as u64, ..Plan::new(config) };
    Memory::estimate(&config.architecture(), &plan).total()
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(memory_gib: u64) -> DeviceFacts {
        let memory_bytes = Some(memory_gib << 30);
        DeviceFacts { description: "a card".into(), peak_flops: None, max_binding_bytes: None, memory_bytes }
    }

    #[test]
    fn what_does_not_fit_is_told_what_would() {
        let config = Config::resolve(Some("phi-1"), None, &[]).unwrap();
        facts(80).check_memory(&config, 1).unwrap();
        DeviceFacts { memory_bytes: None, ..facts(1) }.check_memory(&config, 1).unwrap();
        let message = facts(40).check_memory(&config, 1).unwrap_err().to_string();
        let fitting: usize =
            message.split("train.micro_batch=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!((1..16).contains(&fitting) && config.train.batch.is_multiple_of(fitting), "{message}");
        assert!(estimate(&config, 1, fitting) <= 40 << 30 && estimate(&config, 1, 2 * fitting) > 40 << 30, "{message}");
        let message = facts(8).check_memory(&config, 1).unwrap_err().to_string();
        assert!(message.contains("even one sequence"), "{message}");
    }

    #[test]
    fn running_out_halves_the_micro_batch() {
        let config = Config::resolve(Some("phi-1"), None, &[]).unwrap();
        let message = facts(80).out_of_memory(&config, 8).to_string();
        assert!(message.contains("train.micro_batch=8 ") && message.contains("of 16"), "{message}");
        let one = Config::resolve(Some("phi-1"), None, &["train.micro_batch=1".into()]).unwrap();
        assert!(facts(80).out_of_memory(&one, 1).to_string().contains("recompute"));
    }
}
