//! Damaged and hostile files, made up by proptest from whole ones: every reader of the program must give a sound value or one
//! clear sentence that names the file. None may panic, and none may ask for memory that the file does not account for.
//!
//! `TRAINER_FUZZ_CASES` is the number of cases a test (default 150); with `TRAINER_FUZZ_SECONDS` each test goes on for that
//! long. What once failed is in proptest-regressions/fuzz_tests/ and is tried first; each such finding has a plain test beside
//! the code that it was found in.

mod checkpoints;
mod corpora;
mod data;
mod edits;
mod logs;
mod memory;
mod models;
mod settings;
mod tokenizers;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::error::{Error, Result};
use edits::content;

/// Memory that any reader may use: buffers of fixed size.
const FIXED_BYTES: usize = 16 << 20;
/// And for each byte of its file: a parsed JSON value is some tens of times its text.
const BYTES_A_BYTE: usize = 200;
/// An error of a reader is a sentence, not the file.
const LONGEST_ERROR: usize = 4000;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// What is read, and how.
struct Target<'a> {
    /// `file!()` of the test, beside which failures are remembered.
    source: &'static str,
    /// Name of the file that is made.
    name: &'a str,
    /// Whole files to start from.
    files: Vec<Vec<u8>>,
    /// Mends the file's own checksums after it was edited.
    finish: fn(&mut Vec<u8>),
    /// What an error may say in place of the file's name.
    also_named: &'a [&'a str],
    /// Bytes of memory beyond what every reader may use.
    extra: usize,
}

impl<'a> Target<'a> {
    fn new(source: &'static str, name: &'a str, files: Vec<Vec<u8>>) -> Self {
        Self { source, name, files, finish: |_| {}, also_named: &[], extra: 0 }
    }

    /// Runs `read` on file after file, in a directory that `around` has filled with what belongs to it.
    fn run(&self, around: impl Fn(&Path), read: impl Fn(&Path) -> Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        around(dir.path());
        let path = dir.path().join(self.name);
        // The whole files are whole.
        for whole in &self.files {
            fs::write(&path, whole).unwrap();
            read(&path).unwrap();
        }
        cases(self.source, self.name, content(), |content| {
            let bytes = content.bytes(&self.files, self.finish);
            fs::write(&path, &bytes).unwrap();
            let (outcome, peak) = memory::peak(|| read(&path));
            let allowed = FIXED_BYTES + self.extra + BYTES_A_BYTE * bytes.len();
            prop_assert!(peak <= allowed, "{peak} bytes of memory for a file of {}", bytes.len());
            match outcome {
                Ok(()) => Ok(()),
                Err(error) => one_clear_sentence(&error, &[&[self.name], self.also_named].concat()),
            }
        });
    }
}

/// Tries cases until there are enough, or for long enough.
fn cases<S: Strategy>(
    source: &'static str,
    name: &str,
    strategy: S,
    test: impl Fn(S::Value) -> std::result::Result<(), TestCaseError>,
) {
    let seconds = Duration::from_secs(variable("TRAINER_FUZZ_SECONDS", 0));
    // The time is looked at between runs.
    let most = if seconds.is_zero() { u64::from(u32::MAX) } else { 500 };
    let each = variable("TRAINER_FUZZ_CASES", 150).min(most);
    let config = Config { cases: each as u32, source_file: Some(source), ..Config::default() };
    let (started, mut tried) = (Instant::now(), 0);
    while tried == 0 || started.elapsed() < seconds {
        let run = TestRunner::new(config.clone()).run(&strategy, &test);
        run.unwrap_or_else(|failed| panic!("{name}: {failed}"));
        tried += each;
    }
    eprintln!("fuzzed {name}: {tried} cases in {:.1} s", started.elapsed().as_secs_f64());
}

/// Whether an error is what a user should see; one of `names` must be in it.
fn one_clear_sentence(error: &Error, names: &[&str]) -> std::result::Result<(), TestCaseError> {
    let text = error.to_string();
    prop_assert!(names.iter().any(|name| text.contains(name)), "names none of {names:?}: {text}");
    prop_assert!(!text.contains(|c: char| c.is_control()), "not one line: {text:?}");
    prop_assert!(
        text.len() <= LONGEST_ERROR,
        "{} bytes: {}...",
        text.len(),
        text.chars().take(300).collect::<String>()
    );
    Ok(())
}
