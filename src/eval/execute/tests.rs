use super::*;
use std::path::Path;
use std::time::{Duration, Instant};

/// The interpreter, or a visible skip.
pub(super) fn python() -> Option<Python> {
    let python = Python::find();
    if python.is_none() {
        eprintln!("SKIPPED: no Python interpreter was found");
    }
    python
}

pub(super) fn limits() -> Limits {
    Limits { wall: Duration::from_secs(20), cpu_seconds: 20, ..Limits::default() }
}

fn run(source: &str, limits: &Limits) -> Option<Verdict> {
    python().map(|python| python.run(source, limits).expect("Python starts"))
}

fn raised(exception: &str, message: &str) -> Option<Verdict> {
    Some(Verdict::Failed(Failure { exception: Some(exception.to_string()), message: message.to_string() }))
}

fn ended(message: &str) -> Option<Verdict> {
    Some(Verdict::Failed(Failure::without_exception(message)))
}

#[test]
fn a_correct_program_passes() {
    let Some(verdict) = run("import math\n\ndef f(x):\n    return x + 1\n\nassert f(math.floor(1.5)) == 2", &limits())
    else {
        return;
    };
    assert_eq!(verdict, Verdict::Passed);
}

#[test]
fn a_failing_program_tells_its_exception() {
    if python().is_none() {
        return;
    }
    assert_eq!(run("assert 1 + 1 == 3, 'sums'", &limits()), raised("AssertionError", "sums"));
    assert_eq!(run("assert 1 + 1 == 3", &limits()), raised("AssertionError", ""));
    assert_eq!(run("raise ValueError('é\\x00\\ud800')", &limits()), raised("ValueError", "é\0\\ud800"));
    assert_eq!(run("raise SystemExit(3)", &limits()), raised("SystemExit", "3"));
    assert_eq!(run("def f(:\n", &limits()), raised("SyntaxError", "invalid syntax (<string>, line 1)"));
    let strange = "class E(Exception):\n    def __str__(self):\n        raise KeyError\nraise E";
    assert_eq!(run(strange, &limits()), raised("E", ""));
    let Some(Verdict::Failed(failure)) = run("raise ValueError('a\\x1b[31mb\\n')", &limits()) else { panic!("passed") };
    assert_eq!(failure.to_string(), "ValueError: a[31mb");
    // As in the official harness.
    assert_eq!(run("if __name__ == '__main__':\n    raise ValueError", &limits()), Some(Verdict::Passed));
}

#[test]
fn leaving_before_the_end_does_not_pass() {
    if python().is_none() {
        return;
    }
    assert_eq!(run("raise SystemExit\nassert False", &limits()), raised("SystemExit", ""));
    assert_eq!(run("import os\nos._exit(0)", &limits()), ended("left before its last line"));
    assert_eq!(run("import os\nos._exit(1)", &limits()), ended("left with status 1 before its last line"));
}

#[test]
fn an_endless_loop_is_stopped_in_time() {
    let limits = Limits { wall: Duration::from_millis(500), ..limits() };
    let start = Instant::now();
    for source in ["while True:\n    pass", "import time\ntime.sleep(60)"] {
        let Some(verdict) = run(source, &limits) else { return };
        assert_eq!(verdict, Verdict::TimedOut);
    }
    // Each takes 0.5 s; the rest is room for a busy machine.
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn endless_output_is_bounded() {
    let small = Limits { output_bytes: 100_000, ..limits() };
    for source in ["while True:\n    print('x' * 1000)", "import sys\nwhile True:\n    sys.stderr.write('x' * 1000)"] {
        let Some(verdict) = run(source, &small) else { return };
        assert_eq!(verdict, Verdict::TooMuchOutput);
    }
    // The file limit below the output limit stops it just as well.
    #[cfg(unix)]
    assert_eq!(run("print('x' * 100_000)", &Limits { file_bytes: 10_000, ..limits() }), Some(Verdict::TooMuchOutput));
    assert_eq!(run("print('x' * 90_000)", &small), Some(Verdict::Passed));
}

#[test]
fn deep_recursion_fails() {
    let Some(verdict) = run("def f(n):\n    return f(n + 1)\n\nf(0)", &limits()) else { return };
    let Verdict::Failed(failure) = verdict else { panic!("{verdict:?}") };
    assert_eq!(failure.exception.as_deref(), Some("RecursionError"));
}

#[test]
fn the_surroundings_are_scrubbed() {
    let source = "
import os, sys
assert os.listdir() == [], os.listdir()
assert not {'HOME', 'PATH', 'USER', 'CARGO_MANIFEST_DIR'} & set(os.environ), os.environ
for read in [sys.stdin.read, sys.stdin.readline, input]:
    try:
        read()
    except OSError:
        continue
    raise ValueError('there was something to read')
assert sys.argv == ['']
open('note', 'w').write('x')
import json, collections, itertools, re, random, heapq, ctypes, threading, asyncio, decimal, fractions, copy
thread = threading.Thread(target=lambda: None)
thread.start()
thread.join()
asyncio.run(asyncio.sleep(0))
";
    for _ in 0..2 {
        let Some(verdict) = run(source, &limits()) else { return };
        assert_eq!(verdict, Verdict::Passed);
    }
}

#[test]
fn a_program_runs_the_same_each_time() {
    let source = "assert False, ' '.join({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'})";
    assert_eq!(run(source, &limits()), run(source, &limits()));
}

#[test]
fn many_programs_keep_their_order() {
    let Some(python) = python() else { return };
    let programs: Vec<String> = (0..12).map(|i| format!("assert {i} % 3 != 0, {i}")).collect();
    let verdicts = run_many(&python, &programs, &limits(), 3).expect("Python starts");
    let expected: Vec<Verdict> = (0..12)
        .map(|i| if i % 3 == 0 { raised("AssertionError", &i.to_string()).unwrap() } else { Verdict::Passed })
        .collect();
    assert_eq!(verdicts, expected);
    assert_eq!(run_many(&python, &[], &limits(), 0).expect("nothing to run"), []);
    // Whoever gets the verdicts may stop.
    let mut seen = 0;
    let stop = |_, _| {
        seen += 1;
        Ok(seen < 4)
    };
    run_each(&python, 12, |i| programs[i].clone(), &limits(), 3, stop).expect("Python starts");
    assert_eq!(seen, 4);
}

#[test]
fn what_is_no_python_is_not_found() {
    assert!(Python::at("no-such-python-anywhere").is_none());
    #[cfg(unix)]
    assert!(Python::at("true").is_none());
    if let Some(python) = python() {
        assert!(python.version().starts_with("3."), "{python:?}");
        assert!(python.executable().is_absolute(), "{python:?}");
    }
}

#[test]
fn an_interpreter_that_is_gone_or_broken_is_an_error() {
    let Some(mut python) = python() else { return };
    python.executable = "/no/such/python".into();
    let error = python.run("", &limits()).expect_err("it cannot start");
    assert!(error.to_string().contains("/no/such/python"), "{error}");
    assert!(run_many(&python, &vec![String::new(); 5], &limits(), 2).is_err());
    if Path::new("/bin/false").exists() {
        python.executable = "/bin/false".into();
        let error = python.with_layers(Layers::default()).run("", &limits()).expect_err("it does not start");
        assert!(error.to_string().contains("/bin/false did not start"), "{error}");
    }
}

#[cfg(all(unix, not(target_vendor = "apple")))]
#[test]
fn a_memory_hog_fails() {
    let limits = Limits { memory_bytes: 256 << 20, ..limits() };
    assert!(python().is_none() || run("x = bytearray(1 << 30)", &limits) == raised("MemoryError", ""));
    assert!(python().is_none() || run("x = bytearray(1 << 20)", &limits) == Some(Verdict::Passed));
}

#[cfg(unix)]
#[test]
fn cpu_time_and_file_size_are_limited() {
    if python().is_none() {
        return;
    }
    let start = Instant::now();
    assert_eq!(run("while True:\n    pass", &Limits { cpu_seconds: 1, ..limits() }), Some(Verdict::TimedOut));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    let source = "with open('f', 'wb') as f:\n    f.write(bytes(1 << 20))";
    let verdict = run(source, &Limits { file_bytes: 1 << 16, ..limits() });
    assert_eq!(verdict, raised("OSError", "[Errno 27] File too large"));
    assert_eq!(run(source, &limits()), Some(Verdict::Passed));
}

#[test]
fn confinement_is_one_line() {
    let Some(python) = python() else { return };
    let confinement = python.confinement();
    eprintln!("{confinement}");
    assert!(!confinement.to_string().contains('\n'));
    assert_eq!(confinement.refused.is_empty(), confinement.layers == ALL);
    let json = serde_json::to_value(confinement).unwrap();
    assert_eq!(json["seccomp"], confinement.layers.seccomp);
}

pub(super) const ALL: Layers = Layers { namespaces: true, landlock: true, seccomp: true };
