//! `trainer humaneval --score`

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::Progress;
use crate::cli::args::HumanevalArgs;
use crate::cli::{print, print_json};
use crate::error::{Error, Result};
use crate::eval::execute::Python;
use crate::eval::humaneval::pass_at_k::KS;
use crate::eval::humaneval::problems::Problems;
use crate::eval::humaneval::samples;
use crate::eval::humaneval::score::{Request, Score, score};
use crate::report::table::{Align, Table};
use crate::report::voice::say;
use crate::train::stop;

/// Kinds of ends that have a row of their own.
const MOST_KINDS: usize = 12;

/// Runs the samples of `path`.
pub fn run(args: &HumanevalArgs, path: &Path) -> Result<()> {
    let problems = Problems::read(&args.problems)?;
    let samples = samples::read(path, &problems)?;
    let python = Python::find().ok_or_else(|| {
        Error::failed("no Python 3 was found, which samples are run with: install it, or put python3 on the PATH")
    })?;
    let out = args.out.clone().unwrap_or_else(|| results_beside(path));
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let timeout = Duration::from_secs_f64(args.timeout);
    say(&format!("Python {}; {}", python.version(), python.confinement()));
    stop::listen()?;
    let request = Request { problems: &problems, samples: &samples, out: &out, jobs, timeout };
    let mut progress = Progress::new(samples.len());
    let started = Instant::now();
    let score = score(&request, &python, |done| {
        progress.show(done);
        !stop::requested()
    })?;
    progress.clear();
    let rate = (score.samples - score.resumed) as f64 / started.elapsed().as_secs_f64();
    let finished = score.samples == samples.len();
    if args.json {
        let mut object = Map::new();
        score.pass_at_k.iter().for_each(|(k, value)| drop(object.insert(format!("pass@{k}"), json!(value))));
        let kinds: Map<String, Value> = score.kinds.iter().map(|(kind, count)| (kind.clone(), json!(count))).collect();
        let facts = json!({
            "finished": finished, "samples": score.samples, "passed": score.passed, "problems": score.problems,
            "problems_in_file": problems.all().len(), "resumed": score.resumed, "kinds": kinds, "results": out,
            "samples_per_s": rate, "timeout_s": args.timeout, "jobs": jobs, "python": python.version(),
            "confinement": python.confinement(),
        });
        object.extend(facts.as_object().cloned().unwrap_or_default());
        return print_json(&object);
    }
    let resumed = match score.resumed {
        0 => String::new(),
        resumed => format!(" (and {resumed} of an earlier run)"),
    };
    let run = score.samples - score.resumed;
    say(&format!("{run} samples run{resumed}, {rate:.1} a second; results: {}", out.display()));
    if !finished {
        return print(&format!(
            "stopped after {} of {} samples; run it again to go on\n",
            score.samples,
            samples.len()
        ));
    }
    print(&report(&score, problems.all().len()))
}

/// As the official package names it.
fn results_beside(samples: &Path) -> PathBuf {
    let mut name = OsString::from(samples);
    name.push("_results.jsonl");
    name.into()
}

fn report(score: &Score, all_problems: usize) -> String {
    let mut table = Table::new([("ended by", Align::Left), ("samples", Align::Right), ("share", Align::Right)]);
    let share = |count: usize| format!("{:.1}%", 100.0 * count as f64 / score.samples as f64);
    let (named, others) = score.kinds.split_at(score.kinds.len().min(MOST_KINDS));
    for (kind, count) in named {
        let kind: String = kind.chars().filter(|c| !c.is_control()).collect();
        table.row([kind, count.to_string(), share(*count)]);
    }
    if !others.is_empty() {
        let count = others.iter().map(|(_, count)| count).sum();
        table.row([format!("{} other exceptions", others.len()), format!("{count}"), share(count)]);
    }
    let (fewest, most) = score.samples_a_problem;
    let each = if fewest == most { fewest.to_string() } else { format!("{fewest} to {most}") };
    let mut text = format!("{table}\n{} samples of {} problems, {each} of each\n", score.samples, score.problems);
    if score.problems < all_problems {
        text += &format!("the other {} problems have no samples and are left out\n", all_problems - score.problems);
    }
    for k in KS {
        text += &match score.pass_at_k.iter().find(|(told, _)| *told == k) {
            Some((_, value)) => format!("pass@{k:<4} {:.2}%\n", 100.0 * value),
            None => format!("pass@{k:<4} needs at least {k} samples of each problem\n"),
        };
    }
    text
}
