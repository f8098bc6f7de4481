//! What a user sees while a run trains: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::metrics::StepRecord;
use super::voice;

/// Without a terminal, a line is printed at most this often (and at the first and the last step).
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows steps as they are made, on stderr.
pub struct TrainProgress {
    steps: u64,
    /// The loss is scaled, and how much is shown.
    scaled: bool,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl TrainProgress {
    /// `done` of `steps` steps were made before. `scaled`: with a loss scale, which is shown.
    pub fn new(done: u64, steps: u64, scaled: bool) -> Self {
        let bar = (voice::is_aloud() && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(steps).with_position(done);
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg} eta {eta}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.reset_eta();
            bar
        });
        Self { steps, scaled, bar, last_line: None }
    }

    /// Shows a step.
    pub fn step(&mut self, record: &StepRecord) {
        let message = summary(record, self.scaled);
        let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) || record.step == self.steps;
        if due {
            let left = (self.steps - record.step) as f64 * record_step_seconds(record);
            let line = format!("step {}/{} {message} left {}", record.step, self.steps, duration(left));
            // Beside a bar the line is for the rank's log alone.
            if self.bar.is_some() {
                voice::log(&line)
            } else {
                voice::say(&line)
            }
            self.last_line = Some(Instant::now());
        }
        if let Some(bar) = &self.bar {
            bar.set_message(message);
            bar.set_position(record.step);
        }
    }

    /// Prints a line without disturbing the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => {
                bar.suspend(|| eprintln!("{line}"));
                voice::log(line);
            }
            None => voice::say(line),
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            // A run that was stopped has not made all its steps.
            bar.abandon();
        }
    }
}

fn record_step_seconds(record: &StepRecord) -> f64 {
    // Mean over the run so far: steadier than the last step alone.
    record.seconds / record.step as f64
}

fn summary(record: &StepRecord, scaled: bool) -> String {
    let mut text = format!(
        "loss {:.4} lr {:.2e} norm {:.3} {} tok/s",
        record.loss,
        record.lr,
        record.grad_norm,
        thousands(record.tokens_per_s)
    );
    if scaled {
        text.push_str(&format!(" scale {}", record.loss_scale));
    }
    if let Some(mfu) = record.mfu {
        text.push_str(&format!(" mfu {:.1}%", 100.0 * mfu));
    }
    if let Some(communication) = record.communication {
        text.push_str(&format!(" exchange {:.0}%", 100.0 * communication));
        if let Some(exposed) = record.exposed {
            text.push_str(&format!(" (waited {:.0}%)", 100.0 * communication * exposed));
        }
    }
    text
}

fn thousands(value: f64) -> String {
    if value >= 10_000.0 { format!("{:.1}k", value / 1000.0) } else { format!("{value:.0}") }
}

/// Hours, minutes and seconds.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!([0.4, 59.0, 61.0, 3_725.0].map(duration), ["0s", "59s", "1m01s", "1h02m"]);
    }
}
