//! The kernels' texts, and what stands before them.

use cubecl::ir::FloatKind;

use super::ampere_blueprint::Blueprint as Ampere;
use super::hopper_blueprint::{Blueprint as Hopper, THREADS};
use crate::cuda::{BASE, HOPPER, MMA, Program, Text, kind, suffix};

const COMMON: &str = include_str!("../../cuda/gemm.cuh");
static AMPERE_GEMM: Text = Text::new(&[BASE, COMMON, MMA, include_str!("../../cuda/ampere_gemm.cu")]);
static HOPPER_GEMM: Text =
    Text::new(&[BASE, COMMON, HOPPER, include_str!("../../cuda/wgmma.cuh"), include_str!("../../cuda/hopper_gemm.cu")]);

/// What a product asks of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Form {
    /// Of a and b: the rows run along k.
    pub k_rows: [bool; 2],
    pub input: FloatKind,
    pub output: FloatKind,
    pub bias: Option<FloatKind>,
    pub accumulate: bool,
    /// Vectors of the output are aligned.
    pub wide: bool,
    /// Where columns turn: half the elements of a head that do, and all of them.
    pub turned: Option<[usize; 2]>,
}

/// Which kernel, and its choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kernel {
    Ampere(Ampere),
    Hopper(Hopper),
}

/// A kernel for a product.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Gemm {
    pub kernel: Kernel,
    pub form: Form,
}

impl Program for Gemm {
    fn entry(&self) -> &'static str {
        match self.kernel {
            Kernel::Ampere(_) => "ampere_gemm",
            Kernel::Hopper(_) => "hopper_gemm",
        }
    }

    fn threads(&self) -> usize {
        match self.kernel {
            Kernel::Ampere(blueprint) => blueprint.threads(),
            Kernel::Hopper(_) => THREADS,
        }
    }

    fn shared_bytes(&self) -> usize {
        match self.kernel {
            Kernel::Ampere(blueprint) => blueprint.shared_bytes(),
            Kernel::Hopper(blueprint) => blueprint.shared_bytes(),
        }
    }

    fn text(&self) -> &'static Text {
        match self.kernel {
            Kernel::Ampere(_) => &AMPERE_GEMM,
            Kernel::Hopper(_) => &HOPPER_GEMM,
        }
    }

    fn parameters(&self) -> String {
        let Form { k_rows: [a, b], input, output, bias, accumulate, wide, turned } = self.form;
        let [half, head] = turned.unwrap_or([0, 1]);
        let turned = half / 8;
        let (input, output, bias) = (suffix(input), kind(output), bias.map_or("NONE", kind));
        let [a, b, accumulate, wide] = [a, b, accumulate, wide].map(u8::from);
        let [tile_m, tile_n, stages, group_m, cluster] = match self.kernel {
            Kernel::Ampere(Ampere { tile_m, tile_n, stages, group_m }) => [tile_m, tile_n, stages, group_m, 1],
            Kernel::Hopper(Hopper { tile_m, tile_n, stages, group_m, cluster }) => {
                [tile_m, tile_n, stages, group_m, cluster]
            }
        };
        format!(
            "#define TILE_M {tile_m}\n#define TILE_N {tile_n}\n#define STAGES {stages}\n#define GROUP_M {group_m}\n\
             #define CLUSTER {cluster}\n\
             #define A_MN {a}\n#define B_MN {b}\n#define IN \"{input}\"\n#define OUT {output}\n#define BIAS {bias}\n\
             #define ACCUMULATE {accumulate}\n#define WIDE {wide}\n\
             #define TURNED {turned}\n#define HEAD {head}\n"
        )
    }
}
