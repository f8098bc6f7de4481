use super::*;
use crate::eval::execute::{Limits, Python};
use std::collections::HashMap;

fn golden_lines(exercise: &Exercise) -> Vec<&str> {
    exercise.prompt.lines().chain(exercise.solution.lines()).chain(exercise.tests.lines()).collect()
}

#[test]
fn an_exercise_depends_on_its_seed_and_index_alone() {
    let generator = Generator::new(7);
    let later = generator.exercise(12_345);
    assert_eq!(later, Generator::new(7).exercise(12_345));
    assert_ne!(later, Generator::new(8).exercise(12_345));
    assert_eq!(corpus(7, 20).nth(11), Some(generator.exercise(11).document()));
    // Written down, so that a change of platform, of a crate or of the generator that changes the corpus is seen.
    assert_eq!(golden_lines(&Generator::new(0).exercise(0)), GOLDEN);
}

const GOLDEN: [&str; 7] = [
    "def field_perimeter(width, h):",
    "    \"\"\"Compute the perimeter of a rectangle of width by h.\"\"\"",
    "    return 2 * (width + h)",
    "assert field_perimeter(11, 4) == 30",
    "assert field_perimeter(17, 9) == 52",
    "assert field_perimeter(12, 13) == 50",
    "assert field_perimeter(5, 12) == 34",
];

#[test]
fn every_family_appears_once_in_each_block() {
    let families = families();
    let names: HashSet<_> = families.iter().collect();
    assert_eq!(names.len(), families.len(), "two families have the same name");
    assert!(families.len() >= 40, "{} families", families.len());
    let blocks: Vec<Vec<&str>> = (0..2)
        .map(|block| {
            (0..families.len())
                .map(|i| Generator::new(3).exercise((block * families.len() + i) as u64).family)
                .collect()
        })
        .collect();
    for block in &blocks {
        assert_eq!(block.iter().collect::<HashSet<_>>(), names);
    }
    assert_ne!(blocks[0], blocks[1]);
}

#[test]
fn no_held_out_program_is_in_a_training_corpus() {
    let program = |document: &str| {
        let (signature, rest) = document.split_once('\n').unwrap();
        format!("{signature}\n{}", rest.rsplit_once("\"\"\"\n").unwrap().1)
    };
    let held_out = held_out(1, 1000);
    assert_eq!(held_out.len(), 1000);
    let programs: HashSet<String> = held_out.iter().map(|exercise| program(&exercise.document())).collect();
    for seed in [1, 2] {
        for document in corpus(seed, 20_000) {
            assert!(!programs.contains(&program(&document)), "held out, yet in the corpus:\n{document}");
        }
    }
    let families: HashSet<_> = held_out.iter().map(|exercise| exercise.family).collect();
    assert_eq!(families.len(), super::families().len(), "a family has no held-out exercise");
    let prompts: HashSet<_> = held_out.iter().map(|exercise| &exercise.prompt).collect();
    assert_eq!(prompts.len(), held_out.len(), "a held-out prompt comes twice");
}

#[test]
fn every_family_has_programs_on_both_sides() {
    for family in families::all() {
        let mut programs: HashMap<String, bool> = HashMap::new();
        for i in 0..3000 {
            let draft = family.draft(&mut Draw::new(&[17, i]));
            let held_out = draft.is_held_out();
            let exercise = draft.finish(family.name);
            programs.insert(format!("{}{}", exercise.prompt.lines().next().unwrap(), exercise.solution), held_out);
        }
        let held_out = programs.values().filter(|held_out| **held_out).count();
        eprintln!("{:>5} programs, {held_out:>4} held out: {}", programs.len(), family.name);
        assert!(held_out >= 1 && programs.len() - held_out >= 10, "{}: {held_out} of {}", family.name, programs.len());
    }
}

#[test]
fn the_same_question_never_belongs_to_two_families() {
    let mut owners: HashMap<String, &str> = HashMap::new();
    for index in 0..30_000 {
        let Exercise { family, prompt, .. } = Generator::new(5).exercise(index);
        let owner = *owners.entry(prompt.clone()).or_insert(family);
        assert_eq!(owner, family, "{prompt}");
    }
}

#[test]
fn exercises_are_well_formed() {
    for index in 0..5_000 {
        let exercise = Generator::new(11).exercise(index);
        let Exercise { family, prompt, solution, tests } = &exercise;
        assert!(prompt.starts_with("def ") && prompt.ends_with("\"\"\"\n"), "{family}: {prompt}");
        assert!(
            solution.lines().all(|line| line.starts_with("    ")) && solution.ends_with('\n'),
            "{family}: {solution}"
        );
        assert!((1..=6).contains(&solution.lines().count()), "{family}: {solution}");
        assert!(exercise.document().lines().all(|line| line.len() <= 100), "{family}: {prompt}");
        assert!((3..=5).contains(&tests.lines().count()), "{family}: {tests}");
        assert!(tests.lines().all(|line| line.starts_with("assert ")), "{family}: {tests}");
        let results: HashSet<&str> =
            tests.lines().filter_map(|line| line.split_once(')').map(|(_, result)| result)).collect();
        assert!(results.len() > 1, "{family}: a constant would pass\n{tests}");
        for placeholder in ["{f}", "{a}", "{b}", "{k}", "{m}", "{j}", "{l}", "{x}", "{id}", "{phrase}", "{code}"] {
            assert!(
                !exercise.document().contains(placeholder),
                "{family}: {placeholder} was not filled in\n{prompt}{solution}"
            );
        }
    }
}

#[test]
fn the_demo_tokenizer_fits_the_corpus() {
    let tokenizer = tokenizers::Tokenizer::from_bytes(demo_tokenizer_json()).expect("the asset is a tokenizer");
    assert_eq!(tokenizer.get_vocab_size(true), 1024);
    assert!(tokenizer.token_to_id("<|endoftext|>").is_some());
    assert!(demo_tokenizer_json().len() <= 60_000);
    let encode = |text: &str| tokenizer.encode(text, false).expect("it encodes any text").get_ids().to_vec();
    let count = 2_000;
    let mut tokens = 0;
    for index in 0..count {
        let exercise = Generator::new(31).exercise(index);
        let (document, prompt) = (exercise.document(), encode(&exercise.prompt));
        let ids = encode(&document);
        tokens += ids.len();
        assert_eq!(tokenizer.decode(&ids, true).expect("they are its own ids"), document);
        // Or a completion would begin where no training document has a token's start.
        assert!(ids.starts_with(&prompt), "the prompt is cut differently in its document:\n{document}");
    }
    let mean = tokens as f64 / count as f64;
    assert!((30.0..60.0).contains(&mean), "{mean} tokens a document: remake the tokenizer");
    // Any text, not only the corpus.
    for text in ["\t\tif x:\r\n  y = 'é漢🙂'\n\n\n", " _a__b  12 345\u{0}", ""] {
        assert_eq!(tokenizer.decode(&encode(text), true).expect("they are its own ids"), text);
    }
    assert_eq!(encode(" 17").len(), 2);
    assert_eq!(encode("        return").len(), 2);
}

#[test]
fn arguments_of_one_function_have_different_names() {
    for family in families::all() {
        let names: Vec<&&str> = family.arguments.iter().copied().flatten().collect();
        let different: HashSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len(), "{}: {names:?}", family.name);
    }
}

/// Runs `checks` (the source of functions of one name and what follows them) in one Python process.
fn run_all(checks: impl Iterator<Item = String>) -> Option<crate::eval::execute::Verdict> {
    let Some(python) = Python::find() else {
        eprintln!("SKIPPED: no Python interpreter was found, so the exercises' solutions were not run");
        return None;
    };
    let limits = Limits { wall: std::time::Duration::from_secs(120), cpu_seconds: 120, ..Limits::default() };
    let source = checks.collect::<Vec<_>>().join("\n");
    Some(python.run(&source, &limits).expect("Python starts"))
}

fn sample() -> Vec<Exercise> {
    let trained = (0..900).map(|index| Generator::new(21).exercise(index));
    trained.chain(held_out(21, 300)).collect()
}

#[test]
fn every_solution_passes_its_assertions() {
    let program = |exercise: &Exercise| format!("{}{}", exercise.document(), exercise.tests);
    if let Some(verdict) = run_all(sample().iter().map(program)) {
        assert_eq!(verdict, crate::eval::execute::Verdict::Passed);
    }
}

#[test]
fn examples_are_right() {
    let run = |exercise: &Exercise| {
        format!(
            "{}check({})",
            exercise.document(),
            exercise.prompt.split_whitespace().nth(1).map_or("", |f| f.split('(').next().unwrap_or(""))
        )
    };
    let check = "import doctest, io, contextlib
def check(function):
    for test in doctest.DocTestFinder(recurse=False).find(function, globs={function.__name__: function}):
        outcome = doctest.DocTestRunner(verbose=False).run(test)
        assert outcome.failed == 0, test.docstring
"
    .to_string();
    let examples: Vec<Exercise> = sample().into_iter().filter(|exercise| exercise.prompt.contains(">>>")).collect();
    assert!((200..600).contains(&examples.len()), "{} of 1200 have an example", examples.len());
    if let Some(verdict) = run_all(std::iter::once(check).chain(examples.iter().map(run))) {
        assert_eq!(verdict, crate::eval::execute::Verdict::Passed);
    }
}

#[test]
fn lazy_bodies_fail_the_assertions() {
    let wrong = |exercise: &Exercise| {
        let argument = exercise.prompt.split(['(', ',', ')']).nth(1).unwrap_or_default().to_string();
        let programs: Vec<String> =
            ["pass".to_string(), "return 0".to_string(), "return True".to_string(), format!("return {argument}")]
                .iter()
                .map(|body| format!("{}    {body}\n{}", exercise.prompt, exercise.tests))
                .collect();
        programs
            .iter()
            .map(|program| {
                format!(
                    "try:\n    exec({})\nexcept AssertionError:\n    pass\nelse:\n    raise SystemExit({program:?})\n",
                    python_string(program)
                )
            })
            .collect::<String>()
    };
    if let Some(verdict) = run_all(sample().iter().map(wrong)) {
        assert_eq!(verdict, crate::eval::execute::Verdict::Passed);
    }
}

/// Slips that a model makes: another constant, a comparison or an operator for another. A few change nothing within the
/// assertions' calls, so not all of them can fail.
#[test]
fn most_slips_fail_the_assertions() {
    let slips = [
        (" > ", " < "),
        (" > ", " >= "),
        (" < ", " <= "),
        (" + ", " - "),
        (" * ", " + "),
        ("+=", "-="),
        (" 3", " 4"),
        (" 7", " 8"),
    ];
    let mutants = |exercise: &Exercise| -> Vec<String> {
        // A slip in a loop's condition may never end, and the extreme of equals is the same with `>=` as with `>`.
        if exercise.solution.contains("while") || ["larger_of_two", "extreme_by_loop"].contains(&exercise.family) {
            return Vec::new();
        }
        let of = |&(from, to): &(&str, &str)| {
            exercise.solution.contains(from).then(|| exercise.solution.replacen(from, to, 1))
        };
        slips.iter().filter_map(of).map(|body| format!("{}{body}{}", exercise.prompt, exercise.tests)).collect()
    };
    let programs: Vec<String> = sample().iter().flat_map(mutants).collect();
    assert!(programs.len() > 400, "{}", programs.len());
    let counted = programs
        .iter()
        .map(|program| format!("try:\n    exec({})\nexcept Exception:\n    failed += 1\n", python_string(program)));
    let source = std::iter::once("failed = 0\n".to_string()).chain(counted);
    let enough = format!("assert failed >= 0.9 * {0}, f'{{failed}} of {0} slips were seen'\n", programs.len());
    if let Some(verdict) = run_all(source.chain([enough])) {
        assert_eq!(verdict, crate::eval::execute::Verdict::Passed);
    }
}

fn python_string(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"))
}
