//! The samples: completions of the problems' prompts.

use super::json_lines;
use super::problems::Problems;
use crate::error::{Error, Result, Short};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// One line of a samples file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub task_id: String,
    /// What follows the prompt.
    pub completion: String,
    /// Whatever else the line holds.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Reads a .jsonl or .jsonl.gz file of samples.
///
/// # Errors
/// A line without the fields, a sample of an unknown problem, or no sample at all.
pub fn read(path: &Path, problems: &Problems) -> Result<Vec<Sample>> {
    let samples: Vec<Sample> = json_lines::read(path)?;
    if samples.is_empty() {
        return Err(Error::file(path, "holds no sample: expected lines of task_id and completion"));
    }
    for (index, sample) in samples.iter().enumerate() {
        if problems.find(&sample.task_id).is_none() {
            let (name, known) = (Short(&sample.task_id), Short(&problems.all()[0].task_id));
            let what = format!(
                "sample {} is of problem {name}, which the problems file lacks (its first is {known})",
                index + 1
            );
            return Err(Error::file(path, what));
        }
    }
    Ok(samples)
}
