//! A self-test in a process of its own.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use trainer_backends::discovery::DeviceInfo;
use trainer_backends::tensor_cores::KernelFamily;
use wait_timeout::ChildExt;

/// Inputs that the emulated devices of our tests have passed with: what fails here is the device's doing.
const SEED: &str = "1";

/// What of `trainer selftest --json` counts.
#[derive(Deserialize)]
struct Report {
    failed: usize,
    operations: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    operation: String,
    dtype: String,
    shape: String,
    /// `None` for what is not finite.
    error: Option<f64>,
    passed: bool,
}

/// How many results of a family agree with the reference; else what went wrong, in a sentence's part.
pub(super) fn family(device: &DeviceInfo, family: KernelFamily, limit: Duration) -> Result<usize, String> {
    // By wgmma where neither variable says otherwise.
    let (group, [wgmma, mma], tune) = match family {
        KernelFamily::WgmmaProducts => ("products", ["auto", "off"], None),
        KernelFamily::MmaProducts => ("products", ["off", "auto"], None),
        KernelFamily::WgmmaAttention => ("attention-blocks", ["auto", "auto"], None),
        KernelFamily::MmaAttention => {
            ("attention-blocks", ["auto", "auto"], Some("attention.forward=1x3x16,attention.backward=1x3x16"))
        }
    };
    let mut command = selftest(device, group);
    command.env("TRAINER_WGMMA", wgmma).env("TRAINER_MMA", mma);
    command.args(["--dtype", "fp16,bf16"]);
    command.args(tune.map(|tune| ["--tune", tune]).into_iter().flatten());
    run(command, limit)
}

/// Whether the device does what every device does, through kernels of CubeCL's.
pub(super) fn control(device: &DeviceInfo, limit: Duration) -> Result<usize, String> {
    run(selftest(device, "embedding"), limit)
}

fn selftest(device: &DeviceInfo, group: &str) -> Command {
    // By its own name, whatever has become of the file since.
    let program = std::env::current_exe().unwrap_or_else(|_| "trainer".into());
    let mut command = Command::new(program);
    command.args(["--backend", "cuda", "--device", &device.index.to_string()]);
    command.args(["selftest", "--json", "--seed", SEED, "--only", group]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(mut command: Command, limit: Duration) -> Result<usize, String> {
    let mut child = command.spawn().map_err(|error| format!("no process could be started ({error})"))?;
    let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let Some(status) =
        child.wait_timeout(limit).map_err(|error| format!("its process could not be waited for ({error})"))?
    else {
        end(child);
        return Err(format!("no end after {:.0} s", limit.as_secs_f64()));
    };
    let joined = |reader: std::thread::JoinHandle<String>| reader.join().unwrap_or_default();
    let (stdout, stderr) = (joined(stdout), joined(stderr));
    match serde_json::from_str::<Report>(&stdout) {
        Ok(report) => report.outcome(),
        Err(_) => Err(format!("{} ({status})", last_words(&stderr))),
    }
}

/// A process that waits for its GPU may take its time to go, and is not waited for longer than it takes to see that.
fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait_timeout(Duration::from_secs(5));
}

/// Reads all of a pipe on a thread, so that the other end never waits.
fn reader(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was said until then is worth having.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Report {
    fn outcome(self) -> Result<usize, String> {
        let count = self.operations.len();
        let error = |row: &Row| row.error.unwrap_or(f64::INFINITY);
        let worst = self.operations.iter().filter(|row| !row.passed).max_by(|a, b| error(a).total_cmp(&error(b)));
        match worst {
            Some(row) => Err(format!(
                "{} of {count} comparisons are outside their tolerance; {} in {}, {}: error {:.1e}",
                self.failed,
                row.operation,
                row.dtype,
                row.shape,
                error(row)
            )),
            None if count == 0 => Err("nothing was compared".into()),
            None => Ok(count),
        }
    }
}

/// What a process that broke down said of it: the cause behind its first panic, or the panic's message, or its last line.
fn last_words(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let panics = |line: &&str| line.contains("panicked at");
    let panic = lines.iter().position(panics).map_or(&[][..], |at| &lines[at + 1..]);
    let panic = &panic[..panic.iter().position(panics).unwrap_or(panic.len())];
    let cause = panic.iter().rposition(|line| *line == "Caused by:").and_then(|at| panic.get(at + 1));
    let words = cause.or(panic.first()).or(lines.last()).copied().unwrap_or("its process broke down");
    words.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[test]
    fn what_a_process_may_come_to() {
        let row = |passed: bool, error: &str| {
            format!(r#"{{"operation": "o", "dtype": "f16", "shape": "s", "error": {error}, "passed": {passed}}}"#)
        };
        let report = |failed: usize, rows: &str| format!(r#"echo '{{"failed": {failed}, "operations": [{rows}]}}'"#);
        let run = |script: &str, seconds| run(shell(script), Duration::from_secs_f64(seconds));

        let passed = row(true, "1e-4");
        assert_eq!(run(&report(0, &format!("{passed}, {passed}")), 20.0), Ok(2));
        assert!(run(&report(0, ""), 20.0).unwrap_err().contains("nothing"));
        let why = run(
            &format!(
                "{}; exit 1",
                report(2, &[&passed, &row(false, "0.5"), &row(false, "null")].map(|row| row.as_str()).join(","))
            ),
            20.0,
        );
        let why = why.unwrap_err();
        assert!(why.contains("2 of 3") && why.contains("error inf"), "{why}");
        let why = run("echo said >&2; exit 7", 20.0).unwrap_err();
        assert!(why.contains("said") && why.contains('7'), "{why}");
        let why = run("kill -9 $$", 20.0).unwrap_err();
        assert!(why.contains("broke down") && why.contains('9'), "{why}");
        // More than a pipe holds, on both.
        let loud = "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789 >&2; i=$((i+1)); done";
        assert_eq!(run(&format!("{loud}; {}", report(0, &passed)), 20.0), Ok(1));
        let begun = std::time::Instant::now();
        assert_eq!(run("exec sleep 60", 0.2), Err("no end after 0 s".into()));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn the_first_panic_is_the_reason() {
        let stderr = "seed 1\nthread 'DSU-0-0' panicked at src/x.rs:1:2:\nillegal instruction\nnote: run with\nerror: broke down\n";
        assert_eq!(last_words(stderr), "illegal instruction");
        let caused = "thread 'main' panicked at x:\nno data\nCaused by:\n  a server\nCaused by:\n  DriverError(715)\nBacktrace\n\
                      thread 'b' panicked at y:\nCaused by:\nthe first\n";
        assert_eq!(last_words(caused), "DriverError(715)");
        assert_eq!(last_words("one\ntwo\n\n"), "two");
        assert_eq!(last_words(""), "its process broke down");
    }
}
