//! What `prepare` says at the end.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};

use crate::data::manifest::{Manifest, Part};
use crate::error::OneLine;

/// A split below this many tokens is not even one sequence of phi-1's length.
const ONE_SEQUENCE: u64 = 2048 + 1;
/// A share of the documents that makes a validation part of some sequences out of little text.
const ENOUGH: f64 = 0.05;
/// A validation part above this share of the tokens that is also this many times what was asked for is a surprise.
const LARGE: f64 = 0.1;
const TIMES: f64 = 5.0;
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
    let (asked, all) = (manifest.options.val_fraction, manifest.train.tokens + manifest.val.tokens);
    let share = manifest.val.tokens as f64 / all.max(1) as f64;
    if asked > 0.0 && share > LARGE && share > TIMES * asked {
        warnings.push(format!(
            "the validation part has {:.0}% of the tokens, where --val-fraction asked for {}%: documents are held out \
             whole, and these are few or of very different sizes",
            share * 100.0,
            (asked * 1e8).round() / 1e6
        ));
    }
    let more = match manifest.options.val_fraction < ENOUGH {
        true => format!("--val-fraction {ENOUGH} keeps more"),
        false => "a larger --val-fraction or more text gives it more".to_string(),
    };
    let (train, val) = (("train", "use more text"), ("validate", more.as_str()));
    for (name, part, (verb, advice)) in [("training", &manifest.train, train), ("validation", &manifest.val, val)] {
        if part.documents > 0 && part.tokens < ONE_SEQUENCE {
            warnings.push(format!(
                "the {name} part has only {}: a model with seq_len above {} cannot {verb} on it; {advice}",
                counted(part.tokens, "token"),
                part.tokens.saturating_sub(1)
            ));
        }
    }
    warnings
}

/// "1 shard", "2 shards".
fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", HumanCount(number), if number == 1 { "" } else { "s" })
}

impl fmt::Display for PrepareSummary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let line = |f: &mut fmt::Formatter, name: &str, part: &Part| {
            writeln!(
                f,
                "  {name:<10} {}, {}, {} of text, {}",
                counted(part.tokens, "token"),
                counted(part.documents, "document"),
                HumanBytes(part.bytes),
                counted(part.shards.len() as u64, "shard")
            )
        };
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        let (out, tokenizer) = (OneLine(self.out.display()), OneLine(&self.manifest.tokenizer.name));
        writeln!(f, "{out}: prepared with tokenizer {tokenizer}")?;
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
            writeln!(f, "  {} left out", counted(self.manifest.empty_documents, "empty document"))?;
        }
        if self.manifest.other_files > 0 {
            let verb = if self.manifest.other_files == 1 { "was" } else { "were" };
            writeln!(f, "  {} of other kinds {verb} left aside", counted(self.manifest.other_files, "file"))?;
        }
        let (files, records) = self.skipped();
        if files + records > 0 {
            writeln!(f, "  skipped {} and {}:", counted(files, "file"), counted(records, "record"))?;
            for skipped in self.manifest.skipped.iter().take(NAMED) {
                write!(f, "    {}: {}", OneLine(&skipped.path), OneLine(&skipped.reason))?;
                match (skipped.records, skipped.first) {
                    (Some(records), Some(first)) => {
                        writeln!(f, " ({}, the first is number {first})", counted(records, "record"))?;
                    }
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
