//! Judges completions of the built-in exercises by running their assertions.

use super::execute::{Limits, Python, Verdict, run_many};
use crate::data::exercises::Exercise;
use crate::error::{Error, Result};

/// The body in a model's raw `completion`: its lines up to the first that is not indented, with a newline at the end.
///
/// A model that has not learned to end a document goes on with the next `def`; that is not part of the answer.
pub fn body(completion: &str) -> String {
    let belongs = |line: &&str| line.trim().is_empty() || line.starts_with([' ', '\t']);
    let lines: Vec<&str> = completion.lines().take_while(belongs).collect();
    let end = lines.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
    lines[..end].iter().flat_map(|line| [line, "\n"]).collect()
}

/// The program that decides on a completion: prompt, body, assertions.
pub fn program(exercise: &Exercise, completion: &str) -> String {
    format!("{}{}\n{}", exercise.prompt, body(completion), exercise.tests)
}

/// The verdict on each of `completions`, which stand beside their `exercises`; up to `jobs` run at a time.
pub fn judge(
    python: &Python,
    exercises: &[Exercise],
    completions: &[String],
    limits: &Limits,
    jobs: usize,
) -> Result<Vec<Verdict>> {
    if exercises.len() != completions.len() {
        return Err(Error::failed(format!(
            "{} completions for {} exercises: give one for each",
            completions.len(),
            exercises.len()
        )));
    }
    let programs: Vec<String> =
        exercises.iter().zip(completions).map(|(exercise, text)| program(exercise, text)).collect();
    run_many(python, &programs, limits, jobs)
}

/// The share of verdicts that passed; 0 where there are none.
pub fn pass_share(verdicts: &[Verdict]) -> f64 {
    let passed = verdicts.iter().filter(|verdict| **verdict == Verdict::Passed).count();
    passed as f64 / verdicts.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::exercises::held_out;

    #[test]
    fn a_body_ends_where_the_indentation_does() {
        assert_eq!(body("    return 1\n\ndef g():\n    pass\n"), "    return 1\n");
        assert_eq!(
            body("    if x:\n\n        return 1\n    return 2"),
            "    if x:\n\n        return 1\n    return 2\n"
        );
        assert_eq!(body("return 1"), "");
        assert_eq!(body(""), "");
    }

    #[test]
    fn solutions_pass_and_other_texts_do_not() {
        let Some(python) = Python::find() else {
            eprintln!("SKIPPED: no Python interpreter was found");
            return;
        };
        let exercises = held_out(4, 8);
        let solutions: Vec<String> =
            exercises.iter().map(|exercise| format!("{}\ndef next", exercise.solution)).collect();
        let verdicts = judge(&python, &exercises, &solutions, &Limits::default(), 2).expect("Python starts");
        assert_eq!(verdicts, vec![Verdict::Passed; 8]);
        let wrong = [
            "",
            "    return",
            "    return None\n",
            "    retrun x\n",
            "nonsense",
            "    pass\n",
            "    exit()\n",
            "    x = (\n",
        ];
        let wrong: Vec<String> = wrong.iter().map(|text| text.to_string()).collect();
        let verdicts = judge(&python, &exercises, &wrong, &Limits::default(), 2).expect("Python starts");
        assert_eq!(pass_share(&verdicts), 0.0, "{verdicts:?}");
        assert!(judge(&python, &exercises, &wrong[..3], &Limits::default(), 2).is_err());
        assert_eq!(pass_share(&[]), 0.0);
    }
}
