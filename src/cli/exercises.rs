//! `trainer exercises`

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::args::ExercisesArgs;
use super::{print, print_json};
use crate::data::exercises::{Exercise, corpus, families, held_out};
use crate::error::{Error, Result};

pub fn run(args: &ExercisesArgs) -> Result<()> {
    let out = &args.out;
    if out.exists() && fs::read_dir(out).map_err(Error::io("read", out))?.next().is_some() {
        return Err(Error::file(out, "is not empty: choose a new directory for the exercises"));
    }
    fs::create_dir_all(out).map_err(Error::io("create", out))?;
    let documents = corpus(args.seed, args.count).map(|text| json!({ "text": text }));
    write_lines(&out.join("train.jsonl"), documents)?;
    let problems = held_out(args.seed, args.held_out);
    write_lines(&out.join("held-out.jsonl"), problems.iter().enumerate().map(|(i, exercise)| problem(i, exercise)))?;
    if args.json {
        return print_json(&json!({ "train": args.count, "held_out": problems.len(), "families": families().len() }));
    }
    print(&format!(
        "{}: {} exercises of {} kinds in train.jsonl, {} others as problems in held-out.jsonl\n",
        out.display(),
        args.count,
        families().len(),
        problems.len()
    ))
}

/// One JSON object a line; the file appears whole or not at all.
fn write_lines(path: &Path, lines: impl Iterator<Item = Value>) -> Result<()> {
    let beside = path.with_extension("part");
    let written = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(&beside)?);
        for line in lines {
            writeln!(file, "{line}")?;
        }
        file.into_inner()?.sync_all()?;
        fs::rename(&beside, path)
    };
    written().map_err(Error::io("write", path))
}

/// An exercise in HumanEval's format (Chen et al., 2021).
fn problem(index: usize, exercise: &Exercise) -> Value {
    let name = exercise.prompt.trim_start_matches("def ").split('(').next().unwrap_or_default();
    // HumanEval's tests call what they are given.
    let call = |line: &str| line.replacen(&format!("{name}("), "candidate(", 1);
    let assertions: String = exercise.tests.lines().map(|line| format!("    {}\n", call(line))).collect();
    json!({
        "task_id": format!("Exercises/{index}"),
        "prompt": exercise.prompt,
        "entry_point": name,
        "canonical_solution": exercise.solution,
        "test": format!("def check(candidate):\n{assertions}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::execute::{Limits, Python, Verdict, run_many};

    #[test]
    fn problems_are_programs_that_their_solutions_pass() {
        let Some(python) = Python::find() else {
            eprintln!("SKIPPED: no Python interpreter was found");
            return;
        };
        let program = |problem: &Value, body: &str| {
            let text = |key: &str| problem[key].as_str().unwrap().to_owned();
            format!("{}{body}\n{}\ncheck({})\n", text("prompt"), text("test"), text("entry_point"))
        };
        let problems: Vec<Value> = held_out(3, 6).iter().enumerate().map(|(i, x)| problem(i, x)).collect();
        let solved = problems.iter().map(|p| program(p, p["canonical_solution"].as_str().unwrap()));
        let empty = problems.iter().map(|p| program(p, "    pass\n"));
        let programs: Vec<String> = solved.chain(empty).collect();
        let verdicts = run_many(&python, &programs, &Limits::default(), 2).unwrap();
        assert!(verdicts[..6].iter().all(|verdict| *verdict == Verdict::Passed), "{verdicts:?}");
        assert!(verdicts[6..].iter().all(|verdict| *verdict != Verdict::Passed), "{verdicts:?}");
    }
}
