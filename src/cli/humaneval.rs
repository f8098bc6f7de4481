//! `trainer humaneval`

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::args::HumanevalArgs;
use super::{print, print_json};
use crate::error::{Error, Result};
use crate::eval::execute::Python;
use crate::eval::humaneval::pass_at_k::KS;
use crate::eval::humaneval::problems::Problems;
use crate::eval::humaneval::samples;
use crate::eval::humaneval::score::{Request, Score, score};
use crate::report::table::{Align, Table};
use crate::report::voice::say;
use crate::train::stop;

/// Without a terminal, a line at most this often.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Kinds of ends that have a row of their own.
const MOST_KINDS: usize = 12;

pub fn run(args: &HumanevalArgs) -> Result<()> {
    let problems = Problems::read(&args.problems)?;
    let samples = samples::read(&args.score, &problems)?;
    let python = Python::find().ok_or_else(|| {
        Error::failed("no Python 3 was found, which samples are run with: install it, or put python3 on the PATH")
    })?;
    let out = args.out.clone().unwrap_or_else(|| results_beside(&args.score));
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
fn results_beside(samples: &std::path::Path) -> PathBuf {
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

/// A bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    all: usize,
    last_line: Instant,
}

impl Progress {
    fn new(all: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(all as u64);
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len} samples, {per_sec}, eta {eta}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, all, last_line: Instant::now() }
    }

    fn show(&mut self, done: usize) {
        match &self.bar {
            // What an earlier run did says nothing about this one's speed.
            Some(bar) if bar.position() == 0 => {
                bar.set_position(done as u64);
                bar.reset_eta();
            }
            Some(bar) => bar.set_position(done as u64),
            None if self.last_line.elapsed() >= LINE_EVERY => {
                say(&format!("{done}/{} samples", self.all));
                self.last_line = Instant::now();
            }
            None => {}
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
