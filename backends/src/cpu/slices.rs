//! Between burn-flex tensors and fp32 slices.

use burn_flex::{Flex, FlexTensor};
use burn_tensor::{DType, Int, Shape, Tensor, TensorData, TensorPrimitive};

/// A contiguous fp32 tensor whose elements can be read as a slice.
pub struct Wide(FlexTensor);

/// Widens to contiguous fp32; a contiguous fp32 tensor is not copied.
pub fn wide<const D: usize>(tensor: Tensor<Flex, D>) -> Wide {
    let tensor = tensor.cast(DType::F32).into_primitive().tensor();
    Wide(if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() })
}

impl std::ops::Deref for Wide {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // Contiguity and dtype were established by `wide`.
        #[expect(clippy::expect_used, reason = "established by `wide`")]
        self.0.as_slice::<f32>().expect("a contiguous fp32 tensor")
    }
}

/// Lends a buffer's bytes, without a copy where it is all of its storage.
pub fn with_bytes<R>(flat: &Tensor<Flex, 1>, look: impl FnOnce(&[u8]) -> R) -> R {
    // The handle alone is cloned.
    let tensor = flat.clone().into_primitive().tensor();
    if tensor.is_contiguous() && tensor.bytes().len() == flat.dims()[0] * flat.dtype().size() {
        return look(tensor.bytes());
    }
    look(tensor.into_data().as_bytes())
}

/// Token ids or targets as a slice of i32.
pub fn ids(tensor: Tensor<Flex, 1, Int>) -> Vec<i32> {
    #[expect(clippy::expect_used, reason = "converted on the same line")]
    tensor.into_data().convert::<i32>().into_vec().expect("i32 after conversion")
}

/// A new tensor of `shape` in `dtype` from fp32 values.
pub fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D], dtype: DType) -> Tensor<Flex, D> {
    let data = TensorData::new(values, Shape::from(shape.to_vec()));
    Tensor::<Flex, D>::from_primitive(TensorPrimitive::Float(FlexTensor::from_data(data))).cast(dtype)
}

/// Zeros that the operating system hands out lazily.
pub fn zeros(len: usize) -> Vec<f32> {
    vec![0.0; len]
}

/// Calls `change` on an fp32 buffer's elements, in place where nothing else holds the buffer.
pub fn modify<const D: usize, R>(tensor: &mut Tensor<Flex, D>, change: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut result = None;
    tensor.inplace(|tensor| {
        let (tensor, returned) = modified(tensor, change);
        result = Some(returned);
        tensor
    });
    #[expect(clippy::expect_used, reason = "inplace has no other way to its end")]
    result.expect("inplace calls its closure")
}

/// As `modify`, for an owned fp32 tensor of any rank.
pub fn modified<const D: usize, R>(
    tensor: Tensor<Flex, D>,
    change: impl FnOnce(&mut [f32]) -> R,
) -> (Tensor<Flex, D>, R) {
    let mut primitive = tensor.into_primitive().tensor();
    if primitive.as_slice::<f32>().is_none_or(|all| all.len() * 4 != primitive.bytes().len()) {
        primitive = primitive.to_contiguous();
    }
    let result = change(primitive.storage_mut::<f32>());
    (Tensor::from_primitive(TensorPrimitive::Float(primitive)), result)
}
