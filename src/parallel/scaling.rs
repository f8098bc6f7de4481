//! How long a step takes on given GPUs: the model that docs/scaling.md explains. Nothing in it is measured here yet.

use serde::Serialize;

use crate::config::Precision;
use crate::model::Architecture;

/// A GPU as its data sheet has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    pub name: &'static str,
    /// Dense FLOP/s of tensor cores in fp16 and bf16, and in fp32 outside them.
    pub half_flops: f64,
    pub single_flops: f64,
    /// Bytes of memory, and those a second that it reads and writes.
    pub memory: u64,
    pub bandwidth: f64,
    /// Bytes a second to the other GPUs of its machine, one way.
    pub link: f64,
}

/// The GPUs that `estimate --gpu` knows; NVIDIA's data sheets.
pub const GPUS: [Gpu; 7] = [
    Gpu {
        name: "a100-40gb",
        half_flops: 312e12,
        single_flops: 19.5e12,
        memory: 40_000_000_000,
        bandwidth: 1_555e9,
        link: 300e9,
    },
    Gpu {
        name: "a100-80gb",
        half_flops: 312e12,
        single_flops: 19.5e12,
        memory: 80_000_000_000,
        bandwidth: 2_039e9,
        link: 300e9,
    },
    Gpu {
        name: "h100",
        half_flops: 989e12,
        single_flops: 67e12,
        memory: 80_000_000_000,
        bandwidth: 3_350e9,
        link: 450e9,
    },
    Gpu {
        name: "h200",
        half_flops: 989e12,
        single_flops: 67e12,
        memory: 141_000_000_000,
        bandwidth: 4_800e9,
        link: 450e9,
    },
    Gpu {
        name: "l40s",
        half_flops: 362e12,
        single_flops: 91.6e12,
        memory: 48_000_000_000,
        bandwidth: 864e9,
        link: 32e9,
    },
    Gpu {
        name: "rtx-4090",
        half_flops: 165.2e12,
        single_flops: 82.6e12,
        memory: 24_000_000_000,
        bandwidth: 1_008e9,
        link: 32e9,
    },
    Gpu {
        name: "v100",
        half_flops: 125e12,
        single_flops: 15.7e12,
        memory: 32_000_000_000,
        bandwidth: 900e9,
        link: 150e9,
    },
];

/// The share of a link's rate that a collective reaches: an assumption, near what NVIDIA publishes for large messages.
pub const LINK_SHARE: f64 = 0.75;
/// MFU where nothing is given: an assumption; the paper's runs come to 0.53.
pub const MFU: f64 = 0.5;

impl Gpu {
    pub fn peak(&self, precision: Precision) -> f64 {
        match precision {
            Precision::Fp16 | Precision::Bf16 => self.half_flops,
            Precision::Fp32 => self.single_flops,
        }
    }
}

/// Several GPUs that train together.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    pub gpu: Gpu,
    /// GPUs of all machines together.
    pub devices: u64,
    pub nodes: u64,
    /// Bytes a second that one machine sends to the others.
    pub network: f64,
    /// FLOPs a second over the peak, of a step on one GPU, communication aside.
    pub mfu: f64,
}

/// What decides a step's time beside the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    pub parameters: u64,
    pub precision: Precision,
    /// FLOPs of a step of all devices together.
    pub flops: f64,
    /// Micro-batches a step on each device.
    pub accumulate: u64,
    /// Stage of ZeRO.
    pub zero: u8,
    /// What is exchanged at a time: the embedding, each block, the head.
    pub groups: Groups,
}

/// Parameters of the groups, which are the buckets of the exchange.
#[derive(Clone, Copy, Debug)]
pub struct Groups {
    pub embedding: u64,
    pub block: u64,
    pub layers: u64,
    pub head: u64,
}

impl Groups {
    pub fn of(architecture: &Architecture) -> Self {
        let [hidden, vocab, layers] = [architecture.hidden, architecture.vocab, architecture.layers].map(|n| n as u64);
        let (embedding, head) = (vocab * hidden, vocab * hidden + vocab + 2 * hidden);
        let block = (architecture.parameters() - embedding - head) / layers.max(1);
        Self { embedding, block, layers, head }
    }

    /// Each group's parameters as the backward pass comes to it, and its share of that pass: a look-up has none.
    fn backward(&self) -> impl Iterator<Item = (u64, f64)> {
        let blocks = (0..self.layers).map(|_| self.block);
        let computed = (self.head + self.layers * self.block) as f64;
        let shares = std::iter::once(self.head).chain(blocks).map(move |len| (len, len as f64 / computed));
        shares.chain([(self.embedding, 0.0)])
    }
}

/// Times in seconds, of one step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepTime {
    pub compute: f64,
    /// Bytes that each device sends.
    pub bytes_sent: f64,
    /// All of the communication.
    pub communication: f64,
    /// Of that, what does not fit beside the backward pass.
    pub exposed_communication: f64,
    pub step: f64,
}

/// The share of a pass forward and backward that is backward: twice the products.
const BACKWARD: f64 = 2.0 / 3.0;

/// Bytes that each of n devices sends in a step (docs/multi-node.md): of gradients, in fp32, and of weights.
pub fn bytes_sent(work: &Work, devices: u64) -> [f64; 2] {
    let share = (devices - 1) as f64 / devices as f64;
    let (gradients, weights) = (4.0 * work.parameters as f64, (work.precision.bytes() * work.parameters) as f64);
    let sent = match work.zero {
        0 => [2.0 * gradients, 0.0],
        1 => [gradients, weights],
        _ => [gradients * work.accumulate as f64, weights],
    };
    sent.map(|bytes| bytes * share)
}

/// How long the exchange of one pass's gradients, `seconds` in all, goes on after a backward pass of `backward` seconds: a
/// group's begins when the pass is done with it and the one before has been exchanged.
fn exposed(groups: &Groups, seconds: f64, backward: f64) -> f64 {
    let all: u64 = groups.backward().map(|(len, _)| len).sum();
    let (mut computed, mut exchanged) = (0.0, 0.0);
    for (len, share) in groups.backward() {
        computed += share * backward;
        exchanged = f64::max(computed, exchanged) + seconds * len as f64 / all as f64;
    }
    (exchanged - backward).max(0.0)
}

/// Compute at the cluster's MFU, then the collectives: rings at the rate of the slowest link on them. Of a ring through
/// several machines each sends on what its own GPUs pass to each other, so a machine's network carries one ring.
///
/// Gradients go beside the backward pass, at stage 2 of every micro-batch, else of the last. Weights wait for the norm of all
/// gradients, and the next step for them.
pub fn step_time(work: &Work, cluster: &Cluster) -> StepTime {
    let compute = work.flops / (cluster.devices as f64 * cluster.gpu.peak(work.precision) * cluster.mfu);
    let link = if cluster.nodes > 1 { cluster.gpu.link.min(cluster.network) } else { cluster.gpu.link };
    let sent = bytes_sent(work, cluster.devices);
    let [gradients, weights] = sent.map(|bytes| bytes / (link * LINK_SHARE));
    let passes = if work.zero == 2 { work.accumulate } else { 1 } as f64;
    let backward = BACKWARD * compute / work.accumulate as f64;
    let exposed_communication = passes * exposed(&work.groups, gradients / passes, backward) + weights;
    StepTime {
        compute,
        bytes_sent: sent.iter().sum(),
        communication: gradients + weights,
        exposed_communication,
        step: compute + exposed_communication,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn cluster(devices: u64, nodes: u64) -> Cluster {
        let gpu = *GPUS.iter().find(|gpu| gpu.name == "a100-80gb").unwrap();
        Cluster { gpu, devices, nodes, network: 25e9, mfu: 0.53 }
    }

    /// phi-1: 1024 sequences of 2048 tokens a step, 8 at a time on each of eight devices.
    fn work(zero: u8) -> Work {
        let flops = 9.085e9 * 1024.0 * 2048.0;
        let groups = Groups::of(&Config::resolve(Some("phi-1"), None, &[]).unwrap().architecture());
        Work { parameters: 1_418_270_720, precision: Precision::Fp16, flops, accumulate: 16, zero, groups }
    }

    #[test]
    fn the_papers_training_takes_the_papers_time() {
        // Gunasekar et al., 2023: 24,000 steps in under 4 days on eight A100s, 770 GPU-hours; that is 53% MFU.
        let step = step_time(&work(1), &cluster(8, 1));
        let gpu_hours = step.step * 24_000.0 * 8.0 / 3600.0;
        assert!((gpu_hours / 770.0 - 1.0).abs() < 0.01, "{gpu_hours}");
    }

    #[test]
    fn communication_is_the_formulas_bytes_over_the_slowest_link() {
        let bytes_sent = |zero, devices| bytes_sent(&work(zero), devices).iter().sum::<f64>();
        assert_eq!(bytes_sent(0, 1), 0.0);
        assert_eq!(bytes_sent(0, 2), 4.0 * 1_418_270_720.0);
        assert_eq!(bytes_sent(1, 4), 6.0 * 1_418_270_720.0 * 0.75);
        assert_eq!(bytes_sent(2, 2), (16.0 * 4.0 + 2.0) * 1_418_270_720.0 / 2.0);
        let (one, two) = (step_time(&work(1), &cluster(8, 1)), step_time(&work(1), &cluster(16, 2)));
        assert!((one.communication - bytes_sent(1, 8) / (300e9 * LINK_SHARE)).abs() < 1e-9);
        assert!((two.communication - bytes_sent(1, 16) / (25e9 * LINK_SHARE)).abs() < 1e-9);
        assert!((two.compute / one.compute - 0.5).abs() < 1e-12);
    }

    #[test]
    fn what_the_backward_pass_hides() {
        let groups = work(1).groups;
        assert_eq!(groups.embedding + groups.layers * groups.block + groups.head, 1_418_270_720);
        // An endless pass leaves the gradients that come with its end, of the first block and the embedding; an instant one
        // hides nothing.
        let last = (groups.block + groups.embedding) as f64 / 1_418_270_720.0;
        assert!((exposed(&groups, 1.0, 1e5) - last).abs() < 1e-6);
        assert!((exposed(&groups, 1.0, 0.0) - 1.0).abs() < 1e-9);
        // A slow network is busy from the end of the head's pass.
        let head = groups.head as f64 / (1_418_270_720 - groups.embedding) as f64;
        assert!((exposed(&groups, 100.0, 1.0) - (100.0 + head - 1.0)).abs() < 1e-9);
        for zero in 0..=2 {
            let time = step_time(&work(zero), &cluster(8, 1));
            assert!(time.exposed_communication > 0.0 && time.exposed_communication < time.communication, "{time:?}");
            assert!((step_time(&work(zero), &cluster(1, 1)).step / time.compute - 8.0).abs() < 1e-9);
        }
    }
}
