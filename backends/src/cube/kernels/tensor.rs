//! From burn's tensors to the buffers that kernels take, and back.

use burn_backend::{Backend, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_tensor::{DType, Int, Shape, Tensor, TensorPrimitive};
use cubecl::prelude::TensorBinding;
use trainer_shaders::device::Buffer;

use crate::ops::{MatrixSlot, VectorSlot};
use crate::transfer::DeviceSpan;

/// A backend whose tensors are CubeCL buffers of the runtime `R`.
pub trait CubeTensors<R: CubeRuntime>:
    Backend<FloatTensorPrimitive = CubeTensor<R>, IntTensorPrimitive = CubeTensor<R>>
{
}

impl<R: CubeRuntime, B> CubeTensors<R> for B where
    B: Backend<FloatTensorPrimitive = CubeTensor<R>, IntTensorPrimitive = CubeTensor<R>>
{
}

/// The tensor's buffer, row-major without gaps; copied where it is not.
pub fn cube<R: CubeRuntime, B: CubeTensors<R>, const D: usize>(tensor: Tensor<B, D>) -> CubeTensor<R> {
    into_contiguous(tensor.into_primitive().tensor())
}

/// As `cube`, of 32-bit integers.
pub fn cube_int<R: CubeRuntime, B: CubeTensors<R>>(tensor: Tensor<B, 1, Int>) -> CubeTensor<R> {
    let tensor = if tensor.dtype() == DType::I32 { tensor } else { tensor.cast(DType::I32) };
    into_contiguous(tensor.into_primitive())
}

/// As `cube`, of a buffer that nothing else refers to, so that it may be written; copied where something does.
pub fn owned<R: CubeRuntime, B: CubeTensors<R>, const D: usize>(tensor: Tensor<B, D>) -> CubeTensor<R> {
    let tensor = cube(tensor);
    if tensor.can_mut() { tensor } else { tensor.copy() }
}

/// Lets `write` change a tensor's buffer in place; of a shared buffer it changes a copy.
pub fn modify<R: CubeRuntime, B: CubeTensors<R>, const D: usize>(
    tensor: &mut Tensor<B, D>,
    write: impl FnOnce(&CubeTensor<R>),
) {
    tensor.inplace(|tensor| {
        let tensor = owned(tensor);
        write(&tensor);
        float(tensor)
    });
}

pub fn float<R: CubeRuntime, B: CubeTensors<R>, const D: usize>(tensor: CubeTensor<R>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(tensor))
}

/// An uninitialised row-major tensor beside `like`.
pub fn empty<R: CubeRuntime>(like: &CubeTensor<R>, shape: impl Into<Shape>, dtype: DType) -> CubeTensor<R> {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), dtype)
}

pub fn binding<R: CubeRuntime>(tensor: &CubeTensor<R>) -> TensorBinding<R> {
    tensor.clone().binding()
}

pub fn buffer<R: CubeRuntime>(tensor: &CubeTensor<R>) -> Buffer<R> {
    Buffer { dtype: tensor.dtype.into(), binding: binding(tensor) }
}

/// The elements `offset..offset + len` of a flat buffer, without a copy: a binding that starts at the device's alignment
/// at or below them, and how many elements after its start they begin. A binding of the slot only, since the whole of a
/// flat buffer may be larger than a device can bind.
pub fn slot<R: CubeRuntime>(flat: &CubeTensor<R>, offset: usize, len: usize) -> (TensorBinding<R>, usize) {
    let align = flat.client.properties().memory.alignment as usize / flat.elem_size();
    let start = offset / align * align;
    (part(flat, start, [offset + len - start]).binding(), offset - start)
}

/// A view of a flat buffer's elements from `start` on; `start` must be aligned for the device.
pub fn part<R: CubeRuntime>(flat: &CubeTensor<R>, start: usize, shape: impl Into<Shape>) -> CubeTensor<R> {
    let shape = shape.into();
    let (elem, len) = (flat.elem_size(), shape.num_elements());
    let all = flat.shape().num_elements();
    assert!(start + len <= all, "elements {start}..{} of a buffer of {all}", start + len);
    let before = (start * elem) as u64;
    let after = flat.handle.size_in_used() - before - (len * elem) as u64;
    let handle = flat.handle.clone().offset_start(before).offset_end(after);
    CubeTensor::new_contiguous(flat.client.clone(), flat.device.clone(), shape, handle, flat.dtype)
}

/// `DecoderBackend::matrix`: a view where the slot is aligned for the device, else a copy.
pub fn matrix<R: CubeRuntime, B: CubeTensors<R>>(flat: &Tensor<B, 1>, slot: MatrixSlot) -> Tensor<B, 2> {
    let MatrixSlot { offset, rows, cols } = slot;
    match view::<R, B>(flat, offset, [rows, cols].into()) {
        Some(view) => float(view),
        None => flat.clone().slice([offset..offset + rows * cols]).reshape([rows, cols]),
    }
}

/// `DecoderBackend::vector`: a view where the slot is aligned for the device, else a copy.
pub fn vector<R: CubeRuntime, B: CubeTensors<R>>(flat: &Tensor<B, 1>, slot: VectorSlot) -> Tensor<B, 1> {
    match view::<R, B>(flat, slot.offset, [slot.len].into()) {
        Some(view) => float(view),
        None => flat.clone().slice([slot.offset..slot.offset + slot.len]),
    }
}

fn view<R: CubeRuntime, B: CubeTensors<R>>(flat: &Tensor<B, 1>, offset: usize, shape: Shape) -> Option<CubeTensor<R>> {
    let flat = flat.clone().into_primitive().tensor();
    let align = flat.client.properties().memory.alignment as usize;
    let aligned = flat.is_contiguous() && (offset * flat.elem_size()).is_multiple_of(align);
    aligned.then(|| part(&flat, offset, shape))
}

/// `DecoderBackend::span`: CUDA's addresses are what NCCL takes.
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub fn span<R: CubeRuntime, B: CubeTensors<R>>(flat: &Tensor<B, 1>) -> Option<DeviceSpan> {
    let tensor: Box<dyn std::any::Any> = Box::new(flat.clone().into_primitive().tensor());
    let tensor = tensor.downcast::<CubeTensor<cubecl::cuda::CudaRuntime>>().ok().filter(|flat| flat.is_contiguous())?;
    let bytes = tensor.shape().num_elements() * tensor.elem_size();
    let resource = tensor.client.get_resource(tensor.handle.clone()).ok()?;
    Some(DeviceSpan::new(resource.resource().ptr, bytes, resource))
}

#[cfg(not(all(feature = "cuda", not(target_os = "macos"))))]
pub fn span<R: CubeRuntime, B: CubeTensors<R>>(_: &Tensor<B, 1>) -> Option<DeviceSpan> {
    None
}
