//! Scoring: every sample is run, every verdict is written, and pass@k is what comes of them.

use super::pass_at_k::pass_at_k;
use super::problems::Problems;
use super::results::{self, ResultLine};
use super::samples::Sample;
use crate::error::{Error, Result};
use crate::eval::execute::{Limits, Python, run_each};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// What to score, and how.
pub struct Request<'a> {
    pub problems: &'a Problems,
    pub samples: &'a [Sample],
    /// Results file: what it holds already is not run again.
    pub out: &'a Path,
    /// Samples that run at a time.
    pub jobs: usize,
    /// Time of a sample.
    pub timeout: Duration,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Samples that have a verdict, and how many of them passed.
    pub samples: usize,
    pub passed: usize,
    /// Of these, what an earlier run had scored.
    pub resumed: usize,
    /// Problems that have samples.
    pub problems: usize,
    /// Fewest and most samples of such a problem.
    pub samples_a_problem: (u64, u64),
    /// (k, pass@k), see [`pass_at_k`]; empty while samples are left.
    pub pass_at_k: Vec<(u64, f64)>,
    /// How samples ended and how many did so, the most frequent first.
    pub kinds: Vec<(String, usize)>,
}

/// The limits of a sample: the official harness has the time limit alone; the others are far above what its problems need.
pub fn limits(timeout: Duration) -> Limits {
    Limits {
        wall: timeout,
        // The wall clock is to decide; this ends what it cannot reach.
        cpu_seconds: timeout.as_secs() + 2,
        memory_bytes: 2 << 30,
        output_bytes: 16 << 20,
        file_bytes: 16 << 20,
        folder_bytes: 64 << 20,
        children: false,
    }
}

/// Runs the samples that `out` has no verdict of. `progress(done)` is told each, and returns whether to go on.
///
/// # Errors
/// Those of [`results::open`]; a program that could not be run; a result that could not be written.
pub fn score(request: &Request, python: &Python, mut progress: impl FnMut(usize) -> bool) -> Result<Score> {
    let Request { problems, samples, out, jobs, timeout } = request;
    let (mut file, mut lines) = results::open(out, problems, samples, *timeout)?;
    let resumed = lines.len();
    let left = &samples[resumed..];
    let of = |sample: &Sample| {
        let index = problems.find(&sample.task_id);
        index.ok_or_else(|| Error::input(format!("no problem is called {}: give the samples' own", sample.task_id)))
    };
    let indices: Vec<usize> = left.iter().map(of).collect::<Result<_>>()?;
    if progress(resumed) {
        let run = |index: usize| problems.all()[indices[index]].program(&left[index].completion);
        run_each(python, left.len(), run, &limits(*timeout), *jobs, |index, verdict| {
            let line = ResultLine::new(&left[index], &verdict, results::fingerprint(&run(index), *timeout));
            file.append(&line)?;
            lines.push(line);
            Ok(progress(resumed + index + 1))
        })?;
    }
    Ok(summary(&lines, resumed, samples.len()))
}

fn summary(lines: &[ResultLine], resumed: usize, expected: usize) -> Score {
    let mut problems: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        let (samples, passed) = problems.entry(&line.task_id).or_default();
        *samples += 1;
        *passed += u64::from(line.passed);
        *kinds.entry(&line.kind).or_default() += 1;
    }
    let counts: Vec<(u64, u64)> = problems.into_values().collect();
    let mut kinds: Vec<(String, usize)> = kinds.into_iter().map(|(kind, count)| (kind.to_string(), count)).collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let samples = || counts.iter().map(|(samples, _)| *samples);
    Score {
        samples: lines.len(),
        passed: lines.iter().filter(|line| line.passed).count(),
        resumed,
        problems: counts.len(),
        samples_a_problem: (samples().min().unwrap_or(0), samples().max().unwrap_or(0)),
        pass_at_k: if lines.len() == expected { pass_at_k(&counts) } else { Vec::new() },
        kinds,
    }
}
