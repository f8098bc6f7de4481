//! `trainer humaneval`: verdicts, pass@k, hostile samples among others, kills and resumes, wrong input. The problems are built-in
//! exercises in HumanEval's format; HumanEval itself is read where TRAINER_HUMANEVAL names it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trainer::data::exercises::{Exercise, held_out};
use trainer::eval::execute::Python;

use crate::support::{run, trainer};

/// Whether samples can be run at all; says that `what` is skipped where they cannot.
fn has_python(what: &str) -> bool {
    let found = Python::find().is_some();
    if !found {
        eprintln!("SKIPPED {what}: no Python interpreter was found");
    }
    found
}

/// A folder with problems made of exercises.
struct Place {
    dir: tempfile::TempDir,
    exercises: Vec<Exercise>,
}

impl Place {
    fn new(problems: usize) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap(), exercises: held_out(6, problems) };
        let lines: Vec<Value> =
            place.exercises.iter().enumerate().map(|(index, exercise)| problem(index, exercise)).collect();
        place.write("problems.jsonl", &lines);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, lines: &[Value]) {
        fs::write(self.path(name), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }

    fn command(&self, options: &str, samples: &str) -> Command {
        let mut command = trainer(&format!("humaneval {options}"));
        command.arg("--problems").arg(self.path("problems.jsonl")).arg("--score").arg(self.path(samples));
        command
    }

    fn solution(&self, problem: usize) -> Value {
        sample(problem, &self.exercises[problem].solution)
    }
}

fn problem(index: usize, exercise: &Exercise) -> Value {
    let entry_point = exercise.prompt.trim_start_matches("def ").split('(').next().unwrap();
    let asserts: String = exercise.tests.lines().map(|line| format!("    {line}\n")).collect();
    json!({
        "task_id": task_id(index), "prompt": exercise.prompt, "entry_point": entry_point,
        "canonical_solution": exercise.solution, "test": format!("\ndef check(candidate):\n{asserts}\n"),
    })
}

fn task_id(index: usize) -> String {
    format!("Exercise/{index}")
}

fn sample(problem: usize, completion: &str) -> Value {
    json!({ "task_id": task_id(problem), "completion": completion })
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn results(place: &Place, samples: &str) -> Vec<Value> {
    lines(&place.path(&format!("{samples}_results.jsonl")))
}

#[test]
fn verdicts_and_pass_at_k() {
    if !has_python("scoring") {
        return;
    }
    let place = Place::new(3);
    // Of ten samples each: all pass, one passes, none passes.
    let bad = [
        "    pass\n",
        "    return (\n",
        "    return no_such_name\n",
        "    raise SystemExit\n",
        "    import os\n    os._exit(0)\n",
    ];
    let samples: Vec<Value> = (0..30)
        .map(|i| match (i % 3, i / 3) {
            (0, _) | (1, 4) => place.solution(i % 3),
            (problem, turn) => sample(problem, bad[turn % bad.len()]),
        })
        .collect();
    place.write("samples.jsonl", &samples);
    let scored = run(&mut place.command("--json --jobs 2", "samples.jsonl")).success();
    let object = scored.json();
    assert_eq!((&object["samples"], &object["passed"], &object["problems"]), (&json!(30), &json!(11), &json!(3)));
    let pass = |k: &str| object[k].as_f64().unwrap();
    assert!((pass("pass@1") - 11.0 / 30.0).abs() < 1e-12, "{object}");
    assert!((pass("pass@10") - 2.0 / 3.0).abs() < 1e-12, "{object}");
    assert!(object.get("pass@100").is_none(), "{object}");
    assert_eq!(object["finished"], true);
    assert!(object["confinement"]["resource_limits"].is_boolean(), "{object}");
    assert!(scored.stderr.contains("programs are confined by"), "{}", scored.stderr);

    let results = results(&place, "samples.jsonl");
    for (result, sample) in results.iter().zip(&samples) {
        assert_eq!((&result["task_id"], &result["completion"]), (&sample["task_id"], &sample["completion"]));
        assert_eq!(result["passed"], result["result"] == "passed");
    }
    let of = |completion: &str| results.iter().find(|line| line["completion"] == completion).unwrap();
    assert_eq!(of(bad[1])["kind"], "SyntaxError");
    assert_eq!(of(bad[2])["result"], "failed: name 'no_such_name' is not defined");
    assert_eq!(of(bad[3])["kind"], "SystemExit");
    assert_eq!(of(bad[4])["kind"], "ended early");
    assert_eq!(object["kinds"]["passed"], 11);

    // For people: the same, and nothing is run again.
    let text = run(&mut place.command("", "samples.jsonl")).success();
    for words in
        ["pass@1    36.67%", "pass@10   66.67%", "pass@100  needs at least 100", "30 samples of 3 problems, 10 of each"]
    {
        assert!(text.stdout.contains(words), "no \"{words}\" in {}", text.stdout);
    }
    assert!(text.stderr.contains("0 samples run (and 30 of an earlier run)"), "{}", text.stderr);
    // A results file can be scored again; compressed problems and samples are read as well.
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&fs::read(place.path("samples.jsonl_results.jsonl")).unwrap()).unwrap();
    fs::write(place.path("again.jsonl.gz"), gz.finish().unwrap()).unwrap();
    let mut again = place.command("--json", "again.jsonl.gz");
    let again = run(again.arg("--out").arg(place.path("again.jsonl"))).success().json();
    assert_eq!(again["kinds"], object["kinds"]);
    assert_eq!(lines(&place.path("again.jsonl")), results);
}

/// What harms the machine, the harness or its neighbours stands between good samples, whose verdicts stay.
#[test]
fn hostile_samples_hurt_themselves_alone() {
    if !has_python("hostile samples") {
        return;
    }
    let place = Place::new(1);
    let trainer = std::process::id();
    let hostile = [
        "    import os\n    while True:\n        try:\n            os.fork()\n        except OSError:\n            pass\n".to_string(),
        format!("    import os\n    os.kill({trainer}, 9)\n    os.kill(os.getppid(), 9)\n"),
        "    print('x' * (1 << 30))\n    while True:\n        print('x' * (1 << 20))\n".to_string(),
        "    import os\n    for i in range(10_000):\n        open(str(i), 'wb').write(bytes(1 << 23))\n".to_string(),
        "    x = 'x' * (1 << 36)\n".to_string(),
        "    import signal, time\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    time.sleep(1000)\n".to_string(),
        "    import sys\n    sys.exit(0)\n".to_string(),
        "    pass\nimport builtins\nbuiltins.AssertionError = SystemExit\n".to_string(),
        "    pass\ndef check(candidate):\n    pass\n".to_string(),
        "    pass\nimport os\ncheck = lambda candidate: os._exit(0)\ncheck(None)\n".to_string(),
        "    import os\n    for fd in range(100):\n        try:\n            os.write(fd, b'passed')\n        except OSError:\n            pass\n".to_string(),
    ];
    let samples: Vec<Value> =
        hostile.iter().flat_map(|completion| [sample(0, completion), place.solution(0)]).collect();
    place.write("samples.jsonl", &samples);
    let object = run(&mut place.command("--json --jobs 2 --timeout 1", "samples.jsonl")).success().json();
    let expected: Vec<bool> = (0..samples.len()).map(|index| index % 2 == 1).collect();
    let results = results(&place, "samples.jsonl");
    let passed: Vec<bool> = results.iter().map(|line| line["passed"] == true).collect();
    assert_eq!(passed, expected, "{object}: {results:?}");
}

#[test]
fn a_killed_run_goes_on() {
    if !has_python("kills of a scoring run") {
        return;
    }
    // No sample here needs the time limit, and a loaded machine must not make the difference.
    let place = Place::new(8);
    let samples: Vec<Value> =
        (0..48)
            .map(|i| {
                if i % 5 == 3 { sample(i % 8, "    import time\n    time.sleep(0.2)\n") } else { place.solution(i % 8) }
            })
            .collect();
    place.write("samples.jsonl", &samples);
    let whole =
        run(place.command("--json --jobs 2 --timeout 30", "samples.jsonl").arg("--out").arg(place.path("whole.jsonl")));
    let whole = whole.success().json();
    let out = place.path("samples.jsonl_results.jsonl");
    let written = || fs::read(&out).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count());
    for enough in [3, 20] {
        let mut command = place.command("--json --jobs 2 --timeout 30", "samples.jsonl");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while written() < enough && Instant::now() < deadline && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!((enough..48).contains(&written()), "{} of 48", written());
        // A line half written when the kill came.
        let mut bytes = fs::read(&out).unwrap();
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').unwrap() + 1);
        bytes.extend_from_slice(b"{\"task_id\":\"Exer");
        fs::write(&out, bytes).unwrap();
    }
    let done = run(&mut place.command("--json --jobs 2 --timeout 30", "samples.jsonl")).success().json();
    assert!(done["resumed"].as_u64().unwrap() >= 20, "{done}");
    assert_eq!(lines(&out), lines(&place.path("whole.jsonl")));
    assert_eq!((&done["pass@1"], &done["kinds"]), (&whole["pass@1"], &whole["kinds"]));
}

/// Ctrl-C: what is done stays, and the run says how to go on.
#[cfg(unix)]
#[test]
fn an_interrupted_run_stops_whole() {
    if !has_python("interrupting a scoring run") {
        return;
    }
    let place = Place::new(1);
    place.write("samples.jsonl", &vec![sample(0, "    import time\n    time.sleep(0.1)\n"); 400]);
    let child = place.command("", "samples.jsonl").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let out = place.path("samples.jsonl_results.jsonl");
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::read(&out).map_or(0, |bytes| bytes.len()) == 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains(&format!("stopped after {} of 400 samples; run it again", lines(&out).len())), "{stdout}");
}

#[test]
fn changed_inputs_are_noticed() {
    if !has_python("resuming with changed inputs") {
        return;
    }
    let place = Place::new(2);
    let samples = [place.solution(0), place.solution(1), sample(0, "    pass\n")];
    place.write("samples.jsonl", &samples);
    run(&mut place.command("--json", "samples.jsonl")).success();
    let out = place.path("samples.jsonl_results.jsonl");
    let before = fs::read(&out).unwrap();
    let refused = |command: &mut Command, words: &[&str]| {
        run(command).error(2, words);
        assert_eq!(fs::read(&out).unwrap(), before);
    };
    refused(
        &mut place.command("--timeout 2", "samples.jsonl"),
        &["line 1", "another --timeout", "choose another --out"],
    );
    place.write("samples.jsonl", &[samples[0].clone(), sample(1, "    return 5\n"), samples[2].clone()]);
    refused(&mut place.command("", "samples.jsonl"), &["line 2", "another sample", "remove it"]);
    place.write("samples.jsonl", &samples[..2]);
    refused(&mut place.command("", "samples.jsonl"), &["line 3", "the samples file lacks"]);
    // More samples are no change: only they are run.
    place.write("samples.jsonl", &[&samples[..], &[place.solution(1)]].concat());
    let more = run(&mut place.command("--json", "samples.jsonl")).success().json();
    assert_eq!((&more["resumed"], &more["samples"], &more["passed"]), (&json!(3), &json!(4), &json!(3)));
    // The problem's tests have changed.
    let text = fs::read_to_string(place.path("problems.jsonl")).unwrap().replace("assert ", "assert not ");
    fs::write(place.path("problems.jsonl"), text).unwrap();
    run(&mut place.command("", "samples.jsonl")).error(2, &["line 1", "another version of the problem"]);
}

#[test]
fn wrong_input_is_refused() {
    let place = Place::new(1);
    place.write("samples.jsonl", &[place.solution(0)]);
    let wrong = |name: &str, text: &str, words: &[&str]| {
        fs::write(place.path(name), text).unwrap();
        run(&mut place.command("", name)).error(2, words);
        assert!(!place.path(&format!("{name}_results.jsonl")).exists());
    };
    wrong("empty.jsonl", "\n", &["empty.jsonl", "holds no sample"]);
    wrong("broken.jsonl", "{\"task_id\": \"Exercise/0\", \"comp", &["broken.jsonl", "line 1", "JSON"]);
    wrong("field.jsonl", "{\"task_id\": \"Exercise/0\"}", &["field.jsonl", "line 1", "completion"]);
    let unknown = "{\"task_id\": \"HumanEval/7\", \"completion\": \"\"}";
    wrong("unknown.jsonl", unknown, &["unknown.jsonl", "HumanEval/7", "Exercise/0"]);
    run(&mut place.command("", "missing.jsonl")).error(2, &["missing.jsonl"]);
    if has_python("a foreign results file") {
        fs::write(place.path("notes.txt"), "not to be lost").unwrap();
        let mut foreign = place.command("", "samples.jsonl");
        run(foreign.arg("--out").arg(place.path("notes.txt"))).error(2, &["notes.txt", "choose another --out"]);
        assert_eq!(fs::read_to_string(place.path("notes.txt")).unwrap(), "not to be lost");
    }
    let twice = fs::read_to_string(place.path("problems.jsonl")).unwrap().repeat(2);
    fs::write(place.path("problems.jsonl"), twice).unwrap();
    run(&mut place.command("", "samples.jsonl")).error(2, &["problems.jsonl", "Exercise/0 twice"]);
}

/// HumanEval's own solutions pass, all 164, and none of its problems passes with an empty body.
#[test]
fn humaneval_itself() {
    let Some(problems) = std::env::var_os("TRAINER_HUMANEVAL") else {
        eprintln!("SKIPPED: TRAINER_HUMANEVAL does not name HumanEval.jsonl.gz");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let read = trainer::eval::humaneval::problems::Problems::read(Path::new(&problems)).unwrap();
    let score = |name: &str, completion: &dyn Fn(&str) -> String| {
        let path = dir.path().join(name);
        let line = |p: &trainer::eval::humaneval::problems::Problem| {
            format!("{}\n", json!({ "task_id": p.task_id, "completion": completion(&p.canonical_solution) }))
        };
        fs::write(&path, read.all().iter().map(line).collect::<String>()).unwrap();
        let mut command = trainer("humaneval --json");
        run(command.arg("--problems").arg(&problems).arg("--score").arg(&path)).success().json()
    };
    let solved = score("solved.jsonl", &|solution| solution.to_string());
    assert_eq!((&solved["passed"], &solved["samples"], &solved["pass@1"]), (&json!(164), &json!(164), &json!(1.0)));
    let empty = score("empty.jsonl", &|_| "    pass\n".to_string());
    assert_eq!((&empty["passed"], &empty["samples"], &empty["pass@1"]), (&json!(0), &json!(164), &json!(0.0)));
}

#[test]
fn samples_of_a_model_are_made_once_and_scored() {
    if !has_python("scoring a model's samples") {
        return;
    }
    let (model, place) = (crate::support::Place::new(), Place::new(3));
    run(&mut model.train("run", "train.steps=20")).success();
    let command = |options: &str, out: &str| {
        let mut command = trainer(&format!("humaneval --json --max-tokens 24 --temperature 0.8 {options} --model"));
        command.arg(model.path("run")).arg("--problems").arg(place.path("problems.jsonl"));
        command.arg("--out").arg(place.path(out));
        command
    };
    let report = run(&mut command("--samples 2", "a.jsonl")).success().json();
    assert_eq!((&report["finished"], &report["samples"]), (&json!(true), &json!(6)), "{report}");
    let lines = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(place.path(name)).unwrap();
        let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.sort_by_key(Value::to_string);
        lines
    };
    let whole = lines("a.jsonl");
    assert!(whole.iter().all(|line| line["seed"] == 0 && line["temperature"] == 0.8), "{whole:?}");
    // Done, nothing is added; torn, it is made whole; one at a time, nothing else comes out.
    assert_eq!(run(&mut command("--samples 2", "a.jsonl")).success().json()["tokens"], 0);
    let bytes = fs::read(place.path("a.jsonl")).unwrap();
    fs::write(place.path("a.jsonl"), &bytes[..bytes.len() - 9]).unwrap();
    run(&mut command("--samples 2", "a.jsonl")).success();
    assert_eq!(lines("a.jsonl"), whole);
    run(&mut command("--samples 1 --batch 1", "b.jsonl")).success();
    run(&mut command("--samples 2 --batch 1", "b.jsonl")).success();
    assert_eq!(lines("b.jsonl"), whole);
    run(&mut command("--samples 2 --seed 1", "a.jsonl")).error(2, &["seed"]);
    run(&mut command("--samples 2 --seed 1", "c.jsonl")).success();
    assert_ne!(lines("c.jsonl"), whole);

    let scored = run(&mut place.command("--json", "a.jsonl")).success().json();
    assert_eq!((&scored["samples"], &scored["problems"]), (&json!(6), &json!(3)), "{scored}");
    let mut neither = trainer("humaneval --problems");
    run(neither.arg(place.path("problems.jsonl"))).error(2, &["--model"]);
}
