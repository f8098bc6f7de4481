//! What the self-test (tests/parity.rs) cannot see of the kernels: views, sharing, order of sums. On WGPU (software Vulkan in
//! CI); says so where there is no adapter.
#![cfg(feature = "wgpu")]

use burn_tensor::{DType, Tensor, TensorData};
use trainer_backends::discovery;
use trainer_backends::ops::{BlockDims, MatrixSlot, RotaryTable, Turn, VectorSlot};
use trainer_backends::{DecoderBackend, Wgpu, wgpu_device};

type Device = <Wgpu as burn_backend::BackendTypes>::Device;

fn device() -> Option<Device> {
    match discovery::choose(discovery::Request::Wgpu, None) {
        Ok(choice) => Some(wgpu_device(&choice.device)),
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

fn counting(len: usize, device: &Device, dtype: DType) -> Tensor<Wgpu, 1> {
    let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
    Tensor::from_data(TensorData::new(values, [len]).convert_dtype(dtype), (device, dtype))
}

fn values<const D: usize>(tensor: &Tensor<Wgpu, D>) -> Vec<f32> {
    tensor.to_data().convert_dtype(DType::F32).into_vec().unwrap()
}

/// Views start and end where their slots do, whatever the alignment, and further operations read them rightly.
#[test]
fn views_of_a_flat_buffer() {
    let Some(device) = device() else { return };
    for dtype in [DType::F32, DType::F16] {
        let flat = counting(2000, &device, dtype);
        for offset in [0, 256, 512, 517] {
            let expected: Vec<f32> = (offset..offset + 33 * 7).map(|i| i as f32).collect();
            let matrix = Wgpu::matrix(&flat, MatrixSlot { offset, rows: 33, cols: 7 });
            let vector = Wgpu::vector(&flat, VectorSlot { offset, len: 33 * 7 });
            assert_eq!((values(&matrix), values(&vector)), (expected.clone(), expected.clone()));
            let sum = values(&(matrix.transpose().cast(DType::F32) + 1.0));
            assert_eq!(sum[1], expected[7] + 1.0);
        }
        let whole = Wgpu::vector(&flat, VectorSlot { offset: 0, len: 2000 });
        assert_eq!(values(&whole), values(&flat));
    }
}

/// What else refers to a buffer does not see it change.
#[test]
fn a_shared_buffer_is_copied_before_it_is_written() {
    let Some(device) = device() else { return };
    let mut flat = counting(1024, &device, DType::F32);
    let view = Wgpu::vector(&flat, VectorSlot { offset: 256, len: 256 });
    let before = values(&view);
    Wgpu::clear(&mut flat);
    assert_eq!(values(&view), before);
    assert!(values(&flat).iter().all(|value| *value == 0.0));

    let dims = BlockDims { batch: 1, seq: 3, heads: 1, head_dim: 4, rotary_dim: 4, mlp: 4 };
    let fused = counting(3 * dims.fused(), &device, DType::F32).reshape([3, dims.fused()]);
    let shared = fused.clone();
    let half = || Tensor::full([3, 2], 0.5, (&device, DType::F32));
    let turned = Wgpu::rotary(fused, &RotaryTable { cos: half(), sin: half() }, dims, Turn::Forward);
    assert_ne!(values(&turned), values(&shared));
    assert_eq!(values(&shared), (0..3 * dims.fused()).map(|i| i as f32).collect::<Vec<_>>());
}

/// The same inputs give the same bits, sums over many rows included.
#[test]
fn gradients_repeat_bit_for_bit() {
    let Some(device) = device() else { return };
    let run = || {
        let ids: Vec<i32> = (0..3000).map(|i| i * i % 7).collect();
        let ids = Tensor::from_data(TensorData::new(ids, [3000]), (&device, DType::I32));
        let dx = (counting(3000 * 12, &device, DType::F32) * 0.37).sin().reshape([3000, 12]);
        let mut grads = Tensor::zeros([7 * 12], (&device, DType::F32));
        Wgpu::token_embedding_backward(dx, ids, &mut grads, MatrixSlot { offset: 0, rows: 7, cols: 12 });
        let squares = Wgpu::sum_of_squares(&grads);
        (values(&grads), values(&squares))
    };
    let first = run();
    assert!(first.0.iter().any(|value| *value != 0.0));
    for _ in 0..3 {
        assert_eq!(run(), first);
    }
}

/// The overflow check reads the sum: a single bad element must show.
#[test]
fn a_sum_of_squares_is_not_finite_where_an_element_is_not() {
    let Some(device) = device() else { return };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let mut data = vec![0.5f32; 70_003];
        data[70_001] = bad;
        let flat = Tensor::<Wgpu, 1>::from_data(TensorData::new(data, [70_003]), (&device, DType::F32));
        assert!(!values(&Wgpu::sum_of_squares(&flat))[0].is_finite(), "{bad}");
    }
}
