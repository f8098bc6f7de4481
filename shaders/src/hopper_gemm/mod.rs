//! The matrix product of compute capability 9.0: TMA, a ring of stages, wgmma. CubeCL has no wgmma, so the kernel is
//! CUDA C++ (shaders/cuda/gemm.cu), compiled and launched by CubeCL in its own stream.

mod blueprint;
mod task;

use std::any::Any;

use cubecl::ir::features::Tma;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl::server::{Binding, KernelArguments, MetadataBindingInfo, TensorMapBinding, TensorMapMeta};
use cubecl::zspace::metadata::Metadata;
use cubecl::zspace::{Shape, Strides};
use cubecl_cuda::CudaRuntime;

use self::blueprint::WIDTH;
pub use self::blueprint::{Blueprint, Setting};
use self::task::{Form, Task};
use crate::device::Buffer;

/// Rows of a 16-bit matrix as TMA takes them.
pub struct Operand<R: Runtime> {
    pub buffer: Buffer<R>,
    /// Index of the first row's first element.
    pub start: usize,
    pub rows: usize,
    pub cols: usize,
    /// The rows run along k, not along m (or n).
    pub k_rows: bool,
}

/// Where the product goes: row-major, without gaps.
pub struct Destination<R: Runtime> {
    pub buffer: Buffer<R>,
    /// Index of the first element.
    pub start: usize,
    /// Add to what is there instead of overwriting it.
    pub accumulate: bool,
}

/// TMA's alignment of addresses and strides.
const TMA_ALIGN: usize = 16;

/// CubeCL's CUDA client, if this is one of a device with wgmma. Of the architectures that have TMA only 9.0 lacks the
/// wide im2col mode; those after it multiply in other ways.
fn capable<R: Runtime>(client: &ComputeClient<R>) -> Option<&ComputeClient<CudaRuntime>> {
    let tma = &client.properties().features.tma;
    let hopper = tma.contains(Tma::Base) && !tma.contains(Tma::Im2colWide);
    (client as &dyn Any).downcast_ref().filter(|_| hopper)
}

/// Whether `hopper_gemm` runs on this device.
pub fn available<R: Runtime>(client: &ComputeClient<R>) -> bool {
    capable(client).is_some()
}

/// The elements that wgmma multiplies, and those that it writes here.
fn float(dtype: StorageType) -> Option<FloatKind> {
    match dtype {
        StorageType::Scalar(ElemType::Float(kind @ (FloatKind::F16 | FloatKind::BF16 | FloatKind::F32))) => Some(kind),
        _ => None,
    }
}

impl<R: Runtime> Operand<R> {
    /// Whether a tensor map can be made of it.
    fn aligned(&self) -> bool {
        let start = self.buffer.binding.handle.offset_start.unwrap_or(0) as usize + self.start * 2;
        start.is_multiple_of(TMA_ALIGN) && (self.cols * 2).is_multiple_of(TMA_ALIGN)
    }

    fn binding(&self) -> Binding {
        let mut binding = self.buffer.binding.handle.clone();
        binding.offset_start = Some(binding.offset_start.unwrap_or(0) + self.start as u64 * 2);
        binding
    }

    /// A map of boxes that are one swizzled row wide, and of `side` rows where those run along m or n.
    fn map(&self, side: usize) -> TensorMapBinding {
        let rows = if self.k_rows { WIDTH } else { side };
        let map = TensorMapMeta {
            format: TensorMapFormat::Tiled(TiledArgs { tile_size: Shape::new([rows, WIDTH]) }),
            metadata: Metadata::new(Shape::new([self.rows, self.cols]), Strides::new(&[self.cols, 1])),
            elem_stride: Strides::new(&[1, 1]),
            interleave: TensorMapInterleave::None,
            swizzle: TensorMapSwizzle::B128,
            prefetch: TensorMapPrefetch::B256,
            oob_fill: OobFill::Zero,
            storage_ty: self.buffer.dtype,
        };
        TensorMapBinding { binding: self.binding(), map }
    }

    /// Extents along m (or n) and along k.
    fn extents(&self) -> [usize; 2] {
        if self.k_rows { [self.cols, self.rows] } else { [self.rows, self.cols] }
    }
}

/// out[m, n] = sum over k of a[m, k] b[n, k] (+ bias[n]), or added to what `out` holds; fp32 sums. Whether that was
/// launched: not on other devices, nor for operands that are not both fp16 or both bf16, or whose rows TMA cannot
/// address.
///
/// # Panics
/// If the operands' extents do not fit each other.
#[must_use]
pub fn hopper_gemm<R: Runtime>(
    client: &ComputeClient<R>,
    setting: Setting,
    a: Operand<R>,
    b: Operand<R>,
    bias: Option<Buffer<R>>,
    out: Destination<R>,
) -> bool {
    let ([m, k], [n, b_k]) = (a.extents(), b.extents());
    assert!(k == b_k, "a has {k} terms a sum, b {b_k}");
    let Some(client) = capable(client) else { return false };
    let dtypes = (float(a.buffer.dtype), float(b.buffer.dtype), float(out.buffer.dtype));
    let (Some(input), Some(right), Some(output)) = dtypes else { return false };
    let bias_kind = bias.as_ref().map(|bias| float(bias.dtype));
    let few = [m, n, k].iter().all(|size| (1..=i32::MAX as usize / 2).contains(size));
    if input == FloatKind::F32 || input != right || bias_kind == Some(None) || !few || !a.aligned() || !b.aligned() {
        return false;
    }
    let multiprocessors = client.properties().hardware.num_streaming_multiprocessors.unwrap_or(1) as usize;
    let Some(blueprint) = setting.blueprint([m, n], multiprocessors) else { return false };
    let vector = if output == FloatKind::F32 { 2 } else { TMA_ALIGN / 2 };
    let form = Form {
        k_rows: [a.k_rows, b.k_rows],
        input,
        output,
        bias: bias_kind.flatten(),
        accumulate: out.accumulate,
        wide: n.is_multiple_of(vector) && out.start.is_multiple_of(vector),
    };
    let clusters = m.div_ceil(blueprint.cluster_m()) * n.div_ceil(blueprint.tile_n);
    let clusters = clusters.min((multiprocessors / blueprint.cluster).max(1));
    let grid = CubeCount::Static((clusters * blueprint.cluster) as u32, 1, 1);
    let maps = vec![a.map(blueprint.tile_m), b.map(blueprint.tile_n / blueprint.cluster)];
    let destination = out.buffer.binding.handle;
    // Without a bias a pointer is still passed, and not read through.
    let bias = bias.map_or_else(|| destination.clone(), |bias| bias.binding.handle);
    // The operands once more as buffers: CubeCL waits for other streams only of those.
    let buffers = vec![a.binding(), b.binding(), bias, destination];
    let numbers = vec![m as u64, n as u64, k as u64, out.start as u64];
    let arguments = KernelArguments::new()
        .with_tensor_maps(maps)
        .with_buffers(buffers)
        // By value: no part of it is dynamic.
        .with_info(MetadataBindingInfo { dynamic_metadata_offset: numbers.len(), data: numbers });
    client.launch(Box::new(Task { blueprint, form }), grid, arguments);
    true
}
