//! The machine: warps of 32 lanes, blocks that interleave them, and the memory that they see.

pub mod address;
pub mod block;
pub mod warp;
