//! The crate's one error type.

use crate::discovery::Backend;

/// What went wrong, in a sentence that says what was expected, what was found and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A backend that was asked for cannot run here.
    #[error("the {backend} backend cannot run here: {what}. {remedy}")]
    Unavailable { backend: Backend, what: String, remedy: String },
    /// A device index that this backend does not have.
    #[error("the {backend} backend has no device {index}: {existing}")]
    NoSuchDevice { backend: Backend, index: usize, existing: String },
    /// An environment variable that cannot be understood.
    #[error("the environment variable {name} is {value:?}: {reason}")]
    Variable { name: &'static str, value: String, reason: String },
    /// A kernel choice of no kernel of this device.
    #[error("this device's kernels have no choice {name}: expected one of {known}, or product.forward.INPUTSxOUTPUTS")]
    NoSuchChoice { name: String, known: String },
    /// A kernel choice where the kernels leave none.
    #[error("the cpu backend has no kernel choices: leave --tune out")]
    NoChoices,
    /// A value that a kernel choice cannot have on this device.
    #[error("{name} cannot be {value} on this device: expected one of {known}")]
    NoSuchValue { name: String, value: String, known: String },
}

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;
