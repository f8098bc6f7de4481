//! How much device memory training takes, by part. An estimate before anything is allocated: it counts what the step
//! keeps, not what an allocator rounds up or a kernel borrows for a moment.
//!
//! Legend: P parameters, N tokens of a micro-batch, C hidden, F mlp, V vocab, s bytes of the compute dtype.

use trainer_backends::{ops, reference};

use crate::config::{Config, Precision, Recompute};
use crate::model::architecture::Architecture;

/// Rows of logits (tokens) that the fused linear + cross entropy holds at a time, on the backend that holds most.
pub fn loss_chunk_tokens(tokens: u64, vocab: usize) -> u64 {
    let device = ops::device_loss_chunk(usize::try_from(tokens).unwrap_or(usize::MAX), vocab, ops::LOGITS_BYTES);
    tokens.min(device.max(reference::LOSS_CHUNK) as u64)
}

/// What decides the memory of a training step, beside the architecture.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The compute dtype.
    pub precision: Precision,
    /// Sequences a forward and backward pass.
    pub micro_batch: u64,
    /// Tokens a sequence.
    pub seq_len: u64,
    /// What is computed again in the backward pass.
    pub recompute: Recompute,
    /// Devices that train together; at least 1.
    pub devices: u64,
    /// Stage of ZeRO, 0 to 2: what is divided among them (src/parallel/replica.rs).
    pub zero: u8,
}

impl Plan {
    /// A configuration's, on one device.
    pub fn new(config: &Config) -> Self {
        Self {
            precision: config.train.precision,
            micro_batch: config.train.micro_batch as u64,
            seq_len: config.model.seq_len as u64,
            recompute: config.train.recompute,
            devices: 1,
            zero: config.train.zero,
        }
    }
}

/// Bytes on each device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// Working weights in the compute dtype: s P. In fp32 they are the master weights themselves, and stand here.
    pub weights: u64,
    /// The flat fp32 gradient buffers: 4 P or, at stage 2, 4 P / devices and the largest group whole.
    pub gradients: u64,
    /// fp32 master weights: 4 P, from stage 1 on 4 P / devices; none in fp32.
    pub master: u64,
    /// AdamW's first moment: 4 P, from stage 1 on 4 P / devices.
    pub m: u64,
    /// AdamW's second moment: as the first.
    pub v: u64,
    /// What the forward pass keeps of all blocks and the final layer norm for the backward pass.
    pub activations: u64,
    /// Gradients of one block's intermediate values, while its backward pass runs.
    pub backward: u64,
    /// One chunk of logits in fp32 and their gradient in the compute dtype.
    pub loss_chunk: u64,
}

impl Memory {
    /// The estimate for `architecture` under `plan`.
    pub fn estimate(architecture: &Architecture, plan: &Plan) -> Self {
        let s = plan.precision.bytes();
        let parameters = architecture.parameters();
        let tokens = plan.micro_batch.saturating_mul(plan.seq_len);
        let divided = |bytes: u64| bytes.div_ceil(plan.devices.max(1));
        let sharded = |bytes: u64| if plan.zero >= 1 { divided(bytes) } else { bytes };
        let gradients = match plan.zero {
            2 if plan.devices > 1 => divided(4 * parameters) + 4 * largest_group(architecture),
            _ => 4 * parameters,
        };
        let (hidden, layers) = (architecture.hidden as u64, architecture.layers as u64);

        let block = saved_per_block_and_token(architecture, s);
        let restored = block - kept_per_block_and_token(architecture, s, plan.recompute);
        let blocks = layers * (block - restored) + restored;
        // The final layer norm keeps its fp32 input, its output and its statistics.
        let final_norm = 4 * hidden + s * hidden + 8;
        let chunk = loss_chunk_tokens(tokens, architecture.vocab);
        Self {
            weights: s * parameters,
            gradients,
            master: if plan.precision == Precision::Fp32 { 0 } else { sharded(4 * parameters) },
            m: sharded(4 * parameters),
            v: sharded(4 * parameters),
            activations: tokens.saturating_mul(blocks + final_norm),
            backward: tokens.saturating_mul(backward_per_token(architecture, s)),
            loss_chunk: chunk * architecture.vocab as u64 * (4 + s),
        }
    }

    pub fn total(&self) -> u64 {
        self.parts().iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// The parts in the order in which they are shown, with their names.
    pub fn parts(&self) -> [(&'static str, u64); 8] {
        [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("master weights", self.master),
            ("first moment", self.m),
            ("second moment", self.v),
            ("activations", self.activations),
            ("backward of a block", self.backward),
            ("loss chunk", self.loss_chunk),
        ]
    }
}

/// Parameters of the largest group: the embedding, a block, or the final norm and the head.
fn largest_group(architecture: &Architecture) -> u64 {
    let (c, f, v) = (architecture.hidden as u64, architecture.mlp as u64, architecture.vocab as u64);
    let block = 4 * (c * c + c) + 2 * c * f + f + c + 2 * c;
    block.max(v * c + v + 2 * c)
}

/// Bytes that one block keeps a token: the input x in fp32 (4C); the layer norm's output (sC) and its mean and
/// reciprocal deviation (8); q, k, v and fc1's output, one fused product (s(3C + F)); the attention's output (sC) and its
/// log-sum-exp in fp32 (4 a head); the GELU's output (sF). Dropout masks are drawn again from Philox, not kept.
pub fn saved_per_block_and_token(architecture: &Architecture, s: u64) -> u64 {
    let (c, f, heads) = (architecture.hidden as u64, architecture.mlp as u64, architecture.heads as u64);
    4 * c + (s * c + 8) + s * (3 * c + f) + (s * c + 4 * heads) + s * f
}

/// As `saved_per_block_and_token`, without what is computed again.
pub fn kept_per_block_and_token(architecture: &Architecture, s: u64, recompute: Recompute) -> u64 {
    let (c, f) = (architecture.hidden as u64, architecture.mlp as u64);
    match recompute {
        Recompute::None => saved_per_block_and_token(architecture, s),
        // The layer norm's output and statistics, and the GELU's output.
        Recompute::Activation => saved_per_block_and_token(architecture, s) - (s * c + 8) - s * f,
        Recompute::Block => 4 * c,
    }
}

/// Bytes of gradients alive a token in the backward pass of one block: that of the residual stream in fp32 (4C), of q, k, v
/// and fc1's output (s(3C + F)), of the attention's output (sC) and of the GELU's (sF).
fn backward_per_token(architecture: &Architecture, s: u64) -> u64 {
    let (c, f) = (architecture.hidden as u64, architecture.mlp as u64);
    4 * c + s * (3 * c + f) + s * c + s * f
}

#[cfg(test)]
mod tests {
    use super::*;

    const FP16: Plan = Plan {
        precision: Precision::Fp16,
        micro_batch: 16,
        seq_len: 2048,
        recompute: Recompute::None,
        devices: 1,
        zero: 1,
    };

    fn phi_1() -> Architecture {
        Architecture::phi(24, 2048, 32, 51_200, 2048)
    }

    #[test]
    fn phi_1_in_fp16() {
        let p = 1_418_270_720u64;
        let memory = Memory::estimate(&phi_1(), &FP16);
        assert_eq!((memory.weights, memory.gradients), (2 * p, 4 * p));
        assert_eq!((memory.master, memory.m, memory.v), (4 * p, 4 * p, 4 * p));
        // 4C = 8192; 2C + 8 = 4104; 2(3C + F) = 28672; 2C + 128 = 4224; 2F = 16384.
        let block = 8192 + 4104 + 28_672 + 4224 + 16_384;
        assert_eq!(saved_per_block_and_token(&phi_1(), 2), block);
        assert_eq!(memory.activations, 32_768 * (24 * block + 8192 + 4096 + 8));
        assert_eq!(memory.loss_chunk, 2592 * 51_200 * 6);
        assert_eq!(memory.total(), memory.parts().iter().map(|(_, bytes)| bytes).sum::<u64>());
    }

    #[test]
    fn recomputing_keeps_one_block_and_the_inputs_of_all() {
        let kept = Memory::estimate(&phi_1(), &FP16);
        let recomputed = Memory::estimate(&phi_1(), &Plan { recompute: Recompute::Block, ..FP16 });
        let block = saved_per_block_and_token(&phi_1(), 2);
        assert_eq!(kept.activations - recomputed.activations, 32_768 * 23 * (block - 8192));
        assert_eq!(kept.weights, recomputed.weights);
    }

    #[test]
    fn activations_alone_are_a_third_of_a_block() {
        let kept = Memory::estimate(&phi_1(), &FP16);
        let recomputed = Memory::estimate(&phi_1(), &Plan { recompute: Recompute::Activation, ..FP16 });
        assert_eq!(kept.activations - recomputed.activations, 32_768 * 23 * (4104 + 16_384));
    }

    #[test]
    fn phi_1_fits_where_it_should() {
        assert!(Memory::estimate(&phi_1(), &FP16).total() < 80 << 30);
        assert!(Memory::estimate(&phi_1(), &Plan { micro_batch: 4, ..FP16 }).total() < 40 << 30);
    }

    #[test]
    fn stages_divide_one_thing_after_the_other() {
        let [all, state, gradients] =
            [0, 1, 2].map(|zero| Memory::estimate(&phi_1(), &Plan { devices: 8, zero, ..FP16 }));
        let p = phi_1().parameters();
        assert_eq!((all.master, all.m, all.gradients), (4 * p, 4 * p, 4 * p));
        assert_eq!((state.master, state.v, state.gradients), (p / 2, p / 2, 4 * p));
        let head = 51_200 * 2048 + 51_200 + 2 * 2048;
        assert_eq!((gradients.m, gradients.gradients), (p / 2, p / 2 + 4 * head));
        let alone = Plan { zero: 2, ..FP16 };
        assert_eq!(Memory::estimate(&phi_1(), &alone), Memory::estimate(&phi_1(), &FP16));
    }

    #[test]
    fn devices_share_the_optimizer_state_only() {
        let one = Memory::estimate(&phi_1(), &FP16);
        let eight = Memory::estimate(&phi_1(), &Plan { devices: 8, ..FP16 });
        assert_eq!((eight.m, eight.v, eight.master), (one.m / 8, one.v / 8, one.master / 8));
        assert_eq!((eight.weights, eight.gradients, eight.activations), (one.weights, one.gradients, one.activations));
    }

    #[test]
    fn in_fp32_the_weights_are_the_master() {
        let memory = Memory::estimate(&phi_1(), &Plan { precision: Precision::Fp32, ..FP16 });
        assert_eq!((memory.weights, memory.master), (4 * 1_418_270_720, 0));
    }

    #[test]
    fn absurd_sizes_saturate() {
        let plan = Plan { micro_batch: u64::MAX / 2, ..FP16 };
        assert_eq!(Memory::estimate(&phi_1(), &plan).total(), u64::MAX);
    }
}
