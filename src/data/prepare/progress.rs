//! What `prepare` tells while it runs.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How far a run of `prepare` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes on disk, compressed where the files are.
    pub source_bytes: u64,
    pub source_bytes_total: u64,
    /// Bytes of text tokenised.
    pub text_bytes: u64,
    pub tokens: u64,
}

/// A progress bar on stderr, by bytes, with MB/s of text and tokens/s. Draws nothing where stderr is not a terminal.
/// Clones are the same bar.
#[derive(Clone)]
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
        let template = "prepare {wide_bar:.cyan/black} {bytes}/{total_bytes} · {msg} · {eta} left";
        // The template is a constant; were it wrong, indicatif's default would do.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// Shows `progress`; pass `|p| bar.show(p)` to `prepare::run`.
    pub fn show(&self, progress: Progress) {
        // A second way through the corpus is measured by itself.
        if progress.source_bytes < self.bar.position() {
            self.bar.reset();
        }
        let seconds = self.bar.elapsed().max(Duration::from_millis(1)).as_secs_f64();
        self.bar.set_length(progress.source_bytes_total);
        self.bar.set_position(progress.source_bytes);
        self.bar.set_message(format!(
            "{:.1} MB/s, {} tokens/s",
            progress.text_bytes as f64 / 1e6 / seconds,
            indicatif::HumanCount((progress.tokens as f64 / seconds) as u64)
        ));
    }

    /// Takes the bar off the screen.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}
