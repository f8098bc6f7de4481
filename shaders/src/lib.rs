//! The CubeCL kernels of the decoder and their launchers, over buffers; no tensor type of burn is known here.
//!
//! Every kernel is generic over the storage dtype (f32, f16, bf16) and computes in f32. Launchers take a `Blueprint` of
//! comptime sizes, chosen from the device's features and never from its name.

// Nothing that a user or a file controls may panic: an error says what to do. Where it cannot happen, `expect` says why.
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::undocumented_unsafe_blocks
)]

pub mod adamw;
pub mod attention;
pub mod clip;
pub mod column_sums;
pub mod cross_entropy;
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub(crate) mod cuda;
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub mod cuda_gemm;
pub mod device;
pub mod elementwise;
pub mod embedding;
pub mod epilogue;
pub mod few_rows;
pub mod gelu;
pub mod gemm;
pub mod norm;
pub mod packed;
pub mod philox;
pub mod residual;
pub mod residual_norm;
pub mod rotary;
pub mod squares;
pub mod tuning;

#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub use cuda::KernelFamily;
