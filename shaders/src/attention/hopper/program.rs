//! The kernels' texts, and what stands before them.

use cubecl::ir::FloatKind;

use crate::cuda::{
    BASE, HOPPER, PATTERN, Program, ROW_BYTES, STAGE_BARRIERS, Text, WARPGROUP, WIDTH, kind, suffix,
};

const COMMON: &str = include_str!("../../../cuda/attention.cuh");
static FORWARD: Text = Text::new(&[BASE, HOPPER, COMMON, include_str!("../../../cuda/hopper_attention_forward.cu")]);
static STATS: Text = Text::new(&[BASE, HOPPER, COMMON, include_str!("../../../cuda/hopper_attention_stats.cu")]);
static DQ: Text = Text::new(&[BASE, HOPPER, COMMON, include_str!("../../../cuda/hopper_attention_dq.cu")]);
static DK_DV: Text = Text::new(&[BASE, HOPPER, COMMON, include_str!("../../../cuda/hopper_attention_dk_dv.cu")]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kernel {
    Forward,
    /// What gradients need of each query.
    Stats,
    Dq,
    DkDv,
}

/// What is decided when a kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attention {
    pub kernel: Kernel,
    /// That multiply: 2 or 3.
    pub warpgroups: usize,
    /// Blocks of the other side in shared memory or on their way there.
    pub stages: usize,
    /// F16 or BF16.
    pub input: FloatKind,
    pub dropout: bool,
}

impl Program for Attention {
    fn entry(&self) -> &'static str {
        match self.kernel {
            Kernel::Forward => "hopper_attention_forward",
            Kernel::Stats => "hopper_attention_stats",
            Kernel::Dq => "hopper_attention_dq",
            Kernel::DkDv => "hopper_attention_dk_dv",
        }
    }

    fn threads(&self) -> usize {
        match self.kernel {
            Kernel::Stats => 2 * WARPGROUP,
            // And one that fetches.
            _ => (self.warpgroups + 1) * WARPGROUP,
        }
    }

    fn shared_bytes(&self) -> usize {
        // Two matrices of 64 rows; of queries also their stats, in a pattern of its own.
        let stage = 2 * WIDTH * ROW_BYTES + if self.kernel == Kernel::DkDv { PATTERN } else { 0 };
        match self.kernel {
            Kernel::Stats => 0,
            _ => self.stages * (stage + STAGE_BARRIERS) + PATTERN,
        }
    }

    fn text(&self) -> &'static Text {
        match self.kernel {
            Kernel::Forward => &FORWARD,
            Kernel::Stats => &STATS,
            Kernel::Dq => &DQ,
            Kernel::DkDv => &DK_DV,
        }
    }

    fn parameters(&self) -> String {
        let Self { warpgroups, stages, input, dropout, .. } = *self;
        let (suffix, kind, dropout) = (suffix(input), kind(input), u8::from(dropout));
        format!(
            "#define CLUSTER 1\n#define WARPGROUPS {warpgroups}\n#define STAGES {stages}\n#define IN \"{suffix}\"\n\
             #define IN_KIND {kind}\n#define DROPOUT {dropout}\n"
        )
    }
}
