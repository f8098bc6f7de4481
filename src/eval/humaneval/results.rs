//! The results file: each sample with its verdict, in the samples' order, appended as verdicts come.

use super::json_lines::Appender;
use super::problems::Problems;
use super::samples::Sample;
use crate::error::{Error, Result};
use crate::eval::execute::Verdict;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Duration;

/// One line: the sample's own fields and the official package's two, `result` and `passed`; then two of ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultLine {
    pub task_id: String,
    pub completion: String,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
    /// "passed", "timed out", or "failed: " and the exception's message.
    pub result: String,
    pub passed: bool,
    /// "passed", "timed out", "too much output", "ended early", or the exception's type.
    pub kind: String,
    /// Of the program and the time limit: what a verdict depends on.
    pub fingerprint: String,
}

/// What this file's own fields are named, so that scored samples can be scored again.
const OWN_FIELDS: [&str; 4] = ["result", "passed", "kind", "fingerprint"];

impl ResultLine {
    pub fn new(sample: &Sample, verdict: &Verdict, fingerprint: String) -> Self {
        let mut rest = sample.rest.clone();
        OWN_FIELDS.iter().for_each(|field| drop(rest.remove(*field)));
        let (result, kind) = match verdict {
            Verdict::Passed => ("passed".to_string(), "passed"),
            Verdict::TimedOut => ("timed out".to_string(), "timed out"),
            Verdict::TooMuchOutput => ("failed: wrote too much output".to_string(), "too much output"),
            Verdict::Failed(failure) => {
                let kind = failure.exception.as_deref().unwrap_or("ended early");
                (format!("failed: {}", failure.message), kind)
            }
        };
        Self {
            task_id: sample.task_id.clone(),
            completion: sample.completion.clone(),
            rest,
            result,
            passed: *verdict == Verdict::Passed,
            kind: kind.to_string(),
            fingerprint,
        }
    }
}

/// What a sample's verdict depends on, in 16 hexadecimal digits.
pub fn fingerprint(program: &str, timeout: Duration) -> String {
    let mut hash = Sha256::new();
    hash.update(timeout.as_nanos().to_le_bytes());
    hash.update(program.as_bytes());
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Opens `path` and gives the results that it holds already, which belong to the first of `samples`.
///
/// # Errors
/// A file that is something else, or results of other samples, problems or another time limit.
pub fn open(
    path: &Path,
    problems: &Problems,
    samples: &[Sample],
    timeout: Duration,
) -> Result<(Appender, Vec<ResultLine>)> {
    Appender::open(path, |found: &[ResultLine]| {
        let other = |line: usize, what: &str| {
            let advice = "choose another --out, or remove it";
            Err(Error::file(path, format!("line {line} is the result of {what}: {advice}")))
        };
        if found.len() > samples.len() {
            return other(samples.len() + 1, "a sample that the samples file lacks");
        }
        for (index, (line, sample)) in found.iter().zip(samples).enumerate() {
            if (&line.task_id, &line.completion) != (&sample.task_id, &sample.completion) {
                return other(index + 1, "another sample than the samples file has there");
            }
            let problem = problems.find(&sample.task_id).map(|index| &problems.all()[index]);
            let expected = problem.map(|problem| fingerprint(&problem.program(&sample.completion), timeout));
            if expected.as_ref() != Some(&line.fingerprint) {
                return other(index + 1, "another version of the problem or another --timeout");
            }
        }
        Ok(())
    })
}
