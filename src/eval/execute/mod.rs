//! Runs one Python program in a process of its own, under limits.
//!
//! This bounds accidents of generated code: loops without an end, memory, output, stray children. It is no
//! security boundary: the program can still read what its user can read, and write outside its folder.
//!
//! - Everywhere: a fresh interpreter in isolated mode (`-I`: no user site, no PYTHON* variables; `-S`: no site packages; the standard
//!   library stays importable), an empty folder as working directory that is deleted afterwards, an empty environment, no
//!   standard input, bounded output, and the end at a time limit.
//! - On unix also: a process group of its own, which is killed as a whole when the program ends or time is up (a child that leaves the
//!   group by `setsid` escapes this), and resource limits for CPU time, address space, file size and processes.
//! - On Windows the time and output limits are all there is, and only the interpreter itself is killed, not what it started.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(not(unix), path = "other.rs")]
mod confine;

/// What a program may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time from start to end. All platforms.
    pub wall: Duration,
    /// CPU time of a process, whole seconds. Unix.
    pub cpu_seconds: u64,
    /// Address space of a process. Unix but macOS, whose kernel refuses it.
    pub memory_bytes: u64,
    /// Standard output, and again standard error. All platforms.
    pub output_bytes: u64,
    /// Largest file that it may write. Unix.
    pub file_bytes: u64,
    /// Processes and threads of the *user* at which the program can start no more (the kernel counts them by user, and does not hold
    /// root to it): 1 forbids children. Unix.
    pub processes: u64,
}

impl Default for Limits {
    /// Enough for an exercise: 5 s, 512 MiB, 1 MiB of output, 16 MiB a file, no children.
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(5),
            cpu_seconds: 5,
            memory_bytes: 512 << 20,
            output_bytes: 1 << 20,
            file_bytes: 16 << 20,
            processes: 1,
        }
    }
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It ran to its last line without an exception.
    Passed,
    /// It raised an exception, exited early, or was killed by a signal: the last line of its standard error, or a
    /// sentence on how it ended.
    Failed(String),
    /// It was still running at the limit of wall or CPU time.
    TimedOut,
    /// It wrote more than the limit to standard output or standard error.
    TooMuchOutput,
}

/// A Python 3 interpreter.
#[derive(Clone, Debug)]
pub struct Python {
    executable: PathBuf,
    version: String,
}

/// Exit status of a program that ran to its end. Status 0 would not do: `exit()` in generated code would pass.
const REACHED_THE_END: i32 = 86;
/// Pause between two looks at a running program.
const POLL: Duration = Duration::from_millis(2);
/// An interpreter that does not tell its version in this time is not used.
const VERSION_PATIENCE: Duration = Duration::from_secs(20);
/// Longest message of a verdict, in characters.
const MESSAGE_CHARACTERS: usize = 300;

impl Python {
    /// `python3`, else `python`, if it is a Python 3 that starts. `None` is no error: what needs Python is skipped.
    pub fn find() -> Option<Self> {
        ["python3", "python"].into_iter().find_map(Self::at)
    }

    /// The interpreter that the command `name` runs, if it is a Python 3.
    pub fn at(name: impl AsRef<Path>) -> Option<Self> {
        // A version manager's shim is a script that needs the environment: ask it for the interpreter behind it.
        let ask = "import sys; print(sys.version_info[0], '.'.join(map(str, sys.version_info[:3])), sys.executable)";
        let mut answer = tempfile::tempfile().ok()?;
        let mut child = Command::new(name.as_ref())
            .args(["-I", "-S", "-X", "utf8", "-c", ask])
            .stdin(Stdio::null())
            .stdout(answer.try_clone().ok()?)
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let deadline = Instant::now() + VERSION_PATIENCE;
        let status = loop {
            match child.try_wait().ok()? {
                Some(status) => break status,
                None if Instant::now() < deadline => std::thread::sleep(POLL),
                None => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return None;
                }
            }
        };
        let mut text = String::new();
        answer.seek(SeekFrom::Start(0)).ok()?;
        answer.read_to_string(&mut text).ok()?;
        let mut parts = text.trim_end().splitn(3, ' ');
        match (status.success(), parts.next(), parts.next(), parts.next()) {
            (true, Some("3"), Some(version), Some(executable)) if !executable.is_empty() => {
                Some(Self { executable: executable.into(), version: version.to_string() })
            }
            _ => None,
        }
    }

    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// Such as "3.11.7".
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Runs `source` as a program. An error means that it could not be run, and says nothing about the program.
    pub fn run(&self, source: &str, limits: &Limits) -> Result<Verdict> {
        let scratch = tempfile::Builder::new()
            .prefix("trainer-run-")
            .tempdir()
            .map_err(Error::io("create a folder in", std::env::temp_dir()))?;
        let program = scratch.path().join("program.py");
        let folder = scratch.path().join("work");
        // Written by os._exit, so that no handler of the program's own changes the status of a good run.
        let ending = format!("\n__import__(\"os\")._exit({REACHED_THE_END})\n");
        fs::write(&program, format!("{source}{ending}")).map_err(Error::io("write", &program))?;
        fs::create_dir(&folder).map_err(Error::io("create", &folder))?;
        let outputs = [Output::create(scratch.path().join("stdout"))?, Output::create(scratch.path().join("stderr"))?];

        let mut command = Command::new(&self.executable);
        command.args(["-I", "-S", "-B", "-X", "utf8"]).arg(&program).current_dir(&folder);
        command.stdin(Stdio::null()).stdout(outputs[0].writer()?).stderr(outputs[1].writer()?);
        command.env_clear();
        // Without it Windows finds no source of randomness, and Python does not start.
        if let (true, Some(root)) = (cfg!(windows), std::env::var_os("SystemRoot")) {
            command.env("SystemRoot", root);
        }
        confine::prepare(&mut command, limits);
        let child = command.spawn().map_err(Error::io("start", &self.executable))?;
        let end =
            Running { child, reaped: false }.wait(limits, &outputs).map_err(Error::io("wait for", &self.executable))?;
        Ok(match end {
            End::TimedOut => Verdict::TimedOut,
            End::TooMuchOutput => Verdict::TooMuchOutput,
            End::Exited(status) => verdict(status, &outputs, limits),
        })
    }
}

/// The verdicts of `programs`, in their order, with up to `jobs` of them running at a time.
pub fn run_many(python: &Python, programs: &[String], limits: &Limits, jobs: usize) -> Result<Vec<Verdict>> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || {
        let mut verdicts = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(program) = programs.get(index) else { break };
            let verdict = python.run(program, limits);
            failed.fetch_or(verdict.is_err(), Ordering::Relaxed);
            verdicts.push((index, verdict));
        }
        verdicts
    };
    let mut verdicts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.clamp(1, programs.len().max(1))).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(|worker| worker.join());
        // A panic of a worker is a bug of this file; it goes on in the caller's thread.
        done.flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect::<Vec<_>>()
    });
    verdicts.sort_unstable_by_key(|(index, _)| *index);
    verdicts.into_iter().map(|(_, verdict)| verdict).collect()
}

/// Where a program's standard output or standard error goes: a file, so that no reader has to keep up with it, and a
/// child that holds it open keeps nobody waiting.
struct Output {
    path: PathBuf,
    file: File,
}

impl Output {
    fn create(path: PathBuf) -> Result<Self> {
        let file =
            File::options().read(true).append(true).create_new(true).open(&path).map_err(Error::io("create", &path))?;
        Ok(Self { path, file })
    }

    fn writer(&self) -> Result<Stdio> {
        self.file.try_clone().map(Stdio::from).map_err(Error::io("open", &self.path))
    }

    fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// The last line that is not blank, without control characters, which could be meant for a terminal.
    fn last_line(&self) -> Option<String> {
        const TAIL: u64 = 8 << 10;
        let mut file = &self.file;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.len().saturating_sub(TAIL))).ok()?;
        file.take(TAIL).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().chars().filter(|c| !c.is_control()).take(MESSAGE_CHARACTERS).collect())
    }
}

enum End {
    Exited(ExitStatus),
    TimedOut,
    TooMuchOutput,
}

/// A started program; dropping it kills what is left of it.
struct Running {
    child: Child,
    reaped: bool,
}

impl Running {
    fn wait(mut self, limits: &Limits, outputs: &[Output]) -> std::io::Result<End> {
        let deadline = Instant::now() + limits.wall;
        loop {
            let has_ended = confine::has_ended(&mut self.child)?;
            if outputs.iter().any(|output| output.len() > limits.output_bytes) {
                return Ok(End::TooMuchOutput);
            }
            if has_ended {
                return self.finish().map(End::Exited);
            }
            if Instant::now() >= deadline {
                return Ok(End::TimedOut);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Kills the whole group, whose leader may be running or a zombie, and reaps the leader: in this order, since
    /// the group's number can belong to somebody else once the leader is reaped.
    fn finish(&mut self) -> std::io::Result<ExitStatus> {
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

fn verdict(status: ExitStatus, outputs: &[Output; 2], limits: &Limits) -> Verdict {
    if status.code() == Some(REACHED_THE_END) {
        return Verdict::Passed;
    }
    if confine::out_of_cpu_time(status) {
        return Verdict::TimedOut;
    }
    // The kernel stops a file, here standard output or error, at its size limit.
    if outputs.iter().any(|output| output.len() >= limits.output_bytes.min(limits.file_bytes)) {
        return Verdict::TooMuchOutput;
    }
    let how = match status.code() {
        Some(0) => "exited before its last line".to_string(),
        Some(code) => format!("exited with status {code}"),
        None => status.to_string(),
    };
    // A process that a signal killed may have written a warning before: the signal is the news.
    let message = if status.code().is_some_and(|code| code != 0) { outputs[1].last_line() } else { None };
    Verdict::Failed(message.unwrap_or(how))
}

#[cfg(test)]
mod tests;
