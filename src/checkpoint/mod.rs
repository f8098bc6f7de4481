//! Checkpoints and model directories, over host memory: names, shapes, element types and bytes.
//!
//! ```text
//! RUN/.lock                        held by the one trainer that writes here
//! RUN/checkpoints/latest, best     small text files: the name of a checkpoint directory
//! RUN/checkpoints/step-00000500/   model/ (a Hugging Face directory), optimizer shards, state.json, MANIFEST
//! RUN/checkpoints/.tmp-*           being written        .replaced-*  set aside while its successor is put in place
//! RUN/checkpoints/.trash-*         being deleted
//! ```
//!
//! A directory called `step-*` is complete: it was written and synced under another name and then renamed.

pub mod element;
pub mod hugging_face;
pub mod layout;
pub mod lock;
pub mod lookup;
pub mod manifest;
pub mod model_files;
pub mod optimizer_files;
pub mod retention;
pub mod storage;
pub mod tensor_file;
pub mod writer;

#[cfg(test)]
mod fault_tests;

pub use layout::mark_best;
pub use lock::RunLock;
pub use lookup::{Found, ModelLocation, best, find_latest, latest, resolve_model_dir};
pub use manifest::verify;
pub use optimizer_files::OptimizerFiles;
pub use retention::{Retention, clean_stale, retain};
pub use safetensors::Dtype;
pub use tensor_file::{TensorEntry, TensorFile};
pub use writer::CheckpointWriter;
