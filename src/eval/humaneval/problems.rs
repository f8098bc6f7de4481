//! The problems: what a model completes, and how a completion is checked.

use super::json_lines;
use crate::error::{Error, Result, Short};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// One line of HumanEval.jsonl.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Such as "HumanEval/0".
    pub task_id: String,
    /// Imports, the `def` line and the docstring.
    pub prompt: String,
    /// The function's name.
    pub entry_point: String,
    /// A body that passes; nothing here needs it.
    #[serde(default)]
    pub canonical_solution: String,
    /// Defines `check(candidate)`.
    pub test: String,
}

impl Problem {
    /// The program that decides on a completion, character by character the official one.
    pub fn program(&self, completion: &str) -> String {
        format!("{}{completion}\n{}\ncheck({})", self.prompt, self.test, self.entry_point)
    }
}

/// Problems in their file's order, which is also found by name.
#[derive(Clone, Debug)]
pub struct Problems {
    all: Vec<Problem>,
    by_name: HashMap<String, usize>,
}

impl Problems {
    /// Reads a .jsonl or .jsonl.gz file.
    ///
    /// # Errors
    /// A line without the fields, two problems of one name, or no problem at all.
    pub fn read(path: &Path) -> Result<Self> {
        let all: Vec<Problem> = json_lines::read(path)?;
        if all.is_empty() {
            return Err(Error::file(path, "holds no problem: expected lines of task_id, prompt, entry_point and test"));
        }
        Self::new(all).map_err(|name| Error::file(path, format!("holds the problem {} twice", Short(name))))
    }

    /// # Errors
    /// The name of a problem that is there twice.
    pub fn new(all: Vec<Problem>) -> std::result::Result<Self, String> {
        let mut by_name = HashMap::new();
        for (index, problem) in all.iter().enumerate() {
            if by_name.insert(problem.task_id.clone(), index).is_some() {
                return Err(problem.task_id.clone());
            }
        }
        Ok(Self { all, by_name })
    }

    pub fn all(&self) -> &[Problem] {
        &self.all
    }

    /// The index of a problem.
    pub fn find(&self, task_id: &str) -> Option<usize> {
        self.by_name.get(task_id).copied()
    }
}
