//! Kernels in CUDA C++ (shaders/cuda), for what CubeCL cannot say. CubeCL compiles them and launches them in its own stream.

mod family;
mod maps;
mod task;

use std::any::Any;

use cubecl::ir::features::Tma;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl::server::{Binding, KernelArguments, MetadataBindingInfo, TensorMapBinding, TensorMapMeta};
use cubecl::zspace::metadata::Metadata;
use cubecl::zspace::{Shape, Strides};
use cubecl_cuda::CudaRuntime;

pub use self::family::KernelFamily;
pub(crate) use self::maps::strides_in_any_order;
pub(crate) use self::task::{Program, Task, Text, kind, suffix};

/// What several kernels consist of: shaders/cuda/.
pub(crate) const BASE: &str = include_str!("../../cuda/base.cuh");
pub(crate) const HOPPER: &str = include_str!("../../cuda/hopper.cuh");
pub(crate) const MMA: &str = include_str!("../../cuda/mma.cuh");

/// Elements and bytes of a permuted row of a tile.
pub(crate) const WIDTH: usize = 64;
pub(crate) const ROW_BYTES: usize = 128;
/// Lost where shared memory does not start at a multiple of the permutation's pattern.
pub(crate) const PATTERN: usize = 1024;
/// Of the addresses and rows that are copied: a vector, and TMA's own.
pub(crate) const ALIGN: usize = 16;
/// Of a stage that TMA fills: two mbarriers of 8 bytes.
pub(crate) const STAGE_BARRIERS: usize = 16;
/// Threads that execute a wgmma together.
pub(crate) const WARPGROUP: usize = 128;

/// CubeCL's CUDA client, if this is one.
fn cuda<R: Runtime>(client: &ComputeClient<R>) -> Option<&ComputeClient<CudaRuntime>> {
    (client as &dyn Any).downcast_ref()
}

/// CubeCL's CUDA client, if this is one of a device with wgmma. Of the architectures that have TMA only 9.0 lacks the
/// wide im2col mode; those after it multiply in other ways.
pub(crate) fn hopper<R: Runtime>(client: &ComputeClient<R>) -> Option<&ComputeClient<CudaRuntime>> {
    let tma = &client.properties().features.tma;
    let hopper = tma.contains(Tma::Base) && !tma.contains(Tma::Im2colWide);
    cuda(client).filter(|_| hopper)
}

/// CubeCL's CUDA client, if this is one of a device with cp.async and the mma.sync of 16 k.
pub(crate) fn ampere<R: Runtime>(client: &ComputeClient<R>) -> Option<&ComputeClient<CudaRuntime>> {
    cuda(client).filter(|client| client.properties().features.copy_async)
}

/// The elements that the kernels read and write.
pub(crate) fn float(dtype: StorageType) -> Option<FloatKind> {
    match dtype {
        StorageType::Scalar(ElemType::Float(kind @ (FloatKind::F16 | FloatKind::BF16 | FloatKind::F32))) => Some(kind),
        _ => None,
    }
}

/// A tensor map, by `(extent, stride, box)` of each dimension in elements, the outermost first; the innermost's stride is
/// 1. Boxes of `WIDTH` elements are permuted as wgmma wants them. What lies outside is read as zero.
pub(crate) fn tensor_map(binding: Binding, dtype: StorageType, dims: &[(usize, usize, usize)]) -> TensorMapBinding {
    let of = |part: fn(&(usize, usize, usize)) -> usize| dims.iter().map(part).collect::<Vec<_>>();
    let rows = dims.len() > 1;
    let map = TensorMapMeta {
        format: TensorMapFormat::Tiled(TiledArgs { tile_size: Shape::from(of(|dim| dim.2)) }),
        metadata: Metadata::new(Shape::from(of(|dim| dim.0)), Strides::new(&of(|dim| dim.1))),
        elem_stride: Strides::new(&vec![1; dims.len()]),
        interleave: TensorMapInterleave::None,
        swizzle: if rows { TensorMapSwizzle::B128 } else { TensorMapSwizzle::None },
        prefetch: TensorMapPrefetch::B256,
        oob_fill: OobFill::Zero,
        storage_ty: dtype,
    };
    TensorMapBinding { binding, map }
}

/// What a kernel is given: buffers, and numbers by value (no part of them is dynamic).
pub(crate) fn arguments(buffers: Vec<Binding>, numbers: Vec<u64>) -> KernelArguments {
    let info = MetadataBindingInfo { dynamic_metadata_offset: numbers.len(), data: numbers };
    KernelArguments::new().with_buffers(buffers).with_info(info)
}
