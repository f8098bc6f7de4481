//! Behaviour of the whole program, in one binary: each file here is a module of it.

mod golden;
mod gradients;
mod support;
