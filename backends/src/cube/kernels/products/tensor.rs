//! Between burn's tensors and the buffers that kernels take.

use burn_backend::TensorMetadata;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use burn_tensor::{DType, Int, Shape, Tensor, TensorPrimitive};
use cubecl::client::ComputeClient;
use trainer_shaders::device::Buffer;

use crate::ops::{MatrixSlot, VectorSlot};

/// burn's primitive of a float tensor.
pub fn primitive<R, F, I, BT, const D: usize>(tensor: Tensor<CubeBackend<R, F, I, BT>, D>) -> CubeTensor<R>
where
    R: CubeRuntime,
    R::Server: cubecl::server::ComputeServer,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    tensor.into_primitive().tensor()
}

/// burn's primitive of a float tensor with its elements in row-major order, copied only if they are not.
pub fn contiguous<R, F, I, BT, const D: usize>(tensor: Tensor<CubeBackend<R, F, I, BT>, D>) -> CubeTensor<R>
where
    R: CubeRuntime,
    R::Server: cubecl::server::ComputeServer,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    burn_cubecl::kernel::into_contiguous(primitive(tensor))
}

/// Row-major token ids as i32.
pub fn token_ids<R, F, I, BT>(tokens: Tensor<CubeBackend<R, F, I, BT>, 1, Int>) -> CubeTensor<R>
where
    R: CubeRuntime,
    R::Server: cubecl::server::ComputeServer,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    burn_cubecl::kernel::into_contiguous(tokens.cast(DType::I32).into_primitive())
}

/// A float tensor of burn's.
pub fn tensor<R, F, I, BT, const D: usize>(primitive: CubeTensor<R>) -> Tensor<CubeBackend<R, F, I, BT>, D>
where
    R: CubeRuntime,
    R::Server: cubecl::server::ComputeServer,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// A tensor on the device of `like`, not initialised.
pub fn empty<R: CubeRuntime>(like: &CubeTensor<R>, shape: impl Into<Shape>, dtype: DType) -> CubeTensor<R> {
    burn_cubecl::ops::numeric::empty_device_dtype(like.client.clone(), like.device.clone(), shape.into(), dtype)
}

/// `tensor` in a buffer that nobody else holds, so that it can be written in place.
pub fn owned<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    if tensor.can_mut() && tensor.is_contiguous() { tensor } else { tensor.copy() }
}

/// What a kernel launcher takes of a tensor.
pub fn buffer<R: CubeRuntime>(tensor: CubeTensor<R>) -> Buffer<R> {
    let dtype = tensor.dtype.into();
    Buffer { binding: tensor.binding(), dtype }
}

/// The `shape` elements of the row-major `flat` from `offset` on, in the same buffer.
///
/// Offsets are those of the parameter table, aligned to 512 bytes at least, which every device binds.
pub fn view<R: CubeRuntime>(flat: &CubeTensor<R>, offset: usize, shape: impl Into<Shape>) -> CubeTensor<R> {
    let shape = shape.into();
    let size = flat.elem_size();
    let after = flat.shape().num_elements() - offset - shape.num_elements();
    let handle = flat.handle.clone().offset_start((offset * size) as u64).offset_end((after * size) as u64);
    CubeTensor::new_contiguous(flat.client.clone(), flat.device.clone(), shape, handle, flat.dtype)
}

/// Whether a slot may be bound where it is: at a multiple of the device's alignment and in row-major order.
pub fn can_view<R: CubeRuntime>(flat: &CubeTensor<R>, offset: usize) -> bool {
    let alignment = flat.client.properties().memory.alignment.max(1);
    flat.is_contiguous() && (offset * flat.elem_size()) as u64 % alignment == 0
}

/// The matrix at `slot`, without a copy where the device can bind it in place.
pub fn matrix<R, F, I, BT>(
    flat: &Tensor<CubeBackend<R, F, I, BT>, 1>,
    slot: MatrixSlot,
) -> Tensor<CubeBackend<R, F, I, BT>, 2>
where
    R: CubeRuntime,
    R::Server: cubecl::server::ComputeServer,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    let MatrixSlot { offset, rows, cols } = slot;
    let whole = primitive(flat.clone());
    if can_view(&whole, offset) {
        return tensor(view(&whole, offset, [rows, cols]));
    }
    flat.clone().slice([offset..offset + rows * cols]).reshape([rows, cols])
}

/// The vector at `slot`, without a copy where the device can bind it in place.
pub fn vector<R, F, I, BT>(
    flat: &Tensor<CubeBackend<R, F, I, BT>, 1>,
    slot: VectorSlot,
) -> Tensor<CubeBackend<R, F, I, BT>, 1>
where
    R: CubeRuntime,
    R::Server: cubecl::server::ComputeServer,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    let whole = primitive(flat.clone());
    if can_view(&whole, slot.offset) {
        return tensor(view(&whole, slot.offset, [slot.len]));
    }
    flat.clone().slice([slot.offset..slot.offset + slot.len])
}

/// Lets `write` change slots of `flat` in place. Slots that cannot be bound where they are go through a copy.
pub struct Slots<R: CubeRuntime> {
    flat: CubeTensor<R>,
}

impl<R: CubeRuntime> Slots<R> {
    /// Runs `write` over the buffer, which is copied first if it is shared.
    pub fn write<F, I, BT>(flat: &mut Tensor<CubeBackend<R, F, I, BT>, 1>, write: impl FnOnce(&Self))
    where
        R::Server: cubecl::server::ComputeServer,
        F: FloatElement,
        I: IntElement,
        BT: BoolElement,
    {
        flat.inplace(|flat| {
            let slots = Self { flat: owned(primitive(flat)) };
            write(&slots);
            tensor(slots.flat)
        });
    }

    /// The elements from `offset` on, to be added to.
    ///
    /// # Panics
    /// If `offset` is not aligned as the parameter table aligns its slots.
    pub fn at(&self, offset: usize, shape: impl Into<Shape>) -> CubeTensor<R> {
        assert!(
            can_view(&self.flat, offset),
            "the gradient slot at element {offset} is not aligned to {} bytes, as this device needs; lay slots out with \
             the parameter table",
            self.flat.client.properties().memory.alignment
        );
        view(&self.flat, offset, shape)
    }

    pub fn client(&self) -> &ComputeClient<R> {
        &self.flat.client
    }
}
