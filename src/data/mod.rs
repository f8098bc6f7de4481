//! From text to batches: corpus readers, tokenizers, token shards, data sets and the order they are read in.

pub mod corpus;
pub mod dataset;
pub mod exercises;
mod guard;
pub mod manifest;
pub mod prepare;
pub mod sampler;
pub mod shard;
pub mod tokenizer;
