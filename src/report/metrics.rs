//! RUN/metrics.jsonl: a line a step, and a line a validation.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use crate::checkpoint::storage::write_error;
use crate::error::{Error, Result};

/// The name of the file in a run directory.
pub const FILE_NAME: &str = "metrics.jsonl";

/// One optimizer step. A number that is not finite is written as null and read back as NaN.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Counts from 1.
    pub step: u64,
    /// Mean over the step's tokens, in nats.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    #[serde(deserialize_with = "null_is_nan")]
    pub lr: f64,
    /// Global L2 norm before clipping.
    #[serde(deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    #[serde(deserialize_with = "null_is_nan")]
    pub loss_scale: f64,
    /// The gradients overflowed and the weights were left as they are.
    pub skipped: bool,
    /// Tokens trained on since the run began, over all resumes.
    pub tokens: u64,
    #[serde(deserialize_with = "null_is_nan")]
    pub tokens_per_s: f64,
    /// Share of the device's peak FLOP/s; `None` where that is unknown.
    pub mfu: Option<f64>,
    /// Seconds of training since the run began, over all resumes.
    #[serde(deserialize_with = "null_is_nan")]
    pub seconds: f64,
    /// Bytes that the device holds for this run or, on the CPU, the process does; `None` where it was not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Share of the step's seconds in exchanges with other ranks, waiting for them included; `None` where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communication: Option<f64>,
    /// Share of that time for which the training waited; the rest ran while the device worked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed: Option<f64>,
}

/// One validation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationRecord {
    /// The step after which it was made.
    pub step: u64,
    /// Mean over the validation tokens, in nats.
    #[serde(deserialize_with = "null_is_nan")]
    pub val_loss: f64,
    /// Share of the problems that the likeliest completion solves, where the run is selected by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass_at_1: Option<f64>,
}

/// A line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Record {
    Validation(ValidationRecord),
    Step(StepRecord),
}

impl Record {
    pub fn step(&self) -> u64 {
        match self {
            Self::Step(record) => record.step,
            Self::Validation(record) => record.step,
        }
    }
}

// serde_json writes null for numbers that are not finite.
fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// Appends records to a run's metrics. Lines that cannot be written now (a full disk) wait for the next one.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    waiting: Vec<u8>,
    /// Whether the user was told that lines wait.
    told: bool,
}

impl MetricsLog {
    /// Opens `RUN/metrics.jsonl` for appending, creating it where it is missing. The torn last line of a killed run is cut
    /// off, so that the next record has a line of its own.
    pub fn open(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join(FILE_NAME);
        let open = OpenOptions::new().create(true).append(true).open(&path);
        let file = open.map_err(Error::io("open", &path))?;
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let whole = whole_lines(&bytes).len();
        if whole < bytes.len() {
            // Windows lets no handle that only appends cut a file.
            let cut = OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(whole as u64));
            cut.map_err(Error::io("write", &path))?;
        }
        Ok(Self { path, file, waiting: Vec::new(), told: false })
    }

    /// Appends one line. It is with the operating system when this returns, but where that has refused it: killing the
    /// process loses no line. The first refusal is returned as a warning, others in a row are not.
    pub fn write(&mut self, record: &Record) -> Option<Error> {
        // Numbers, booleans and nothing else: this cannot fail.
        let line = serde_json::to_vec(record).unwrap_or_default();
        self.waiting.extend(line);
        self.waiting.push(b'\n');
        let refused = self.flush().err();
        let first = !std::mem::replace(&mut self.told, refused.is_some());
        refused.filter(|_| first)
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// The operating system still refuses.
    pub fn flush(&mut self) -> Result<()> {
        while !self.waiting.is_empty() {
            // Byte by byte counted: half a line that went through must not be written twice.
            match self.file.write(&self.waiting) {
                Ok(0) => return Err(write_error("write", &self.path)(io::ErrorKind::WriteZero.into())),
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(write_error("write", &self.path)(error)),
            }
        }
        Ok(())
    }
}

/// Reads a metrics file. A last line without its end (being written, or torn by a kill) is left out.
///
/// # Errors
/// [`Error::File`] with the line's number where a line is no record.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    lines(path, &bytes).map(|line| line.map(|(_, record)| record)).collect()
}

/// Drops what a resumed run will write again: the records of steps after `step` (the checkpoint's), and a torn last line.
/// The file is replaced in one go; no file is no error. Returns the number of records dropped.
///
/// # Errors
/// As [`read`], and if the file cannot be written.
pub fn truncate_after(path: &Path, step: u64) -> Result<usize> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other.map_err(Error::io("read", path))?,
    };
    let (mut kept, mut dropped) = (Vec::with_capacity(bytes.len()), 0);
    for line in lines(path, &bytes) {
        let (line, record) = line?;
        if record.step() <= step {
            kept.extend_from_slice(line);
        } else {
            dropped += 1;
        }
    }
    if kept.len() < bytes.len() {
        let temporary = path.with_extension("jsonl.tmp");
        let replace = || {
            let mut file = File::create(&temporary)?;
            file.write_all(&kept)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        };
        let replaced: io::Result<()> = replace();
        if replaced.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        replaced.map_err(Error::io("write", path))?;
    }
    Ok(dropped)
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)]
}

/// Each whole line with its end, and its record.
fn lines<'a>(path: &'a Path, bytes: &'a [u8]) -> impl Iterator<Item = Result<(&'a [u8], Record)>> {
    whole_lines(bytes).split_inclusive(|byte| *byte == b'\n').enumerate().map(move |(index, line)| {
        let record = serde_json::from_slice(line).map_err(|_| {
            let text = String::from_utf8_lossy(line);
            let what = format!(
                "line {} is no record of a step or a validation: \"{}\"; remove that line to go on",
                index + 1,
                text.trim_end().chars().take(80).collect::<String>()
            );
            Error::file(path, what)
        })?;
        Ok((line, record))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> StepRecord {
        StepRecord {
            step,
            loss: 10.5 / step as f64,
            lr: 1e-3,
            grad_norm: 0.5,
            loss_scale: 65536.0,
            skipped: step == 2,
            tokens: step * 1000,
            tokens_per_s: 123.4,
            mfu: step.is_multiple_of(2).then_some(0.4),
            seconds: step as f64 * 8.1,
            memory: (step == 3).then_some(1 << 30),
            communication: (step == 3).then_some(0.25),
            exposed: (step == 3).then_some(0.5),
        }
    }

    fn run_with(steps: u64) -> (tempfile::TempDir, PathBuf) {
        let run = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::open(run.path()).unwrap();
        for number in 1..=steps {
            assert!(log.write(&Record::Step(step(number))).is_none());
            if number % 2 == 0 {
                assert!(
                    log.write(&Record::Validation(ValidationRecord { step: number, val_loss: 1.0, pass_at_1: None }))
                        .is_none()
                );
            }
        }
        let path = run.path().join(FILE_NAME);
        (run, path)
    }

    #[test]
    fn lines_have_the_documented_fields_and_read_back() {
        let (_run, path) = run_with(2);
        let text = fs::read_to_string(&path).unwrap();
        let expected = concat!(
            r#"{"step":1,"loss":10.5,"lr":0.001,"grad_norm":0.5,"loss_scale":65536.0,"skipped":false,"tokens":1000,"#,
            r#""tokens_per_s":123.4,"mfu":null,"seconds":8.1}"#
        );
        assert_eq!(text.lines().next(), Some(expected));
        assert_eq!(text.lines().nth(2), Some(r#"{"step":2,"val_loss":1.0}"#));
        let validation = Record::Validation(ValidationRecord { step: 2, val_loss: 1.0, pass_at_1: None });
        assert_eq!(read(&path).unwrap(), [Record::Step(step(1)), Record::Step(step(2)), validation]);
    }

    #[test]
    fn numbers_that_are_not_finite_are_null_and_come_back_as_nan() {
        let (run, path) = run_with(0);
        let mut log = MetricsLog::open(run.path()).unwrap();
        let broken = StepRecord { loss: f64::NAN, grad_norm: f64::INFINITY, ..step(1) };
        assert!(log.write(&Record::Step(broken)).is_none());
        let broken = ValidationRecord { step: 1, val_loss: f64::NEG_INFINITY, pass_at_1: None };
        assert!(log.write(&Record::Validation(broken)).is_none());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#""loss":null"#) && text.contains(r#""grad_norm":null"#), "{text}");
        let records = read(&path).unwrap();
        assert!(matches!(records[0], Record::Step(record) if record.loss.is_nan() && record.grad_norm.is_nan()));
        assert!(matches!(records[1], Record::Validation(record) if record.val_loss.is_nan()));
    }

    #[test]
    fn a_resume_drops_later_steps_and_the_torn_line() {
        let (run, path) = run_with(6);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], br#"{"step":7,"lo"#].concat()).unwrap();
        assert_eq!(read(&path).unwrap().len(), 9);
        assert_eq!(truncate_after(&path, 4).unwrap(), 3);
        assert_eq!(read(&path).unwrap(), read_prefix(&whole, 6));
        assert_eq!(truncate_after(&path, 4).unwrap(), 0);
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 1);
        assert_eq!(truncate_after(&path, 0).unwrap(), 6);
        assert_eq!(read(&path).unwrap(), []);
        assert_eq!(truncate_after(&run.path().join("absent"), 4).unwrap(), 0);
    }

    fn read_prefix(bytes: &[u8], records: usize) -> Vec<Record> {
        lines(Path::new(""), bytes).take(records).map(|line| line.unwrap().1).collect()
    }

    /// A kill can tear the last line anywhere; what follows must have a line of its own.
    #[test]
    fn appending_after_a_kill_at_any_byte_keeps_every_whole_record() {
        let (run, path) = run_with(2);
        let whole = fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let before = read(&path).unwrap();
            assert!(MetricsLog::open(run.path()).unwrap().write(&Record::Step(step(9))).is_none());
            let after = read(&path).unwrap();
            assert_eq!(after[..before.len()], before[..]);
            assert_eq!(after[before.len()..], [Record::Step(step(9))]);
        }
    }

    #[test]
    fn a_damaged_line_is_named_by_its_number() {
        let (_run, path) = run_with(2);
        let text = fs::read_to_string(&path).unwrap().replacen(r#""step":2,"loss""#, r#""stop":2,"loss""#, 1);
        fs::write(&path, text).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains("line 2 is no record"), "{message}");
        assert!(truncate_after(&path, 1).is_err());
        assert_eq!(read(Path::new("/absent/metrics.jsonl")).unwrap_err().exit_code(), 2);
    }

    /// /dev/full refuses every byte.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_full_disk_refuses_waits() {
        let (run, path) = run_with(1);
        let mut log = MetricsLog::open(run.path()).unwrap();
        let room = std::mem::replace(&mut log.file, OpenOptions::new().write(true).open("/dev/full").unwrap());
        let warning = log.write(&Record::Step(step(2))).expect("a warning").to_string();
        assert!(warning.contains("no space is left"), "{warning}");
        assert!(log.write(&Record::Step(step(3))).is_none() && log.flush().is_err());
        log.file = room;
        assert!(log.write(&Record::Step(step(4))).is_none());
        assert_eq!(read(&path).unwrap(), [1, 2, 3, 4].map(|number| Record::Step(step(number))));
    }
}
