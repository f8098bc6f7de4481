use super::*;

/// The interpreter, or a visible skip.
fn python() -> Option<Python> {
    let python = Python::find();
    if python.is_none() {
        eprintln!("SKIPPED: no Python interpreter was found");
    }
    python
}

fn limits() -> Limits {
    Limits { wall: Duration::from_secs(20), ..Limits::default() }
}

fn run(source: &str, limits: &Limits) -> Option<Verdict> {
    python().map(|python| python.run(source, limits).expect("Python starts"))
}

fn failed(message: &str) -> Option<Verdict> {
    Some(Verdict::Failed(message.to_string()))
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
fn a_failing_program_tells_its_last_line() {
    if python().is_none() {
        return;
    }
    assert_eq!(run("assert 1 + 1 == 3, 'sums'", &limits()), failed("AssertionError: sums"));
    assert_eq!(run("raise ValueError('a\\x1b[31mb\\n')", &limits()), failed("ValueError: a[31mb"));
    assert_eq!(run("raise SystemExit(3)", &limits()), failed("exited with status 3"));
    let Some(Verdict::Failed(message)) = run("def f(:\n", &limits()) else { panic!("a syntax error passed") };
    assert!(message.starts_with("SyntaxError"), "{message}");
}

#[test]
fn leaving_before_the_end_does_not_pass() {
    if python().is_none() {
        return;
    }
    assert_eq!(
        run("exit_early = True\nraise SystemExit\nassert False", &limits()),
        failed("exited before its last line")
    );
    assert_eq!(run("import os\nos._exit(0)", &limits()), failed("exited before its last line"));
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
    let Verdict::Failed(message) = verdict else { panic!("{verdict:?}") };
    assert!(message.starts_with("RecursionError"), "{message}");
}

#[test]
fn the_surroundings_are_scrubbed() {
    let source = "
import os, sys
assert os.listdir() == [], os.listdir()
assert not {'HOME', 'PATH', 'USER', 'CARGO_MANIFEST_DIR'} & set(os.environ), os.environ
assert sys.stdin.read() == ''
open('note', 'w').write('x')
import json, collections, itertools, re, random, heapq
";
    for _ in 0..2 {
        let Some(verdict) = run(source, &limits()) else { return };
        assert_eq!(verdict, Verdict::Passed);
    }
}

#[test]
fn many_programs_keep_their_order() {
    let Some(python) = python() else { return };
    let programs: Vec<String> = (0..12).map(|i| format!("assert {i} % 3 != 0, {i}")).collect();
    let verdicts = run_many(&python, &programs, &limits(), 3).expect("Python starts");
    let expected: Vec<Verdict> = (0..12)
        .map(|i| if i % 3 == 0 { Verdict::Failed(format!("AssertionError: {i}")) } else { Verdict::Passed })
        .collect();
    assert_eq!(verdicts, expected);
    assert_eq!(run_many(&python, &[], &limits(), 0).expect("nothing to run"), []);
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
fn an_interpreter_that_is_gone_is_an_error() {
    let python = Python { executable: "/no/such/python".into(), version: "3".into() };
    let error = python.run("", &limits()).expect_err("it cannot start");
    assert!(error.to_string().contains("/no/such/python"), "{error}");
    assert!(run_many(&python, &vec![String::new(); 5], &limits(), 2).is_err());
}

#[cfg(all(unix, not(target_vendor = "apple")))]
#[test]
fn a_memory_hog_fails() {
    let limits = Limits { memory_bytes: 256 << 20, ..limits() };
    assert!(python().is_none() || run("x = bytearray(1 << 30)", &limits) == failed("MemoryError"));
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
    assert_eq!(verdict, failed("OSError: [Errno 27] File too large"));
    assert_eq!(run(source, &limits()), Some(Verdict::Passed));
}

#[cfg(unix)]
#[test]
fn a_child_does_not_outlive_the_program() {
    let Some(python) = python() else { return };
    let outside = tempfile::tempdir().expect("a folder");
    let marker = outside.path().join("marker");
    // The child inherits the outputs, ignores the polite signals and writes the marker after the program's end.
    let fork = format!(
        "
import os, signal, time
try:
    child = os.fork()
except OSError:
    child = 1
if child == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1.5)
    open({marker:?}, 'w').write('alive')
    os._exit(0)
"
    );
    let limits = Limits { processes: 10_000, wall: Duration::from_millis(800), ..limits() };
    let start = Instant::now();
    assert_eq!(python.run(&fork, &limits).expect("Python starts"), Verdict::Passed);
    assert_eq!(python.run(&format!("{fork}time.sleep(60)"), &limits).expect("Python starts"), Verdict::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    std::thread::sleep(Duration::from_secs(2));
    assert!(!marker.exists(), "a child of the program outlived it");
}
