//! Between burn's tensors and the buffers that kernels take.

use burn_backend::{Backend, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_tensor::{DType, Int, Shape, Tensor, TensorPrimitive};
use cubecl::prelude::TensorBinding;
use trainer_shaders::device::Buffer;

use crate::ops::{MatrixSlot, VectorSlot};

/// A backend whose tensors are CubeCL buffers of the runtime `R`.
pub trait CubeTensors<R: CubeRuntime>:
    Backend<FloatTensorPrimitive = CubeTensor<R>, IntTensorPrimitive = CubeTensor<R>>
{
}

impl<R: CubeRuntime, B> CubeTensors<R> for B where
    B: Backend<FloatTensorPrimitive = CubeTensor<R>, IntTensorPrimitive = CubeTensor<R>>
{
}

/// burn's primitive of a float tensor.
pub fn primitive<R: CubeRuntime, B: CubeTensors<R>, const D: usize>(tensor: Tensor<B, D>) -> CubeTensor<R> {
    tensor.into_primitive().tensor()
}

/// burn's primitive of a float tensor with its elements in row-major order, copied only if they are not.
pub fn contiguous<R: CubeRuntime, B: CubeTensors<R>, const D: usize>(tensor: Tensor<B, D>) -> CubeTensor<R> {
    into_contiguous(primitive(tensor))
}

/// Row-major token ids as i32.
pub fn token_ids<R: CubeRuntime, B: CubeTensors<R>>(tokens: Tensor<B, 1, Int>) -> CubeTensor<R> {
    into_contiguous(tokens.cast(DType::I32).into_primitive())
}

/// A float tensor of burn's.
pub fn tensor<R: CubeRuntime, B: CubeTensors<R>, const D: usize>(primitive: CubeTensor<R>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// A row-major tensor on the device of `like`, not initialised. (burn's own `empty` may pad rows on CUDA.)
pub fn empty<R: CubeRuntime>(like: &CubeTensor<R>, shape: impl Into<Shape>, dtype: DType) -> CubeTensor<R> {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), dtype)
}

/// `tensor` in a row-major buffer that nobody else holds, so that it can be written in place.
pub fn owned<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    if tensor.can_mut() && tensor.is_contiguous() { tensor } else { into_contiguous(tensor.copy()) }
}

/// What a kernel launcher takes of a tensor.
pub fn buffer<R: CubeRuntime>(tensor: CubeTensor<R>) -> Buffer<R> {
    let dtype = tensor.dtype.into();
    Buffer { binding: tensor.binding(), dtype }
}

/// What a kernel launcher takes of a tensor whose dtype it knows.
pub fn binding<R: CubeRuntime>(tensor: &CubeTensor<R>) -> TensorBinding<R> {
    tensor.clone().binding()
}

/// Lets `write` change a flat buffer in place; a shared one is copied first.
pub fn modify<R: CubeRuntime, B: CubeTensors<R>>(flat: &mut Tensor<B, 1>, write: impl FnOnce(&CubeTensor<R>)) {
    flat.inplace(|flat| {
        let flat = owned(primitive(flat));
        write(&flat);
        tensor(flat)
    });
}

/// The `shape` elements of the row-major `flat` from `offset` on, in the same buffer; see `can_view`.
pub fn view<R: CubeRuntime>(flat: &CubeTensor<R>, offset: usize, shape: impl Into<Shape>) -> CubeTensor<R> {
    let shape = shape.into();
    let (size, len, all) = (flat.elem_size(), shape.num_elements(), flat.shape().num_elements());
    assert!(offset + len <= all, "elements {offset}..{} of a buffer of {all}", offset + len);
    let after = all - offset - len;
    let handle = flat.handle.clone().offset_start((offset * size) as u64).offset_end((after * size) as u64);
    CubeTensor::new_contiguous(flat.client.clone(), flat.device.clone(), shape, handle, flat.dtype)
}

/// Whether a slot may be bound where it is: at a multiple of the device's alignment and in row-major order.
pub fn can_view<R: CubeRuntime>(flat: &CubeTensor<R>, offset: usize) -> bool {
    let alignment = flat.client.properties().memory.alignment.max(1);
    flat.is_contiguous() && ((offset * flat.elem_size()) as u64).is_multiple_of(alignment)
}

/// The elements `offset..offset + len` of a row-major flat buffer in place, whatever their alignment: a binding that starts
/// at or a little before them, and how many elements after its start they begin. Never the whole of the buffer, which
/// may be larger than the device can bind.
pub fn slot<R: CubeRuntime>(flat: &CubeTensor<R>, offset: usize, len: usize) -> (TensorBinding<R>, usize) {
    let align = (flat.client.properties().memory.alignment as usize / flat.elem_size()).max(1);
    let skip = offset % align;
    (view(flat, offset - skip, [skip + len]).binding(), skip)
}

/// The matrix at `slot`, without a copy where the device can bind it in place.
pub fn matrix<R: CubeRuntime, B: CubeTensors<R>>(flat: &Tensor<B, 1>, slot: MatrixSlot) -> Tensor<B, 2> {
    let MatrixSlot { offset, rows, cols } = slot;
    let whole = primitive(flat.clone());
    if can_view(&whole, offset) {
        return tensor(view(&whole, offset, [rows, cols]));
    }
    flat.clone().slice([offset..offset + rows * cols]).reshape([rows, cols])
}

/// The vector at `slot`, without a copy where the device can bind it in place.
pub fn vector<R: CubeRuntime, B: CubeTensors<R>>(flat: &Tensor<B, 1>, slot: VectorSlot) -> Tensor<B, 1> {
    let whole = primitive(flat.clone());
    if can_view(&whole, slot.offset) {
        return tensor(view(&whole, slot.offset, [slot.len]));
    }
    flat.clone().slice([slot.offset..slot.offset + slot.len])
}
