//! What `prepare` says at the end.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};

use crate::data::manifest::{Manifest, Part};

/// A split below this many tokens is not even one sequence of phi-1's length.
const ONE_SEQUENCE: u64 = 2048 + 1;
/// Skipped files that are named on the screen; the manifest names all.
const NAMED: usize = 20;

/// The outcome of a run. Its `Display` is the report for the user.
#[derive(Clone, Debug)]
pub struct PrepareSummary {
    pub out: PathBuf,
    pub manifest: Manifest,
    /// What the user should know about the result; a sentence each.
    pub warnings: Vec<String>,
    pub elapsed: Duration,
}

impl PrepareSummary {
    pub(super) fn new(out: PathBuf, manifest: Manifest, elapsed: Duration) -> Self {
        let warnings = warnings(&manifest);
        Self { out, manifest, warnings, elapsed }
    }

    /// Bytes of text of both splits.
    pub fn text_bytes(&self) -> u64 {
        self.manifest.train.bytes + self.manifest.val.bytes
    }

    /// Tokens of both splits.
    pub fn tokens(&self) -> u64 {
        self.manifest.train.tokens + self.manifest.val.tokens
    }

    /// Files that could not be read whole, and records that could not be read.
    pub fn skipped(&self) -> (u64, u64) {
        let files = self.manifest.skipped.iter().filter(|skipped| skipped.records.is_none()).count() as u64;
        (files, self.manifest.skipped.iter().filter_map(|skipped| skipped.records).sum())
    }
}

fn warnings(manifest: &Manifest) -> Vec<String> {
    let mut warnings = Vec::new();
    if manifest.val.documents == 0 && manifest.options.val_fraction > 0.0 {
        warnings.push(
            "there is only one document, and it is for training: without a second one there is no validation part"
                .into(),
        );
    }
    for (name, part) in [("training", &manifest.train), ("validation", &manifest.val)] {
        if part.documents > 0 && part.tokens < ONE_SEQUENCE {
            warnings.push(format!(
                "the {name} part has only {} tokens, less than one sequence of 2048 and its last target: use more text or a \
                 shorter model.seq_len",
                part.tokens
            ));
        }
    }
    warnings
}

impl fmt::Display for PrepareSummary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let line = |f: &mut fmt::Formatter, name: &str, part: &Part| {
            writeln!(
                f,
                "  {name:<10} {} tokens, {} documents, {} of text, {} shards",
                HumanCount(part.tokens),
                HumanCount(part.documents),
                HumanBytes(part.bytes),
                part.shards.len()
            )
        };
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        writeln!(f, "{}: prepared with tokenizer {}", self.out.display(), self.manifest.tokenizer.name)?;
        line(f, "train", &self.manifest.train)?;
        line(f, "validation", &self.manifest.val)?;
        writeln!(
            f,
            "  {:.1} s, {:.1} MB/s, {} tokens/s",
            seconds,
            self.text_bytes() as f64 / 1e6 / seconds,
            HumanCount((self.tokens() as f64 / seconds) as u64)
        )?;
        if self.manifest.empty_documents > 0 {
            writeln!(f, "  {} empty documents left out", HumanCount(self.manifest.empty_documents))?;
        }
        let (files, records) = self.skipped();
        if files + records > 0 {
            writeln!(f, "  skipped {} files and {} records:", HumanCount(files), HumanCount(records))?;
            for skipped in self.manifest.skipped.iter().take(NAMED) {
                write!(f, "    {}: {}", skipped.path, skipped.reason)?;
                match (skipped.records, skipped.first) {
                    (Some(records), Some(first)) => writeln!(f, " ({records} records, the first is number {first})")?,
                    _ => writeln!(f)?,
                }
            }
            if self.manifest.skipped.len() > NAMED {
                writeln!(f, "    and {} more, named in manifest.json", self.manifest.skipped.len() - NAMED)?;
            }
        }
        for warning in &self.warnings {
            writeln!(f, "  note: {warning}")?;
        }
        Ok(())
    }
}
