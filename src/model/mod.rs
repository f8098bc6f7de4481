//! The phi decoder: its shape, its parameters, its forward and backward.

pub mod architecture;
pub mod block;
pub mod cache;
pub mod decoder;
pub mod memory;
pub mod table;
pub mod weights;
pub mod work;

pub use architecture::Architecture;
pub use decoder::{Decoder, GradientSink, MicroBatchDropout};
pub use table::ParameterTable;
pub use weights::{Buffers, HostBuffers};
