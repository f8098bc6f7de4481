//! Every kernel against the reference, on fresh random inputs.

pub mod pointwise;
pub mod products;
