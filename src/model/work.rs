//! What a training step has to compute and to move, by kernel, and how long that takes at least: docs/time-model.md.
//!
//! Parts have the names of `trainer bench --by-part` (src/profile/ops.rs), whose FLOPs and bytes these are, but that the
//! head's bytes are counted here. Legend: N tokens of a micro-batch, T positions, C hidden, F mlp, W = 3C + F, V vocab, H
//! heads, s bytes of the compute dtype.

use serde::Serialize;

use crate::config::{Config, Precision, Recompute};
use crate::model::architecture::Architecture;
use crate::model::memory::loss_chunk_tokens;
use crate::model::table::ParameterTable;

/// What decides a step's work beside the architecture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepShape {
    pub precision: Precision,
    /// Sequences a forward and backward pass, and their tokens.
    pub micro_batch: u64,
    pub seq_len: u64,
    /// Micro-batches a step.
    pub accumulate: u64,
    pub recompute: Recompute,
    pub residual_dropout: bool,
    pub embedding_dropout: bool,
}

impl StepShape {
    /// A configuration's, on one device.
    pub fn new(config: &Config) -> Self {
        let train = &config.train;
        Self {
            precision: train.precision,
            micro_batch: train.micro_batch as u64,
            seq_len: config.model.seq_len as u64,
            accumulate: (train.batch / train.micro_batch) as u64,
            recompute: train.recompute,
            residual_dropout: config.model.residual_dropout > 0.0,
            embedding_dropout: config.model.embedding_dropout > 0.0,
        }
    }

    pub fn tokens(&self) -> u64 {
        self.micro_batch * self.seq_len
    }
}

/// Which ceiling a kernel's products have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Products {
    /// Matrix products.
    Matmul,
    /// Products with a softmax between them.
    Attention,
    /// None to speak of.
    None,
}

/// One kernel: `calls` a step, each with these FLOPs and bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// The part of a step that it belongs to.
    pub part: String,
    pub calls: u64,
    pub products: Products,
    /// As `Architecture::flops_per_token` counts them: attention's masked half too, and four products backward.
    pub flops: u64,
    /// What has to be computed: of attention about half of the scores, and backward five products, the scores again.
    pub needed_flops: u64,
    /// What has to be read and written once.
    pub bytes: u64,
}

/// Rates that no kernel exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ceilings {
    /// FLOP/s of large matrix products in the compute dtype.
    pub matmul: f64,
    /// FLOP/s of attention's products: less than `matmul`, since exponentials come between them.
    pub attention: f64,
    /// Bytes/s of a large copy, read and written.
    pub memory: f64,
}

impl Kernel {
    /// Seconds a call at least.
    pub fn floor(&self, ceilings: &Ceilings) -> f64 {
        self.compute(ceilings).max(self.bytes as f64 / ceilings.memory)
    }

    fn compute(&self, ceilings: &Ceilings) -> f64 {
        match self.products {
            Products::Matmul => self.needed_flops as f64 / ceilings.matmul,
            Products::Attention => self.needed_flops as f64 / ceilings.attention,
            Products::None => 0.0,
        }
    }

    /// Whether moving bytes takes longer than computing.
    pub fn is_bound_by_memory(&self, ceilings: &Ceilings) -> bool {
        self.compute(ceilings) < self.bytes as f64 / ceilings.memory
    }
}

/// Collects kernels.
struct Kernels(Vec<Kernel>);

impl Kernels {
    fn add(&mut self, part: impl Into<String>, calls: u64, products: Products, [flops, needed]: [u64; 2], bytes: u64) {
        if calls > 0 {
            self.0.push(Kernel { part: part.into(), calls, products, flops, needed_flops: needed, bytes });
        }
    }

    /// N x K by K x O.
    fn product(&mut self, part: impl Into<String>, calls: u64, [n, k, o]: [u64; 3], bytes: u64) {
        self.add(part, calls, Products::Matmul, [2 * n * k * o; 2], bytes);
    }

    fn bytes(&mut self, part: &str, calls: u64, bytes: u64) {
        self.add(part, calls, Products::None, [0; 2], bytes);
    }
}

/// The kernels of a step of `architecture`; those that take no time to speak of are left out.
pub fn step_kernels(architecture: &Architecture, shape: &StepShape) -> Vec<Kernel> {
    let [c, f, v, heads, layers] =
        [architecture.hidden, architecture.mlp, architecture.vocab, architecture.heads, architecture.layers]
            .map(|size| size as u64);
    let (n, t, s, w) = (shape.tokens(), shape.seq_len, shape.precision.bytes(), 3 * c + f);
    let (passes, blocks) = (shape.accumulate, layers * shape.accumulate);
    let recomputed = |at_least: Recompute| match (shape.recompute, at_least) {
        (Recompute::Block, _) | (Recompute::Activation, Recompute::Activation) => 2 * blocks,
        _ => blocks,
    };
    let (pointwise, whole) = (recomputed(Recompute::Activation), recomputed(Recompute::Block));
    let mut kernels = Kernels(Vec::new());

    // The branches' products are not made again: nothing of backward reads them.
    for ([k, o], forward) in [([c, w], whole), ([c, c], blocks), ([f, c], blocks)] {
        kernels.product(format!("linear forward {k}x{o}"), forward, [n, k, o], s * (n * k + k * o + n * o));
        kernels.product(format!("weight grad {k}x{o}"), blocks, [n, k, o], s * (n * o + n * k) + 8 * k * o);
        kernels.product(format!("input grad {k}x{o}"), blocks, [n, k, o], s * (n * o + k * o + n * k));
    }
    // 2 N C T a product of all scores; a query sees half of them and its own.
    let product = 2 * n * c * t;
    let seen = |products: u64| products * n * c * (t + 1);
    let attention = Products::Attention;
    let bytes = |tensors: u64| tensors * n * c * s + 4 * n * heads;
    kernels.add("attention forward", whole, attention, [2 * product, seen(2)], bytes(4));
    kernels.add("attention backward", blocks, attention, [4 * product, seen(5)], bytes(8));

    // The first block's, and again where a block's is made once more; the others come with the sum in front of them.
    kernels.bytes("layer norm forward", passes + pointwise - blocks, n * c * (4 + s));
    kernels.bytes("GELU forward", pointwise, n * f * 2 * s);
    kernels.bytes("residual and norm forward", blocks, n * c * (8 + 3 * s));
    kernels.bytes("GELU backward", blocks, n * f * 3 * s);
    // A block's adds the gradient around the norm; the last norm has none, and the first one no block in front of it.
    let branches = s * if shape.residual_dropout { 2 } else { 1 };
    kernels.bytes("residual and norm backward", blocks - passes, n * c * (s + 12 + branches));
    kernels.bytes("residual and norm backward", passes, n * c * (s + 8 + branches));
    kernels.bytes("layer norm backward", passes, n * c * (s + 12));
    kernels.bytes("embedding forward", passes, n * c * (4 + s));
    kernels.bytes("embedding backward", passes, n * c * 12);
    if shape.embedding_dropout {
        kernels.bytes("embedding dropout", passes, n * c * 8);
    }

    // A chunk of the tokens at a time: logits in fp32, read for their sum and for their gradient, which is written in the compute
    // dtype for the two products.
    let head = format!("head and loss {c}x{v}");
    let chunk = loss_chunk_tokens(n, architecture.vocab);
    for (tokens, calls) in [(chunk, n / chunk.max(1) * passes), (n % chunk.max(1), passes)] {
        if tokens == 0 {
            continue;
        }
        kernels.product(&head, calls, [tokens, c, v], s * (tokens * c + v * c) + 4 * tokens * v);
        kernels.bytes(&head, calls, tokens * v * (8 + s));
        kernels.product(&head, calls, [tokens, c, v], s * tokens * (v + c) + 8 * v * c);
        kernels.product(&head, calls, [tokens, c, v], s * (tokens * (v + c) + v * c));
    }

    // With the padding between tensors, a group of parameters at a time.
    let working = if shape.precision == Precision::Fp32 { 0 } else { s };
    let groups = ParameterTable::new(architecture).groups;
    let all: u64 = groups.iter().map(|group| group.len as u64).sum();
    kernels.bytes("sum of squares", 1, 4 * all);
    groups.iter().for_each(|group| kernels.bytes("AdamW", 1, group.len as u64 * (28 + working)));
    kernels.bytes("clear gradients", 1, 4 * all);
    kernels.0
}

/// A part of the step under given ceilings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartFloor {
    pub part: String,
    pub calls: u64,
    /// A step's; see `Kernel`.
    pub flops: u64,
    pub needed_flops: u64,
    pub bytes: u64,
    /// Milliseconds a step at least.
    pub floor_ms: f64,
    pub share: f64,
    /// Memory, matmul or attention: what bounds most of its time.
    pub bound: &'static str,
}

/// The least time of a step, by part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepFloor {
    pub ceilings: Ceilings,
    pub step_ms: f64,
    pub tokens_per_s: f64,
    /// The model's FLOPs over `step_ms` and the ceiling of products.
    pub mfu: f64,
    /// The longest first.
    pub parts: Vec<PartFloor>,
}

impl StepFloor {
    pub fn new(architecture: &Architecture, shape: &StepShape, ceilings: Ceilings) -> Self {
        let mut parts: Vec<PartFloor> = Vec::new();
        // Seconds of each part that memory bounds.
        let mut moving: Vec<f64> = Vec::new();
        for kernel in step_kernels(architecture, shape) {
            let calls = kernel.calls as f64;
            let at = parts.iter().position(|part| part.part == kernel.part).unwrap_or_else(|| {
                let part = kernel.part.clone();
                let bound = "memory";
                parts.push(PartFloor {
                    part,
                    calls: 0,
                    flops: 0,
                    needed_flops: 0,
                    bytes: 0,
                    floor_ms: 0.0,
                    share: 0.0,
                    bound,
                });
                moving.push(0.0);
                parts.len() - 1
            });
            let (part, seconds) = (&mut parts[at], kernel.floor(&ceilings) * calls);
            part.calls += kernel.calls;
            part.flops += kernel.flops * kernel.calls;
            part.needed_flops += kernel.needed_flops * kernel.calls;
            part.bytes += kernel.bytes * kernel.calls;
            part.floor_ms += seconds * 1e3;
            if kernel.is_bound_by_memory(&ceilings) {
                moving[at] += seconds;
            } else {
                part.bound = if kernel.products == Products::Attention { "attention" } else { "matmul" };
            }
        }
        let step_ms: f64 = parts.iter().map(|part| part.floor_ms).sum();
        for (part, moving) in parts.iter_mut().zip(moving) {
            part.share = part.floor_ms / step_ms;
            if moving * 1e3 > part.floor_ms / 2.0 {
                part.bound = "memory";
            }
        }
        parts.sort_by(|a, b| b.floor_ms.total_cmp(&a.floor_ms));
        let tokens = (shape.tokens() * shape.accumulate) as f64;
        let tokens_per_s = tokens / (step_ms / 1e3);
        let flops = architecture.flops_per_token(shape.seq_len as usize) * tokens_per_s;
        Self { ceilings, step_ms, tokens_per_s, mfu: flops / ceilings.matmul, parts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 16 x 2048 tokens, four times, in fp16 with dropout.
    fn phi_1() -> (Architecture, StepShape) {
        let shape = StepShape {
            precision: Precision::Fp16,
            micro_batch: 16,
            seq_len: 2048,
            accumulate: 4,
            recompute: Recompute::None,
            residual_dropout: true,
            embedding_dropout: false,
        };
        (Architecture::phi(24, 2048, 32, 51_200, 2048), shape)
    }

    #[test]
    fn a_steps_flops_are_the_models() {
        let (architecture, shape) = phi_1();
        for shape in [shape, StepShape { micro_batch: 3, accumulate: 1, ..shape }] {
            let flops: u64 = step_kernels(&architecture, &shape).iter().map(|kernel| kernel.flops * kernel.calls).sum();
            let tokens = (shape.tokens() * shape.accumulate) as f64;
            let expected = architecture.flops_per_token(2048) * tokens;
            assert!((flops as f64 / expected - 1.0).abs() < 1e-12, "{flops} {expected}");
        }
    }

    #[test]
    fn recomputation_adds_a_forward_pass() {
        let (architecture, shape) = phi_1();
        let calls = |recompute, part: &str| {
            let kernels = step_kernels(&architecture, &StepShape { recompute, ..shape });
            kernels.iter().filter(|kernel| kernel.part == part).map(|kernel| kernel.calls).sum::<u64>()
        };
        for (part, counts) in [
            ("GELU forward", [96, 192, 192]),
            ("linear forward 2048x2048", [96, 96, 96]),
            ("linear forward 2048x14336", [96, 96, 192]),
            ("layer norm forward", [4, 100, 100]),
            ("residual and norm forward", [96, 96, 96]),
        ] {
            let found =
                [Recompute::None, Recompute::Activation, Recompute::Block].map(|recompute| calls(recompute, part));
            assert_eq!(found, counts, "{part}");
        }
    }

    #[test]
    fn the_floor_is_that_of_the_issue() {
        // An H200's measured rates: products alone would take 86.7 thousand tokens a second.
        let (architecture, shape) = phi_1();
        let ceilings = Ceilings { matmul: 788e12, attention: 788e12, memory: 4.3e12 };
        let floor = StepFloor::new(&architecture, &shape, ceilings);
        assert!((60_000.0..86_700.0).contains(&floor.tokens_per_s), "{}", floor.tokens_per_s);
        let sum: f64 = floor.parts.iter().map(|part| part.floor_ms).sum();
        assert!((sum - floor.step_ms).abs() < 1e-9 * sum);
        let part = |name: &str| floor.parts.iter().find(|part| part.part == name).unwrap();
        // 28 bytes a parameter and the fp16 weights.
        assert!((part("AdamW").floor_ms / (1_418_270_720.0 * 30.0 / 4.3e12 * 1e3) - 1.0).abs() < 1e-4);
        assert_eq!(part("AdamW").bound, "memory");
        assert_eq!(part("linear forward 2048x14336").bound, "matmul");
        assert_eq!(part("attention backward").bound, "attention");
        // A slower rate of attention's products makes attention longer, and nothing else.
        let slow = StepFloor::new(&architecture, &shape, Ceilings { attention: 394e12, ..ceilings });
        let forward =
            |floor: &StepFloor| floor.parts.iter().find(|part| part.part == "attention forward").unwrap().floor_ms;
        assert!((forward(&slow) / forward(&floor) - 2.0).abs() < 1e-9);
        let attention = forward(&floor) + part("attention backward").floor_ms;
        assert!((slow.step_ms - floor.step_ms - attention).abs() < 1e-6);
    }
}
