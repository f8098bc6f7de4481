//! What several tests need: the test data, the program itself, a prepared corpus, and what a run left behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;
use trainer::checkpoint::layout::list_steps;

/// A file or folder of the test data that the project ships.
pub fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Runs `$check::<Backend>(&device)` on the CPU and, where there is an adapter, on WGPU; says which were skipped.
#[macro_export]
macro_rules! on_cpu_and_wgpu {
    ($check:ident) => {{
        $check::<trainer_backends::Cpu>(&Default::default());
        #[cfg(feature = "wgpu")]
        match trainer_backends::discovery::choose(trainer_backends::discovery::Request::Wgpu, None) {
            Ok(choice) => $check::<trainer_backends::Wgpu>(&trainer_backends::wgpu_device(&choice.device)),
            Err(error) => eprintln!("SKIPPED on wgpu: {error}"),
        }
    }};
}

/// The program with arguments separated by blanks, on the CPU: `auto` would take whatever the machine has. Paths, which
/// may hold blanks, are added with `.arg`.
pub fn trainer(args: &str) -> Command {
    trainer_on("cpu", args)
}

/// The program on a backend.
pub fn trainer_on(backend: &str, args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
    command.args(["--backend", backend]).args(args.split_whitespace()).stdin(Stdio::null());
    command
}

/// Adds `--set` for each of the assignments separated by blanks.
pub fn set(command: &mut Command, sets: &str) {
    sets.split_whitespace().for_each(|set| {
        command.args(["--set", set]);
    });
}

/// How the program ended.
#[derive(Debug)]
pub struct Ended {
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    /// Shown as the exit code or the signal.
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A file of tests/data, compiled in `place` for LD_PRELOAD.
#[cfg(target_os = "linux")]
pub fn preloaded(place: &Place, source: &str) -> PathBuf {
    let library = place.path(&format!("{source}.so"));
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(data(source)).arg("-ldl").status();
    assert!(built.unwrap().success(), "no C compiler, which Rust needs to link, and so is there");
    library
}

/// Runs the program to its end.
pub fn run(command: &mut Command) -> Ended {
    let output = command.output().expect("the program starts");
    Ended {
        code: output.status.code(),
        status: output.status,
        stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
    }
}

impl Ended {
    /// Itself, if it ended with exit code 0.
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{}: {}", self.status, self.stderr);
        self
    }

    /// Its standard output as one JSON object.
    #[track_caller]
    pub fn json(&self) -> Value {
        let object: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout));
        assert!(object.is_object(), "{object}");
        object
    }

    /// Its one line of error, which is the last thing it said and has all of `words`; the exit code is `code`.
    #[track_caller]
    pub fn error(&self, code: i32, words: &[&str]) -> &str {
        assert_eq!(self.code, Some(code), "{}: {}", self.status, self.stderr);
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error")).collect();
        assert_eq!(errors.len(), 1, "one line of error: {}", self.stderr);
        assert!(errors[0].starts_with("error: ") && self.stderr.lines().last() == Some(errors[0]), "{}", self.stderr);
        for word in words {
            assert!(errors[0].contains(word), "no \"{word}\" in: {}", errors[0]);
        }
        errors[0]
    }
}

/// A temporary directory with a small configuration and a prepared corpus: `config.toml`, `text/` and `data/`.
pub struct Place {
    dir: tempfile::TempDir,
}

/// 41,000 parameters: a step takes some milliseconds, so that what is tested is the program and not the machine.
const CONFIG: &str = "\
[model]
layers = 2
hidden = 32
heads = 2
vocab = 257
seq_len = 32
dropout = 0.1
[optimizer]
lr = 1e-2
warmup_steps = 5
[train]
steps = 40
batch = 8
micro_batch = 4
";

impl Place {
    pub fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(place.path("config.toml"), CONFIG).unwrap();
        fs::create_dir(place.path("text")).unwrap();
        for document in 0..24 {
            fs::write(place.path(&format!("text/{document}.txt")), functions(document)).unwrap();
        }
        let mut prepare = trainer("prepare --tokenizer bytes --val-fraction 0.2 --json");
        let prepared = run(prepare.arg(place.path("text")).arg("--out").arg(place.path("data"))).success().json();
        assert!(prepared["manifest"]["val"]["tokens"].as_u64().unwrap() > 33, "{prepared}");
        place
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `trainer train` of the small configuration on the corpus into `out`, with `--set` for each of `sets`.
    pub fn train(&self, out: &str, sets: &str) -> Command {
        self.train_on("cpu", out, sets)
    }

    pub fn train_on(&self, backend: &str, out: &str, sets: &str) -> Command {
        let mut command = trainer_on(backend, "train");
        command.arg("--config").arg(self.path("config.toml")).arg("--data").arg(self.path("data"));
        command.arg("--out").arg(self.path(out));
        set(&mut command, sets);
        command
    }

    /// The losses of a whole run.
    pub fn losses(&self, out: &str, sets: &str) -> Vec<f64> {
        run(&mut self.train(out, sets)).success();
        metrics(&self.path(out)).losses()
    }

    /// Every file under a path of it with its content, but for locks.
    pub fn snapshot(&self, name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut pending = vec![self.path(name)];
        while let Some(dir) = pending.pop().filter(|dir| dir.exists()) {
            for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                match entry.is_dir() {
                    true => pending.push(entry),
                    false if entry.ends_with(".lock") => {}
                    false => {
                        let content = fs::read(&entry).unwrap();
                        found.insert(entry, content);
                    }
                }
            }
        }
        found
    }
}

/// Small functions that repeat themselves, differently from document to document.
fn functions(document: u32) -> String {
    let function = |i: u32| {
        let name = char::from(b'a' + ((document * 7 + i * i) % 5) as u8);
        let operator = ["+", "-", "*"][(document + i) as usize % 3];
        format!("def {name}(x, y):\n    return x {operator} y\n\n\n")
    };
    (0..12).map(function).collect()
}

/// What metrics.jsonl holds.
#[derive(Debug)]
pub struct Metrics {
    pub steps: Vec<Value>,
    pub validations: Vec<Value>,
}

/// Reads a run's metrics: one line a step, in order, each validation behind its step.
#[track_caller]
pub fn metrics(run: &Path) -> Metrics {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert!(text.ends_with('\n'), "{text}");
    let mut metrics = Metrics { steps: Vec::new(), validations: Vec::new() };
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let steps = metrics.steps.len() as u64;
        if record.get("val_loss").is_some() {
            assert_eq!(record["step"], steps, "{text}");
            metrics.validations.push(record);
        } else {
            assert_eq!(record["step"], steps + 1, "{text}");
            metrics.steps.push(record);
        }
    }
    metrics
}

impl Metrics {
    pub fn losses(&self) -> Vec<f64> {
        self.steps.iter().map(|step| step["loss"].as_f64().unwrap()).collect()
    }

    /// Steps whose update was skipped.
    pub fn skipped(&self) -> u64 {
        self.steps.iter().filter(|step| step["skipped"] == true).count() as u64
    }
}

/// Whole lines of a metrics file that may be being written.
pub fn lines_so_far(run: &Path) -> usize {
    fs::read(run.join("metrics.jsonl")).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count())
}

/// The newest checkpoint of a run, whole: every file has the checksum that its MANIFEST says.
#[track_caller]
pub fn whole_latest(run: &Path) -> PathBuf {
    trainer::checkpoint::latest(run).unwrap().expect("the run has a checkpoint")
}

/// The steps that have a checkpoint, each of them whole.
#[track_caller]
pub fn whole_checkpoints(run: &Path) -> Vec<u64> {
    let steps = list_steps(run).unwrap();
    for step in &steps {
        trainer::checkpoint::verify(&trainer::checkpoint::layout::step_dir(run, *step)).unwrap();
    }
    steps
}

/// An llm.c token shard, as a program that knows nothing of ours writes it.
pub fn write_shard(path: &Path, tokens: &[u16]) {
    let mut header = [0u32; 256];
    header[..3].copy_from_slice(&[20_240_520, 1, tokens.len() as u32]);
    let header = header.iter().flat_map(|word| word.to_le_bytes());
    fs::write(path, header.chain(tokens.iter().flat_map(|token| token.to_le_bytes())).collect::<Vec<u8>>()).unwrap();
}

/// The largest relative difference of two curves.
#[track_caller]
pub fn furthest_apart(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max)
}

/// Whether there is a WGPU adapter, software ones included; says that `what` is skipped where there is none.
pub fn has_wgpu(what: &str) -> bool {
    use trainer_backends::discovery::{Request, choose};
    match choose(Request::Wgpu, None) {
        Ok(_) => true,
        Err(error) => {
            eprintln!("SKIPPED {what} on wgpu: {error}");
            false
        }
    }
}
