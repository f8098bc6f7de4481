//! A kernel as CubeCL compiles it: a text of ours beside the representation that it asks for.

use std::fmt::Debug;
use std::hash::Hash;

use cubecl::ir::FloatKind;
use cubecl::prelude::*;
use cubecl::{CompilationError, Compiler, CubeTask};
use cubecl_cpp::shared::{CompilationOptions, Elem, Item, SharedMemory};
use cubecl_cuda::CudaCompiler;

/// What is decided when a kernel is compiled. Equal ones are the same kernel.
pub(crate) trait Program: Clone + Debug + Eq + Hash + Send + Sync + 'static {
    /// The kernel's name in the text.
    fn entry(&self) -> &'static str;
    fn threads(&self) -> usize;
    /// Bytes of shared memory that are asked for at the launch.
    fn shared_bytes(&self) -> usize;
    /// What stands before the text.
    fn parameters(&self) -> String;
    fn text(&self) -> &'static Text;
}

/// The files of a kernel, one after the other.
pub(crate) struct Text {
    files: &'static [&'static str],
    /// Of the files: a cache of compiled kernels on disk knows them by their id alone.
    fingerprint: u64,
}

impl Text {
    pub(crate) const fn new(files: &'static [&'static str]) -> Self {
        // FNV-1a.
        let (mut hash, mut file) = (0xcbf2_9ce4_8422_2325, 0);
        while file < files.len() {
            let (bytes, mut at) = (files[file].as_bytes(), 0);
            while at < bytes.len() {
                hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
                at += 1;
            }
            file += 1;
        }
        Self { files, fingerprint: hash }
    }
}

/// As the texts call an element's kind.
pub(crate) fn kind(kind: FloatKind) -> &'static str {
    match kind {
        FloatKind::F16 => "F16",
        FloatKind::BF16 => "BF16",
        _ => "F32",
    }
}

/// As PTX calls the kind of 16-bit elements.
pub(crate) fn suffix(kind: FloatKind) -> &'static str {
    if kind == FloatKind::BF16 { "bf16" } else { "f16" }
}

pub(crate) struct Task<P>(pub P);

impl<P: Program> KernelMetadata for Task<P> {
    fn id(&self) -> KernelId {
        let Self(program) = self;
        let info = (program.text().fingerprint, program.clone());
        KernelId::new::<Self>().info(info).cube_dim(CubeDim::new_1d(program.threads() as u32))
    }

    fn address_type(&self) -> StorageType {
        AddressType::U32.unsigned_type()
    }
}

impl<P: Program> CubeTask<CudaCompiler> for Task<P> {
    fn compile(
        &self,
        compiler: &mut CudaCompiler,
        options: &CompilationOptions,
        mode: ExecutionMode,
        address_type: StorageType,
    ) -> Result<CompiledKernel<CudaCompiler>, CompilationError> {
        let Self(program) = self;
        let (entry, cube_dim) = (program.entry(), CubeDim::new_1d(program.threads() as u32));
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
        let shared = SharedMemory::new_array(0, Item::scalar(Elem::U8, true), program.shared_bytes(), 1);
        repr.body.shared_memories.push(shared);
        Ok(CompiledKernel {
            entrypoint_name: entry.to_owned(),
            debug_name: Some(entry),
            source: program.parameters() + &program.text().files.concat(),
            repr: Some(repr),
            cube_dim,
            debug_info: None,
        })
    }
}
