//! `trainer` trains phi-1-class code models; see README.md for what it does and CONTRIBUTING.md for how it is laid out.

// Nothing that a user or a file controls may panic: an error says what to do. Where it cannot happen, `expect` says why.
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::undocumented_unsafe_blocks
)]

mod breakdown;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod error;
pub mod eval;
pub mod exit;
mod mapped;
pub mod model;
pub mod parallel;
pub mod profile;
pub mod report;
pub mod sweep;
pub mod train;
#[cfg(all(feature = "cuda", not(target_os = "macos")))]
pub mod trial;
pub mod verify;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod fuzz_tests;
