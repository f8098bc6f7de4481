//! The kernel as CubeCL compiles it: a text of ours beside the representation that it asks for.

use cubecl::ir::FloatKind;
use cubecl::prelude::*;
use cubecl::{CompilationError, Compiler, CubeTask};
use cubecl_cpp::shared::{CompilationOptions, Elem, Item, SharedMemory};
use cubecl_cuda::CudaCompiler;

use super::blueprint::{Blueprint, THREADS};

const INSTRUCTIONS: &str = include_str!("../../cuda/wgmma.cuh");
const SOURCE: &str = include_str!("../../cuda/gemm.cu");
/// Of the source: a cache of compiled kernels on disk knows them by their id alone.
const FINGERPRINTS: [u64; 2] = [fingerprint(INSTRUCTIONS.as_bytes()), fingerprint(SOURCE.as_bytes())];
const ENTRY: &str = "hopper_gemm";

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

pub(super) struct Task {
    pub blueprint: Blueprint,
    pub form: Form,
}

impl Task {
    fn source(&self) -> String {
        let Blueprint { tile_m, tile_n, stages, group_m, cluster } = self.blueprint;
        let Form { k_rows: [a, b], input, output, bias, accumulate, wide } = self.form;
        let input = if input == FloatKind::BF16 { "bf16" } else { "f16" };
        let name = |kind| match kind {
            FloatKind::F16 => "F16",
            FloatKind::BF16 => "BF16",
            _ => "F32",
        };
        let (output, bias) = (name(output), bias.map_or("NONE", name));
        let [a, b, accumulate, wide] = [a, b, accumulate, wide].map(u8::from);
        format!(
            "#define TILE_M {tile_m}\n#define TILE_N {tile_n}\n#define STAGES {stages}\n#define GROUP_M {group_m}\n\
             #define CLUSTER {cluster}\n\
             #define A_MN {a}\n#define B_MN {b}\n#define IN \"{input}\"\n#define OUT {output}\n#define BIAS {bias}\n\
             #define ACCUMULATE {accumulate}\n#define WIDE {wide}\n{INSTRUCTIONS}{SOURCE}"
        )
    }
}

impl KernelMetadata for Task {
    fn id(&self) -> KernelId {
        KernelId::new::<Self>()
            .info((FINGERPRINTS, self.blueprint, self.form))
            .cube_dim(CubeDim::new_1d(THREADS as u32))
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
        let cube_dim = CubeDim::new_1d(THREADS as u32);
        // CubeCL sizes the launch's shared memory by this and takes nothing else from it.
        let stub = KernelDefinition {
            buffers: Vec::new(),
            tensor_maps: Vec::new(),
            scalars: Vec::new(),
            cube_dim,
            body: Scope::root(false),
            options: KernelOptions { kernel_name: ENTRY.to_owned(), ..KernelOptions::default() },
        };
        let mut repr = compiler.compile(stub, options, mode, address_type)?;
        repr.body.shared_memories.push(SharedMemory::new_array(
            0,
            Item::scalar(Elem::U8, true),
            self.blueprint.shared_bytes(),
            1,
        ));
        Ok(CompiledKernel {
            entrypoint_name: ENTRY.to_owned(),
            debug_name: Some(ENTRY),
            source: self.source(),
            repr: Some(repr),
            cube_dim,
            debug_info: None,
        })
    }
}
