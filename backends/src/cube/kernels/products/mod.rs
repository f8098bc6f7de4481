//! Matrix products and what is built on them: linear layers, attention, the loss.

pub mod attention;
pub mod linear;
pub mod loss;
mod matmul;
pub mod tensor;
