//! `trainer humaneval`: samples of a model, or their score.

mod sample;
mod score;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::args::{Global, HumanevalArgs};
use crate::error::{Error, Result};
use crate::report::voice::say;

/// Without a terminal, a line at most this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

pub fn run(args: &HumanevalArgs, global: &Global) -> Result<()> {
    match (&args.model, &args.score) {
        (Some(model), None) => sample::run(args, model, global),
        (None, Some(samples)) => score::run(args, samples),
        _ => Err(Error::input("give --model MODEL to sample, or --score FILE to score samples")),
    }
}

/// A bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    all: usize,
    last_line: Instant,
}

impl Progress {
    fn new(all: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(all as u64);
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len} samples, {per_sec}, eta {eta}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, all, last_line: Instant::now() }
    }

    fn show(&mut self, done: usize) {
        match &self.bar {
            // What an earlier run did says nothing about this one's speed.
            Some(bar) if bar.position() == 0 => {
                bar.set_position(done as u64);
                bar.reset_eta();
            }
            Some(bar) => bar.set_position(done as u64),
            None if self.last_line.elapsed() >= LINE_EVERY => {
                say(&format!("{done}/{} samples", self.all));
                self.last_line = Instant::now();
            }
            None => {}
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
