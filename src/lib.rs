//! `trainer` trains phi-1-class code models; see README.md for what it does and CONTRIBUTING.md for how it is laid out.

mod breakdown;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod error;
pub mod eval;
pub mod model;
pub mod parallel;
pub mod profile;
pub mod report;
pub mod train;
