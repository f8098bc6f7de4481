//! What a model can do: its loss, its text, its programs.

pub mod execute;
pub mod exercises;
pub mod generate;
pub mod humaneval;
pub mod loss;
pub mod text;
pub mod windows;
