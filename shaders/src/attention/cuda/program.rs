//! The kernels' texts, and what stands before them.

use cubecl::ir::FloatKind;

use crate::cuda::{
    BASE, HOPPER, MMA, PATTERN, Program, ROW_BYTES, STAGE_BARRIERS, Text, WARPGROUP, WIDTH, kind, suffix,
};

const COMMON: &str = include_str!("../../../cuda/attention.cuh");
const ON_HOPPER: &str = include_str!("../../../cuda/hopper_attention.cuh");
const ON_AMPERE: &str = include_str!("../../../cuda/ampere_attention.cuh");
const FORWARD: &str = include_str!("../../../cuda/attention_forward.cu");
const DQ: &str = include_str!("../../../cuda/attention_dq.cu");
const DK_DV: &str = include_str!("../../../cuda/attention_dk_dv.cu");

/// In the order of `Kernel`.
static HOPPER_TEXTS: [Text; 3] = [
    Text::new(&[BASE, COMMON, HOPPER, ON_HOPPER, FORWARD]),
    Text::new(&[BASE, COMMON, HOPPER, ON_HOPPER, DQ]),
    Text::new(&[BASE, COMMON, HOPPER, ON_HOPPER, DK_DV]),
];
static AMPERE_TEXTS: [Text; 3] = [
    Text::new(&[BASE, COMMON, MMA, ON_AMPERE, FORWARD]),
    Text::new(&[BASE, COMMON, MMA, ON_AMPERE, DQ]),
    Text::new(&[BASE, COMMON, MMA, ON_AMPERE, DK_DV]),
];

/// What multiplies and copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Instructions {
    /// wgmma and TMA: compute capability 9.0.
    Hopper,
    /// mma.sync and cp.async: 8.0 and later.
    Ampere,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kernel {
    Forward,
    /// Also what the next needs of each query.
    Dq,
    DkDv,
}

/// What is decided when a kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attention {
    pub kernel: Kernel,
    pub instructions: Instructions,
    /// That multiply.
    pub warpgroups: usize,
    /// Blocks of the other side in shared memory or on their way there.
    pub stages: usize,
    /// F16 or BF16.
    pub input: FloatKind,
    pub dropout: bool,
    /// Whether gradients are taken on to what was projected: then half the elements of a head that turned, over 8.
    pub turned: Option<usize>,
}

impl Program for Attention {
    fn entry(&self) -> &'static str {
        match self.kernel {
            Kernel::Forward => "attention_forward",
            Kernel::Dq => "attention_dq",
            Kernel::DkDv => "attention_dk_dv",
        }
    }

    fn threads(&self) -> usize {
        match self.instructions {
            // One more fetches there.
            Instructions::Hopper => (self.warpgroups + 1) * WARPGROUP,
            Instructions::Ampere => self.warpgroups * WARPGROUP,
        }
    }

    fn shared_bytes(&self) -> usize {
        // Two matrices of 64 rows; of queries also their stats, in a pattern of its own.
        let stage = 2 * WIDTH * ROW_BYTES + if self.kernel == Kernel::DkDv { PATTERN } else { 0 };
        self.stages * (stage + STAGE_BARRIERS) + PATTERN
    }

    fn text(&self) -> &'static Text {
        let texts = match self.instructions {
            Instructions::Hopper => &HOPPER_TEXTS,
            Instructions::Ampere => &AMPERE_TEXTS,
        };
        &texts[self.kernel as usize]
    }

    fn parameters(&self) -> String {
        let Self { warpgroups, stages, input, dropout, turned, .. } = *self;
        let (projected, turned) = (u8::from(turned.is_some()), turned.unwrap_or(0));
        let (suffix, kind, dropout) = (suffix(input), kind(input), u8::from(dropout));
        format!(
            "#define CLUSTER 1\n#define WARPGROUPS {warpgroups}\n#define STAGES {stages}\n#define IN \"{suffix}\"\n\
             #define IN_KIND {kind}\n#define DROPOUT {dropout}\n#define PROJECTED {projected}\n#define TURNED {turned}\n"
        )
    }
}
