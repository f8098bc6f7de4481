//! The operations of a training step at a configuration's shapes.

use burn_tensor::DType;
use trainer_backends::ops::BlockDims;
use trainer_backends::tuning::Product;

use super::generation;
use crate::config::Config;
use crate::model::architecture::Architecture;
use crate::model::table::ParameterTable;
use crate::model::work::{Kernel, StepShape, step_kernels};
use crate::train::state::dtype;

/// The sizes that decide every operation's.
#[derive(Clone, Debug)]
pub struct Shape {
    pub architecture: Architecture,
    pub dtype: DType,
    pub dims: BlockDims,
    /// Of attention and of both branches.
    pub dropout: f64,
    /// Parameters of a block with the padding between them, and those that decay.
    pub block: [usize; 2],
    step: StepShape,
}

impl Shape {
    /// Those of a configuration.
    pub fn new(config: &Config) -> Self {
        let architecture = config.architecture();
        let block = &ParameterTable::new(&architecture).groups[1];
        let dims = BlockDims {
            batch: config.train.micro_batch,
            seq: config.model.seq_len,
            heads: architecture.heads,
            head_dim: architecture.head_dim(),
            rotary_dim: architecture.rotary_dim,
            mlp: architecture.mlp,
        };
        Self {
            dtype: dtype(config.train.precision),
            dims,
            dropout: config.model.attention_dropout,
            block: [block.len, block.decay_len],
            step: StepShape { accumulate: 1, ..StepShape::new(config) },
            architecture,
        }
    }

    pub fn tokens(&self) -> usize {
        self.dims.tokens()
    }

    pub fn hidden(&self) -> usize {
        self.dims.hidden()
    }

    pub fn vocab(&self) -> usize {
        self.architecture.vocab
    }

    /// Inputs and outputs of q, k, v and fc1 together, dense, fc2 and the head.
    pub fn layers(&self) -> [[usize; 2]; 4] {
        let c = self.hidden();
        [[c, self.dims.fused()], [c, c], [self.dims.mlp, c], [c, self.vocab()]]
    }
}

/// The index of the head among `Shape::layers`. In a step its products are of a chunk of the tokens, part of `Operation::Head`.
const HEAD: usize = 3;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Of a layer of `Shape::layers`.
    Linear(Product, usize),
    /// Forward and backward of the last layer, with softmax and loss.
    Head,
    AttentionForward,
    AttentionBackward,
    /// A residual sum and the norm behind it.
    NormForward,
    NormBackward,
    GeluForward,
    GeluBackward,
    Rotary,
    EmbeddingForward,
    EmbeddingBackward,
    Adamw,
    SumOfSquares,
    Clear,
    /// A block for one new token.
    Generation,
}

/// What one call computes and moves; all zero where nobody counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    pub flops: u64,
    pub bytes: u64,
    /// Whether products bound it.
    pub products: bool,
}

impl Operation {
    pub const GROUPS: [&'static str; 9] = [
        "products",
        "head-products",
        "head",
        "attention",
        "norm",
        "activations",
        "embedding",
        "optimizer",
        "generation",
    ];

    /// All of them, those that take the longest first.
    pub fn all() -> Vec<Self> {
        let linear = (0..4).flat_map(|layer| Product::ALL.map(|product| Self::Linear(product, layer)));
        let others = [
            Self::AttentionBackward,
            Self::AttentionForward,
            Self::Head,
            Self::GeluBackward,
            Self::NormBackward,
            Self::GeluForward,
            Self::NormForward,
            Self::Adamw,
            Self::Rotary,
            Self::EmbeddingBackward,
            Self::EmbeddingForward,
            Self::SumOfSquares,
            Self::Clear,
            Self::Generation,
        ];
        linear.chain(others).collect()
    }

    pub fn group(self) -> &'static str {
        match self {
            Self::Linear(_, HEAD) => "head-products",
            Self::Linear(..) => "products",
            Self::Head => "head",
            Self::AttentionForward | Self::AttentionBackward => "attention",
            Self::NormForward | Self::NormBackward => "norm",
            Self::GeluForward | Self::GeluBackward | Self::Rotary => "activations",
            Self::EmbeddingForward | Self::EmbeddingBackward => "embedding",
            Self::Adamw | Self::SumOfSquares | Self::Clear => "optimizer",
            Self::Generation => "generation",
        }
    }

    /// As `bench --by-part` calls it.
    pub fn name(self, shape: &Shape) -> String {
        let layer = |layer: usize| {
            let [inputs, outputs] = shape.layers()[layer];
            format!("{inputs}x{outputs}")
        };
        match self {
            Self::Linear(Product::Forward, of) => format!("linear forward {}", layer(of)),
            Self::Linear(Product::InputGrad, of) => format!("input grad {}", layer(of)),
            Self::Linear(Product::WeightGrad, of) => format!("weight grad {}", layer(of)),
            Self::Head => format!("head and loss {}", layer(HEAD)),
            Self::AttentionForward => "attention forward".into(),
            Self::AttentionBackward => "attention backward".into(),
            Self::NormForward => "residual and norm forward".into(),
            Self::NormBackward => "residual and norm backward".into(),
            Self::GeluForward => "GELU forward".into(),
            Self::GeluBackward => "GELU backward".into(),
            Self::Rotary => "rotary forward".into(),
            Self::EmbeddingForward => "embedding forward".into(),
            Self::EmbeddingBackward => "embedding backward".into(),
            Self::Adamw => "AdamW".into(),
            Self::SumOfSquares => "sum of squares".into(),
            Self::Clear => "clear gradients".into(),
            Self::Generation => "block of generation".into(),
        }
    }

    /// Whether a choice is tried out with this operation: each is with one.
    pub fn has(self, shape: &Shape, choice: &str) -> bool {
        let c = shape.layers()[1];
        match self {
            Self::Linear(product, layer) => {
                let own = product.tunable(shape.layers()[layer]);
                // Our own GEMM's tiles, and what follows a product, with one layer.
                let one = match product {
                    Product::Forward => ["gemm", "epilogue.units"].as_slice(),
                    Product::WeightGrad => &["sums.units"],
                    Product::InputGrad => &[],
                };
                choice == own || shape.layers()[layer] == c && one.contains(&choice)
            }
            Self::Head => choice.starts_with("loss."),
            Self::AttentionForward => ["attention.forward", "attention.forward-units"].contains(&choice),
            Self::AttentionBackward => ["attention.backward", "attention.backward-units"].contains(&choice),
            Self::NormForward => ["norm.units", "residual.units", "residual-norm.units"].contains(&choice),
            Self::NormBackward => ["norm.rows", "residual-norm.backward"].contains(&choice),
            Self::GeluForward => choice == "gelu.units",
            Self::GeluBackward => choice == "sums.rows",
            Self::Rotary => choice == "rotary.units",
            Self::EmbeddingBackward => choice == "embedding.units",
            Self::Adamw => choice == "adamw.units",
            Self::SumOfSquares => choice == "squares",
            Self::Clear => choice == "clear.units",
            Self::Generation => ["few-rows", "few-rows.branches", "attention.decode"].contains(&choice),
            Self::EmbeddingForward => false,
        }
    }

    /// Of one call. The optimizer's is that of one block's parameters.
    pub fn work(self, shape: &Shape) -> Work {
        if let Self::Linear(product, HEAD) = self {
            let [n, k, o, s] =
                [shape.tokens(), shape.hidden(), shape.vocab(), shape.dtype.size()].map(|size| size as u64);
            let activations = s * (n * k + n * o);
            let bytes = activations + if product == Product::WeightGrad { 8 * k * o } else { s * k * o };
            return Work { flops: 2 * n * k * o, bytes, products: true };
        }
        if self == Self::Generation {
            return generation::work(shape);
        }
        if self == Self::Rotary {
            // A step's is part of a product.
            let numbers = shape.tokens() * 2 * shape.dims.heads * shape.dims.rotary_dim;
            return Work { flops: 0, bytes: (2 * numbers * shape.dtype.size()) as u64, products: false };
        }
        let name = self.name(shape);
        let block = shape.block[0] as u64;
        let kernels: Vec<Kernel> =
            step_kernels(&shape.architecture, &shape.step).into_iter().filter(|kernel| kernel.part == name).collect();
        let sum = |what: fn(&Kernel) -> u64| kernels.iter().map(|kernel| kernel.calls * what(kernel)).sum::<u64>();
        let (flops, bytes) = (sum(|kernel| kernel.needed_flops), sum(|kernel| kernel.bytes));
        let calls = match self {
            // A micro-batch has one, whatever it consists of.
            Self::Head => 1,
            // Forward, and once more where it is computed again.
            Self::Adamw | Self::SumOfSquares | Self::Clear => {
                let all: usize = ParameterTable::new(&shape.architecture).groups.iter().map(|group| group.len).sum();
                return Work { flops: 0, bytes: bytes / all as u64 * block, products: false };
            }
            _ => kernels.iter().map(|kernel| kernel.calls).sum(),
        };
        Work { flops: flops / calls.max(1), bytes: bytes / calls.max(1), products: flops > 0 }
    }

    /// What it works on, for people.
    pub fn shape(self, shape: &Shape) -> String {
        let (n, dims) = (shape.tokens(), shape.dims);
        match self {
            Self::Linear(..) | Self::Head => format!("{n} tokens"),
            Self::AttentionForward | Self::AttentionBackward => {
                format!("{} x {} heads x {} x {}", dims.batch, dims.heads, dims.seq, dims.head_dim)
            }
            Self::GeluForward | Self::GeluBackward => format!("{n} x {}", dims.mlp),
            Self::Adamw | Self::SumOfSquares | Self::Clear => format!("{} parameters", shape.block[0]),
            Self::Generation => format!("1 token at position {}", generation::position(shape)),
            _ => format!("{n} x {}", shape.hidden()),
        }
    }
}
