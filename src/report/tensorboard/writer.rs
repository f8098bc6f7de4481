//! One event file a process.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::DIR;
use super::event::Event;
use crate::report::metrics::{Record, StepRecord};
use crate::report::sessions::now;
use crate::report::voice::say;

/// Writes a run's metrics for TensorBoard. It never fails: what cannot be written is one warning.
#[derive(Debug)]
pub struct EventWriter {
    run_dir: PathBuf,
    /// Steps made before.
    step: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing was written yet, and a process that makes no step leaves no file.
    Waiting,
    Open(File),
    GivenUp,
}

impl EventWriter {
    /// For a process that begins after `step` steps; writes nothing yet.
    pub fn new(run_dir: &Path, step: u64) -> Self {
        Self { run_dir: run_dir.to_path_buf(), step, state: State::Waiting }
    }

    /// Adds a record's numbers.
    pub fn write(&mut self, record: &Record) {
        if matches!(self.state, State::GivenUp) {
            return;
        }
        if let Err(error) = self.try_write(record) {
            let dir = self.run_dir.join(DIR);
            say(&format!("warning: cannot write {}: {error}; training goes on without TensorBoard", dir.display()));
            self.state = State::GivenUp;
        }
    }

    fn try_write(&mut self, record: &Record) -> io::Result<()> {
        if matches!(self.state, State::Waiting) {
            self.state = State::Open(create(&self.run_dir.join(DIR), self.step)?);
        }
        let State::Open(file) = &mut self.state else { return Ok(()) };
        let record = match record {
            Record::Step(step) => Event::Scalars(&scalars(step)).record(now(), step.step),
            Record::Validation(validation) => {
                let mut scalars = vec![("loss/validation", validation.val_loss as f32)];
                scalars.extend(validation.pass_at_1.map(|share| ("humaneval/pass_at_1", share as f32)));
                Event::Scalars(&scalars).record(now(), validation.step)
            }
        };
        // In one go: a reader of a running run sees whole records but for the last.
        file.write_all(&record)
    }
}

fn scalars(record: &StepRecord) -> Vec<(&'static str, f32)> {
    let mut scalars = vec![
        ("loss/train", record.loss as f32),
        ("optimizer/lr", record.lr as f32),
        ("optimizer/grad_norm", record.grad_norm as f32),
        ("optimizer/loss_scale", record.loss_scale as f32),
        ("optimizer/skipped", f32::from(u8::from(record.skipped))),
        ("speed/tokens_per_s", record.tokens_per_s as f32),
    ];
    scalars.extend(record.mfu.map(|mfu| ("speed/mfu", mfu as f32)));
    scalars.extend(record.memory.map(|bytes| ("memory/gib", bytes as f32 / (1u64 << 30) as f32)));
    scalars.extend(record.communication.map(|share| ("speed/communication", share as f32)));
    scalars.extend(record.exposed.map(|share| ("speed/exposed_communication", share as f32)));
    scalars
}

/// A new file whose name sorts behind those of earlier processes: TensorBoard reads them in that order.
fn create(dir: &Path, step: u64) -> io::Result<File> {
    fs::create_dir_all(dir)?;
    let earlier = fs::read_dir(dir)?.flatten().filter_map(|entry| seconds(entry.file_name().to_str()?)).max();
    let seconds = (now() as u64).max(earlier.map_or(0, |seconds| seconds + 1));
    let host = sysinfo::System::host_name().unwrap_or_default();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).collect();
    let name = format!("{PREFIX}{seconds:010}.{host}.{}.0", std::process::id());
    let mut file = File::create_new(dir.join(name))?;
    let mut start = Event::FileVersion.record(now(), 0);
    // The first step that this process makes is step + 1: of that and later ones only this file counts.
    start.extend(Event::SessionStart.record(now(), step + 1));
    file.write_all(&start)?;
    Ok(file)
}

const PREFIX: &str = "events.out.tfevents.";

fn seconds(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::metrics::ValidationRecord;

    fn files(run: &Path) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(run.join(DIR)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    fn validation(step: u64) -> Record {
        Record::Validation(ValidationRecord { step, val_loss: 2.0, pass_at_1: None })
    }

    #[test]
    fn each_process_has_a_file_and_they_sort_by_time() {
        let run = tempfile::tempdir().unwrap();
        for process in 0..3 {
            let mut writer = EventWriter::new(run.path(), process);
            assert!(process > 0 || !run.path().join(DIR).exists());
            writer.write(&validation(process + 1));
            let newest = files(run.path()).pop().unwrap();
            writer.write(&validation(process + 2));
            assert_eq!(files(run.path()).len() as u64, process + 1);
            let bytes = fs::read(newest).unwrap();
            let scalar = Event::Scalars(&[("loss/validation", 2.0)]).record(0.0, 1).len();
            let start = Event::FileVersion.record(0.0, 0).len() + Event::SessionStart.record(0.0, 1).len();
            assert_eq!(bytes.len(), start + 2 * scalar);
        }
    }

    #[test]
    fn what_cannot_be_written_is_left_out() {
        let run = tempfile::tempdir().unwrap();
        fs::write(run.path().join(DIR), "in the way").unwrap();
        let mut writer = EventWriter::new(run.path(), 0);
        writer.write(&validation(1));
        assert!(matches!(writer.state, State::GivenUp));
        writer.write(&validation(2));
    }
}
