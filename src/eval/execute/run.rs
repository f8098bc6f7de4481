//! One program: start, watch, kill, judge.

use super::confine::{self, Setting};
use super::confinement::Layers;
use super::files::{Stream, is_above};
use super::limits::{Failure, Limits, Verdict};
use super::python::Python;
use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Pause between two looks at a running program.
pub(super) const POLL: Duration = Duration::from_millis(2);
/// Looks at a running program between two measurements of its folder, where that has no size of its own.
const LOOKS_A_MEASUREMENT: u32 = 16;
/// An interpreter that has not come to the program's first line in this time is broken or the machine is.
const START_PATIENCE: Duration = Duration::from_secs(60);
const RUNNER: &str = include_str!("runner.py");
const STARTED: &[u8] = b"started\n";

impl Python {
    /// Runs `source` as a program. An error means that it could not be run, and says nothing about the program.
    pub fn run(&self, source: &str, limits: &Limits) -> Result<Verdict> {
        let layers = self.confinement().layers;
        // The machine may have been short of something for a moment.
        for _ in 0..2 {
            if let Outcome::Ended(verdict) = self.run_confined(source, limits, layers)? {
                return Ok(verdict);
            }
        }
        // A program can take back the word that it has started. An interpreter that does not start is nobody's failed program.
        match self.run_confined("", limits, layers)? {
            Outcome::Ended(_) => Ok(Verdict::Failed(Failure::without_exception("emptied its report"))),
            Outcome::NotStarted(why) => {
                Err(Error::failed(format!("{} did not start: {why}", self.executable.display())))
            }
        }
    }

    pub(super) fn run_confined(&self, source: &str, limits: &Limits, layers: Layers) -> Result<Outcome> {
        let scratch = tempfile::Builder::new()
            .prefix("trainer-run-")
            .tempdir()
            .map_err(Error::io("create a folder in", std::env::temp_dir()))?;
        // Landlock finds its rule one level above a mounted folder.
        let around = scratch.path().join("box");
        let folder = around.join("work");
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let output = Stream::create(scratch.path().join("output"))?;
        let report = Stream::create(scratch.path().join("report"))?;
        let token = token()?;

        let mut command = Command::new(&self.executable);
        command.args(["-s", "-S", "-B", "-X", "utf8", "-c", RUNNER]).args(&self.path).current_dir(&folder);
        command.stdin(input(source, &token)?).stdout(report.writer()?).stderr(output.writer()?);
        command.env_clear();
        // Sets of strings have the same order in every run: a verdict can be repeated.
        command.env("PYTHONHASHSEED", "0");
        // Threads of a linear algebra library would be limited by memory, not by their use.
        command.envs([("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("MKL_NUM_THREADS", "1")]);
        // Without it Windows finds no source of randomness, and Python does not start.
        if let (true, Some(root)) = (cfg!(windows), std::env::var_os("SystemRoot")) {
            command.env("SystemRoot", root);
        }
        confine::prepare(&mut command, &Setting { limits, layers, around: &around, folder: &folder, python: self })?;
        let child = command.spawn().map_err(Error::io("start", &self.executable))?;
        let running = Running { child, reaped: false };
        let watch = Watch { limits, output: &output, report: &report, folder: (!layers.namespaces).then_some(&folder) };
        let (end, started) = running.wait(&watch).map_err(Error::io("wait for", &self.executable))?;
        Ok(judge(end, started, &token, &watch))
    }
}

/// What came of starting a program.
pub(super) enum Outcome {
    Ended(Verdict),
    /// The interpreter said nothing before it ended; why, as far as can be told.
    NotStarted(String),
}

fn judge(end: End, started: bool, token: &[u8], watch: &Watch) -> Outcome {
    let told = watch.report.tail();
    let told = match told.strip_prefix(STARTED) {
        Some(told) => told,
        None if started => b"",
        None => {
            let how = match end {
                End::Exited(status) => status.to_string(),
                _ => "nothing happened".to_string(),
            };
            return Outcome::NotStarted(watch.output.last_line().unwrap_or(how));
        }
    };
    Outcome::Ended(match end {
        End::TooMuchOutput => Verdict::TooMuchOutput,
        _ if told == token => Verdict::Passed,
        End::TimedOut => Verdict::TimedOut,
        End::FolderFull => Verdict::Failed(Failure::without_exception("filled its folder")),
        End::Exited(status) if confine::out_of_cpu_time(status) => Verdict::TimedOut,
        // The kernel stops a file, here the output, at its size limit.
        End::Exited(_) if watch.output.len() >= watch.limits.output_bytes.min(watch.limits.file_bytes) => {
            Verdict::TooMuchOutput
        }
        End::Exited(status) => Verdict::Failed(failure(told, status)),
    })
}

/// Something that the program cannot guess, of letters and digits.
fn token() -> Result<Vec<u8>> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::failed(format!("no randomness: {error}")))?;
    Ok(bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect())
}

/// What the runner reads: a file without a name, of which no reader has to keep up with a writer.
fn input(source: &str, token: &[u8]) -> Result<Stdio> {
    let write = || -> io::Result<File> {
        let mut file = tempfile::tempfile()?;
        write!(file, "{}\n{source}", source.len())?;
        file.write_all(token)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    };
    write().map(Stdio::from).map_err(Error::io("write a file in", std::env::temp_dir()))
}

fn failure(told: &[u8], status: ExitStatus) -> Failure {
    let text = String::from_utf8_lossy(told);
    match (status.code(), text.split_once('\0')) {
        (Some(1), Some((exception, message))) => {
            Failure { exception: Some(exception.to_string()), message: message.to_string() }
        }
        (Some(0), _) => Failure::without_exception("left before its last line"),
        (Some(code), _) => Failure::without_exception(format!("left with status {code} before its last line")),
        (None, _) => Failure::without_exception(format!("ended by {status}")),
    }
}

/// What is looked at while a program runs.
struct Watch<'a> {
    limits: &'a Limits,
    output: &'a Stream,
    report: &'a Stream,
    /// `None` where the folder has a size of its own.
    folder: Option<&'a PathBuf>,
}

enum End {
    Exited(ExitStatus),
    TimedOut,
    TooMuchOutput,
    FolderFull,
}

/// A started program; dropping it kills what is left of it.
struct Running {
    child: Child,
    reaped: bool,
}

impl Running {
    /// How it ended, and whether it was seen to have started.
    fn wait(mut self, watch: &Watch) -> io::Result<(End, bool)> {
        let mut deadline = Instant::now() + START_PATIENCE;
        let mut started = false;
        let mut look = 0_u32;
        let end = loop {
            let has_ended = confine::has_ended(&mut self.child)?;
            if watch.output.len() > watch.limits.output_bytes {
                break End::TooMuchOutput;
            }
            if has_ended {
                break End::Exited(self.finish()?);
            }
            if !started && watch.report.len() > 0 {
                started = true;
                deadline = Instant::now() + watch.limits.wall;
            }
            if Instant::now() >= deadline {
                break End::TimedOut;
            }
            look = look.wrapping_add(1);
            if let (true, Some(folder)) = (look.is_multiple_of(LOOKS_A_MEASUREMENT), watch.folder)
                && is_above(folder, watch.limits.folder_bytes)
            {
                break End::FolderFull;
            }
            std::thread::sleep(POLL);
        };
        Ok((end, started))
    }

    /// Kills the whole group, whose leader may be running or a zombie, and reaps the leader: in this order, since
    /// the group's number can belong to somebody else once the leader is reaped.
    fn finish(&mut self) -> io::Result<ExitStatus> {
        self.reaped = true;
        confine::kill_all(&mut self.child);
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.finish();
        }
    }
}
