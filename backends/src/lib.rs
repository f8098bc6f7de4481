//! The decoder's operations over plain tensors, on every backend.
//!
//! `ops::DecoderBackend` is the trait; `reference` is its plain-tensor oracle; `cpu`, `cuda` and `wgpu` implement it.
//! `transfer` and `nccl` are for exchanges between devices.

// Nothing that a user or a file controls may panic: an error says what to do. Where it cannot happen, `expect` says why.
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::undocumented_unsafe_blocks
)]

pub mod cache;
pub mod cpu;
pub mod discovery;
pub mod dropout;
pub mod error;
pub mod ops;
pub mod reference;
pub mod selftest;
pub mod transfer;
pub mod tuning;

#[cfg(any(feature = "wgpu", all(feature = "cuda", not(target_os = "macos"))))]
mod cube;

/// NVIDIA's collectives.
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub mod nccl;

#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub mod tensor_cores;

#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub use cube::{Cuda, cuda_device, kernel_folder};
#[cfg(feature = "wgpu")]
pub use cube::{Wgpu, wgpu_device};

pub use cpu::Cpu;
pub use ops::DecoderBackend;
