//! Sampling: completions of every problem, written as they come.

use super::json_lines::Appender;
use super::problems::Problems;
use super::samples::Sample;
use super::truncate::truncate;
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// What to sample.
pub struct Request<'a> {
    pub problems: &'a Problems,
    /// Samples of each problem.
    pub samples: usize,
    /// Samples that are generated at a time, at most.
    pub batch: usize,
    /// Samples file: what it holds already is not generated again.
    pub out: &'a Path,
    /// Fields that every line holds beside its completion (temperature, seed), and by which a file of other settings is noticed.
    pub settings: Map<String, Value>,
}

/// Generates what `out` lacks. `generate` gets prompts and, for each, the number of its sample, and gives their raw texts, which are
/// cut at the first stop. A sample has the same number in every run, whatever is missing and however many are wanted, so that random
/// numbers that depend on it alone make a resumed run and a whole one equal. `progress(done)` returns whether to go on.
///
/// Returns how many samples the file holds.
///
/// # Errors
/// A file that is something else or was made with other settings; an error of `generate`; a line that could not be written.
pub fn sample(
    request: &Request,
    mut generate: impl FnMut(&[String], &[u64]) -> Result<Vec<String>>,
    mut progress: impl FnMut(usize) -> bool,
) -> Result<usize> {
    let problems = request.problems.all();
    let (mut file, found) = Appender::open(request.out, |found| check(request, found))?;
    let mut have = vec![0; problems.len()];
    found.iter().filter_map(|sample| request.problems.find(&sample.task_id)).for_each(|problem| have[problem] += 1);
    // Those of one problem stand together: they share their prompt.
    let missing: Vec<(usize, u64)> = (0..problems.len())
        .flat_map(|problem| (have[problem]..request.samples).map(move |i| (problem, i)))
        .map(|(problem, i)| (problem, (i * problems.len() + problem) as u64))
        .collect();
    let mut done = found.len();
    if !progress(done) {
        return Ok(done);
    }
    for batch in missing.chunks(request.batch.max(1)) {
        let prompts: Vec<String> = batch.iter().map(|(problem, _)| problems[*problem].prompt.clone()).collect();
        let numbers: Vec<u64> = batch.iter().map(|(_, number)| *number).collect();
        let texts = generate(&prompts, &numbers)?;
        if texts.len() != batch.len() {
            return Err(Error::failed(format!("{} texts were generated for {} prompts", texts.len(), batch.len())));
        }
        for ((problem, _), text) in batch.iter().zip(texts) {
            file.append(&Sample {
                task_id: problems[*problem].task_id.clone(),
                completion: truncate(&text).to_string(),
                rest: request.settings.clone(),
            })?;
        }
        done += batch.len();
        if !progress(done) {
            break;
        }
    }
    Ok(done)
}

fn check(request: &Request, found: &[Sample]) -> Result<()> {
    for (index, sample) in found.iter().enumerate() {
        let number = index + 1;
        let advice = "choose another --out, or remove it";
        if request.problems.find(&sample.task_id).is_none() {
            let what =
                format!("line {number} is of problem {}, which the problems file lacks: {advice}", sample.task_id);
            return Err(Error::file(request.out, what));
        }
        let other = request.settings.iter().find(|(name, value)| sample.rest.get(*name) != Some(value));
        if let Some((name, value)) = other {
            let there = sample.rest.get(name).map_or("none".to_string(), Value::to_string);
            let what = format!("line {number} was sampled with {name} {there}, not {value}: {advice}");
            return Err(Error::file(request.out, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::problems::Problem;
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn problems() -> Problems {
        let problem = |name: &str| Problem {
            task_id: name.into(),
            prompt: format!("def {name}():\n"),
            entry_point: name.into(),
            canonical_solution: String::new(),
            test: String::new(),
        };
        Problems::new(["a", "b", "c"].map(problem).to_vec()).unwrap()
    }

    fn settings(seed: u64) -> Map<String, Value> {
        json!({ "seed": seed }).as_object().unwrap().clone()
    }

    /// The text says what it was made from.
    fn texts(prompts: &[String], numbers: &[u64]) -> Vec<String> {
        prompts.iter().zip(numbers).map(|(prompt, number)| format!("    {prompt}{number}\nprint(1)")).collect()
    }

    fn by_task(path: &Path) -> BTreeMap<String, Vec<String>> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for sample in super::super::json_lines::read::<Sample>(path).unwrap() {
            found.entry(sample.task_id).or_default().push(sample.completion);
        }
        found
    }

    #[test]
    fn a_resumed_file_is_that_of_a_whole_run() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, parts) = (dir.path().join("whole.jsonl"), dir.path().join("parts.jsonl"));
        let problems = problems();
        let request = |out, samples| Request { problems: &problems, samples, batch: 4, out, settings: settings(3) };
        let all = sample(&request(&whole, 5), |p, n| Ok(texts(p, n)), |_| true).unwrap();
        assert_eq!(all, 15);
        // Stopped after its first batch, torn in its last line, then resumed, first with fewer samples.
        let mut steps = Vec::new();
        let done = sample(
            &request(&parts, 2),
            |p, n| Ok(texts(p, n)),
            |done| {
                steps.push(done);
                done < 4
            },
        );
        assert_eq!((done.unwrap(), steps), (4, vec![0, 4]));
        let bytes = std::fs::read(&parts).unwrap();
        std::fs::write(&parts, &bytes[..bytes.len() - 7]).unwrap();
        assert_eq!(sample(&request(&parts, 3), |p, n| Ok(texts(p, n)), |_| true).unwrap(), 9);
        assert_eq!(sample(&request(&parts, 5), |p, n| Ok(texts(p, n)), |_| true).unwrap(), 15);
        assert_eq!(by_task(&parts), by_task(&whole));
        assert_eq!(by_task(&whole)["b"][1], "    def b():\n4");
        sample(&request(&parts, 5), |_, _| panic!("nothing is missing"), |_| true).unwrap();
    }

    #[test]
    fn other_settings_and_problems_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("samples.jsonl");
        let problems = problems();
        let mut request = Request { problems: &problems, samples: 1, batch: 2, out: &out, settings: settings(3) };
        sample(&request, |p, n| Ok(texts(p, n)), |_| true).unwrap();
        let before = std::fs::read(&out).unwrap();
        request.settings = settings(4);
        let message = sample(&request, |_, _| panic!(), |_| true).unwrap_err().to_string();
        assert!(message.contains("line 1 was sampled with seed 3, not 4"), "{message}");
        let fewer = Problems::new(problems.all()[..2].to_vec()).unwrap();
        let request = Request { problems: &fewer, settings: settings(3), ..request };
        let message = sample(&request, |_, _| panic!(), |_| true).unwrap_err().to_string();
        assert!(message.contains("line 3 is of problem c"), "{message}");
        assert_eq!(std::fs::read(&out).unwrap(), before);
    }
}
