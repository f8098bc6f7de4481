//! The kernels as CubeCL compiles them: a text of ours beside the representation that it asks for.

use cubecl::ir::FloatKind;
use cubecl::prelude::*;
use cubecl::{CompilationError, Compiler, CubeTask};
use cubecl_cpp::shared::{CompilationOptions, Elem, Item, SharedMemory};
use cubecl_cuda::CudaCompiler;

use super::ampere_blueprint::Blueprint as Ampere;
use super::hopper_blueprint::{Blueprint as Hopper, THREADS};

const COMMON: &str = include_str!("../../cuda/common.cuh");
const WGMMA: &str = include_str!("../../cuda/wgmma.cuh");
const HOPPER: &str = include_str!("../../cuda/hopper_gemm.cu");
const AMPERE: &str = include_str!("../../cuda/ampere_gemm.cu");
/// Of the sources: a cache of compiled kernels on disk knows them by their id alone.
const FINGERPRINTS: [u64; 4] = [
    fingerprint(COMMON.as_bytes()),
    fingerprint(WGMMA.as_bytes()),
    fingerprint(HOPPER.as_bytes()),
    fingerprint(AMPERE.as_bytes()),
];

/// FNV-1a.
const fn fingerprint(bytes: &[u8]) -> u64 {
    let (mut hash, mut at) = (0xcbf2_9ce4_8422_2325, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

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
}

/// Which kernel, and its choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kernel {
    Ampere(Ampere),
    Hopper(Hopper),
}

impl Kernel {
    fn entry(self) -> &'static str {
        match self {
            Self::Ampere(_) => "ampere_gemm",
            Self::Hopper(_) => "hopper_gemm",
        }
    }

    fn cube_dim(self) -> CubeDim {
        CubeDim::new_1d(match self {
            Self::Ampere(blueprint) => blueprint.threads() as u32,
            Self::Hopper(_) => THREADS as u32,
        })
    }

    fn shared_bytes(self) -> usize {
        match self {
            Self::Ampere(blueprint) => blueprint.shared_bytes(),
            Self::Hopper(blueprint) => blueprint.shared_bytes(),
        }
    }
}

pub(super) struct Task {
    pub kernel: Kernel,
    pub form: Form,
}

impl Task {
    fn source(&self) -> String {
        let Form { k_rows: [a, b], input, output, bias, accumulate, wide } = self.form;
        let input = if input == FloatKind::BF16 { "bf16" } else { "f16" };
        let name = |kind| match kind {
            FloatKind::F16 => "F16",
            FloatKind::BF16 => "BF16",
            _ => "F32",
        };
        let (output, bias) = (name(output), bias.map_or("NONE", name));
        let [a, b, accumulate, wide] = [a, b, accumulate, wide].map(u8::from);
        let ([tile_m, tile_n, stages, group_m, cluster], [instructions, source]) = match self.kernel {
            Kernel::Ampere(Ampere { tile_m, tile_n, stages, group_m }) => {
                ([tile_m, tile_n, stages, group_m, 1], ["", AMPERE])
            }
            Kernel::Hopper(Hopper { tile_m, tile_n, stages, group_m, cluster }) => {
                ([tile_m, tile_n, stages, group_m, cluster], [WGMMA, HOPPER])
            }
        };
        format!(
            "#define TILE_M {tile_m}\n#define TILE_N {tile_n}\n#define STAGES {stages}\n#define GROUP_M {group_m}\n\
             #define CLUSTER {cluster}\n\
             #define A_MN {a}\n#define B_MN {b}\n#define IN \"{input}\"\n#define OUT {output}\n#define BIAS {bias}\n\
             #define ACCUMULATE {accumulate}\n#define WIDE {wide}\n{COMMON}{instructions}{source}"
        )
    }
}

impl KernelMetadata for Task {
    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info((FINGERPRINTS, self.kernel, self.form)).cube_dim(self.kernel.cube_dim())
    }

    fn address_type(&self) -> StorageType {
        AddressType::U32.unsigned_type()
    }
}

impl CubeTask<CudaCompiler> for Task {
    fn compile(
        &self,
        compiler: &mut CudaCompiler,
        options: &CompilationOptions,
        mode: ExecutionMode,
        address_type: StorageType,
    ) -> Result<CompiledKernel<CudaCompiler>, CompilationError> {
        let (entry, cube_dim) = (self.kernel.entry(), self.kernel.cube_dim());
        // CubeCL sizes the launch's shared memory by this and takes nothing else from it.
        let stub = KernelDefinition {
            buffers: Vec::new(),
            tensor_maps: Vec::new(),
            scalars: Vec::new(),
            cube_dim,
            body: Scope::root(false),
            options: KernelOptions { kernel_name: entry.to_owned(), ..KernelOptions::default() },
        };
        let mut repr = compiler.compile(stub, options, mode, address_type)?;
        repr.body.shared_memories.push(SharedMemory::new_array(
            0,
            Item::scalar(Elem::U8, true),
            self.kernel.shared_bytes(),
            1,
        ));
        Ok(CompiledKernel {
            entrypoint_name: entry.to_owned(),
            debug_name: Some(entry),
            source: self.source(),
            repr: Some(repr),
            cube_dim,
            debug_info: None,
        })
    }
}
