//! What a run writes line by line, and the lines of HumanEval.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::Target;
use crate::error::{Error, Result};
use crate::eval::humaneval::{problems::Problems, results, samples};
use crate::fixtures;
use crate::profile::{ByPart, PARTS, Part};
use crate::report::history::History;
use crate::report::page::PageData;
use crate::report::{metrics, plot, samples as samples_log, sessions};
use crate::verify;

fn of_run(name: &str) -> Vec<Vec<u8>> {
    let run = tempfile::tempdir().unwrap();
    fixtures::run(run.path());
    vec![fs::read(run.path().join(name)).unwrap()]
}

#[test]
fn metrics_of_a_run() {
    let target = Target { extra: 32 << 20, ..Target::new(file!(), metrics::FILE_NAME, of_run(metrics::FILE_NAME)) };
    target.run(
        |_| {},
        |path| {
            let dir = path.parent().unwrap();
            verify::verify(dir, &()).unwrap();
            let mut history = History::read(dir)?;
            history.thin(2);
            PageData::new(vec![history.clone()], None).to_html()?;
            // Without a finite loss there is nothing to draw.
            let _ = plot::write_png(&dir.join("loss.png"), &[history]).map_err(|error| error.to_string());
            metrics::truncate_after(path, 2)?;
            metrics::MetricsLog::open(dir).map(|_| ())
        },
    );
}

#[test]
fn samples_of_a_run() {
    Target::new(file!(), samples_log::FILE_NAME, of_run(samples_log::FILE_NAME)).run(
        |dir| fs::write(dir.join(metrics::FILE_NAME), "").unwrap(),
        |path| {
            let dir = path.parent().unwrap();
            verify::verify(dir, &()).unwrap();
            PageData::new(vec![History::read(dir)?], None).to_html()?;
            let checked = samples_log::check(path);
            samples_log::truncate_after(dir, 3);
            checked.map(|_| ())
        },
    );
}

#[test]
fn time_by_part_of_a_run() {
    let part = |part: &str, ms: f64| Part {
        part: part.into(),
        ms,
        share: ms / 8.0,
        calls: 4.0,
        gflops: Some(1.5),
        gb_per_s: None,
    };
    let by_part = ByPart { steps: 2, step_ms: 8.0, parts: vec![part("attention", 5.0), part("AdamW", 2.5)] };
    Target::new(file!(), PARTS, vec![serde_json::to_vec_pretty(&by_part).unwrap()]).run(
        |dir| fs::write(dir.join(metrics::FILE_NAME), "").unwrap(),
        |path| {
            let history = History::read(path.parent().unwrap())?;
            let found = history.parts.is_some();
            PageData::new(vec![history], None).to_html()?;
            if found { Ok(()) } else { Err(Error::file(path, "is no table")) }
        },
    );
}

#[test]
fn sessions_of_a_run() {
    Target::new(file!(), sessions::FILE_NAME, of_run(sessions::FILE_NAME)).run(
        |dir| fs::write(dir.join(metrics::FILE_NAME), "").unwrap(),
        |path| {
            let dir = path.parent().unwrap();
            verify::verify(dir, &()).unwrap();
            PageData::new(vec![History::read(dir)?], None).to_html()?;
            sessions::check(&fs::read(path).unwrap())
                .map(|_| ())
                .map_err(|line| Error::file(path, format!("line {line}")))
        },
    );
}

const PROBLEMS: &str = r#"{"task_id": "T/0", "prompt": "def f(x):\n", "entry_point": "f", "test": "def check(f): pass\n"}
{"task_id": "T/1", "prompt": "", "entry_point": "g", "test": "", "canonical_solution": "    return 1\n", "more": [1, {"a": 2}]}
"#;
const SAMPLES: &str = r#"{"task_id": "T/1", "completion": "    return 1\n", "temperature": 0.2}

{"task_id": "T/0", "completion": "    return \"\\u00e9\"", "passed": true, "result": "passed"}
"#;

fn gzip(text: &str) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, text.as_bytes()).unwrap();
    gz.finish().unwrap()
}

#[test]
fn problems_of_humaneval() {
    let read = |path: &Path| Problems::read(path).map(|problems| drop(problems.all()[0].program("")));
    Target::new(file!(), "problems.jsonl", vec![PROBLEMS.into()]).run(|_| {}, read);
    Target::new(file!(), "problems.jsonl.gz", vec![gzip(PROBLEMS)]).run(|_| {}, read);
}

#[test]
fn samples_of_humaneval() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("problems.jsonl");
    fs::write(&path, PROBLEMS).unwrap();
    let problems = Problems::read(&path).unwrap();
    let read = |path: &Path| samples::read(path, &problems).map(|_| ());
    Target::new(file!(), "samples.jsonl", vec![SAMPLES.into()]).run(|_| {}, read);
    Target::new(file!(), "samples.jsonl.gz", vec![gzip(SAMPLES)]).run(|_| {}, read);
}

#[test]
fn results_of_humaneval() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let problems = Problems::read(&write("problems.jsonl", PROBLEMS)).unwrap();
    let samples = samples::read(&write("samples.jsonl", SAMPLES), &problems).unwrap();
    let timeout = Duration::from_secs(3);
    let line = |sample: &samples::Sample| {
        let problem = &problems.all()[problems.find(&sample.task_id).unwrap()];
        let fingerprint = results::fingerprint(&problem.program(&sample.completion), timeout);
        let line = results::ResultLine::new(sample, &crate::eval::execute::Verdict::Passed, fingerprint);
        format!("{}\n", serde_json::to_string(&line).unwrap())
    };
    let whole: String = samples.iter().map(line).collect();
    let read = |path: &Path| -> Result<()> { results::open(path, &problems, &samples, timeout).map(|_| ()) };
    Target::new(file!(), "results.jsonl", vec![whole.into()]).run(|_| {}, read);
}
