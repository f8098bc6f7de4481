//! What moves, scales and reduces: embedding, norms, activations, residuals, the optimizer.

pub mod embedding;
pub mod gelu;
pub mod norm;
pub mod optimizer;
pub mod residual;
pub mod rotary;
pub mod tensor;
