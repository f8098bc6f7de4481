//! A CUDA driver that runs PTX on the CPU, so that a program's CUDA kernels are tested without a GPU.
//!
//! Built as a shared library it takes the place of `libcuda.so.1` (`driver`). What NVRTC compiled is parsed (`lex`, `parse`, `syntax`),
//! lowered once to function pointers with decoded operands (`lower`, `allocate`, `program`), and run by warps of 32 lanes
//! (`machine`, `ops`, `tensor_core`). Beside results it checks what a compute sanitizer does: bounds and alignment of every
//! access, barriers in divergent code, deadlocks; memory starts as NaN, asynchronous copies happen at the wait, and warps
//! take turns at random, so that what is missing shows.
//!
//! Section names in the comments are those of NVIDIA's "Parallel Thread Execution ISA", version 8.8.

#![deny(unsafe_op_in_unsafe_fn)]

pub mod allocate;
pub mod attributes;
pub mod copy_2d;
pub mod driver;
pub mod fault;
pub mod half;
pub mod launch;
pub mod lex;
pub mod lower;
pub mod machine;
pub mod memory;
pub mod ops;
pub mod parse;
pub mod program;
pub mod spoil;
pub mod syntax;
pub mod tensor_core;
pub mod tensor_map;
