//! `trainer prepare`: a corpus in, token shards with a manifest out.

mod division;
mod pipeline;
mod progress;
mod shards;
mod skip_log;
mod staging;
mod summary;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use division::{Division, score};
use pipeline::{Context, Encoded};
pub use progress::{Bar, Progress};
use shards::SplitWriter;
use skip_log::SkipLog;
use staging::Staging;
pub use staging::abandon;
pub use summary::PrepareSummary;

use super::corpus::{self, TextField};
use super::dataset::Split;
use super::manifest::{Manifest, Options, Part, Skipped, TokenizerEntry};
use super::shard::{MAX_SHARD_TOKENS, ShardMeta, check_vocab_fits};
use super::tokenizer::{Tokenizer, fingerprint_hex};
use crate::error::{Error, Result};

/// What to prepare, and how.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// Folders and files.
    pub inputs: Vec<PathBuf>,
    /// The directory to make.
    pub out: PathBuf,
    /// `codegen`, `bytes`, a tokenizer.json or a folder that holds one.
    pub tokenizer: String,
    /// Share of the documents that are held out for validation, 0 <= f < 1.
    pub val_fraction: f64,
    /// Tokens a shard.
    pub shard_tokens: u64,
    /// Decides which documents are held out.
    pub seed: u64,
    /// The field or column of JSON lines and Parquet files; by default the first of `text`, `content` and `code`.
    pub text_field: Option<String>,
    /// Replace an earlier data set.
    pub force: bool,
    /// Threads to tokenise with; 0: all cores.
    pub threads: usize,
}

impl PrepareOptions {
    /// `inputs` into `out` with the defaults: codegen, 1% for validation, 100M tokens a shard.
    pub fn new(inputs: Vec<PathBuf>, out: PathBuf) -> Self {
        Self {
            inputs,
            out,
            tokenizer: "codegen".to_string(),
            val_fraction: 0.01,
            shard_tokens: 100_000_000,
            seed: 0,
            text_field: None,
            force: false,
            threads: 0,
        }
    }

    fn validate(&self) -> Result<()> {
        if self.inputs.is_empty() {
            return Err(Error::input("nothing to prepare: name at least one folder or file"));
        }
        if !(0.0..1.0).contains(&self.val_fraction) {
            return Err(Error::input(format!(
                "the validation fraction must be at least 0 and below 1, found {}: 0.01 holds out one document in a hundred",
                self.val_fraction
            )));
        }
        if !(1..=MAX_SHARD_TOKENS).contains(&self.shard_tokens) {
            return Err(Error::input(format!(
                "tokens a shard must be between 1 and {MAX_SHARD_TOKENS}, found {}",
                self.shard_tokens
            )));
        }
        Ok(())
    }
}

/// Tokenises a corpus into `options.out`: train-*.bin, val-*.bin, tokenizer.json and, last, manifest.json. The result is
/// the same for every number of threads. `progress` is called after each piece of work, from this thread.
///
/// # Errors
/// Inputs that do not exist or hold no text; a vocabulary above 65536 ids; an output directory that may not be replaced;
/// a full disk. Whatever happens, the output directory is either as it was before or whole.
pub fn run(options: &PrepareOptions, progress: impl FnMut(Progress)) -> Result<PrepareSummary> {
    prepare(options, progress).map_err(|error| match error {
        Error::Io { ref source, .. } if is_full(source.kind()) => Error::failed(format!(
            "cannot write {}: no space is left there ({source}); free some space or choose another --out",
            options.out.display()
        )),
        error => error,
    })
}

fn is_full(kind: ErrorKind) -> bool {
    // The last is a limit on the size of a process's files (`ulimit -f`).
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

fn prepare(options: &PrepareOptions, mut progress: impl FnMut(Progress)) -> Result<PrepareSummary> {
    let started = Instant::now();
    options.validate()?;
    let tokenizer = Tokenizer::load(&options.tokenizer)?;
    check_vocab_fits(tokenizer.vocab_size())?;
    let found = corpus::find(&options.inputs)?;
    let staging = Staging::begin(&options.out, options.force)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .thread_name(|i| format!("tokenise-{i}"))
        .build()
        .map_err(|error| Error::failed(format!("cannot start the tokenising threads: {error}")))?;
    let field = TextField::new(options.text_field.as_deref());
    let context = Arc::new(Context { tokenizer, field, sources: found.sources });

    let mut division = Division::Fraction { fraction: options.val_fraction, seed: options.seed };
    let mut pass = tokenise(options, &context, &pool, division, staging.dir(), &mut progress)?;
    if let Some(repaired) = division.repaired(pass.train.documents, pass.val.documents, pass.smallest.number) {
        if found.piped {
            return Err(Error::input(
                "the text has too few documents to choose a validation part while it is read, and a pipe cannot be read \
                 twice: write it to a file first, or take --val-fraction 0",
            ));
        }
        // Few documents, which may be large all the same: the whole corpus is tokenised again.
        division = repaired;
        remove_shards(staging.dir(), &pass)?;
        pass = tokenise(options, &context, &pool, division, staging.dir(), &mut progress)?;
    }
    found.skipped.into_iter().for_each(|skip| pass.skipped.add(skip));
    let skipped = std::mem::take(&mut pass.skipped).into_entries();
    if pass.train.documents == 0 {
        return Err(nothing_to_train_on(options, &skipped, context.sources.len(), found.other_files));
    }

    let tokenizer = &context.tokenizer;
    tokenizer.save(staging.dir())?;
    let (format, version) = Manifest::mark();
    let manifest = Manifest {
        format,
        version,
        trainer: env!("CARGO_PKG_VERSION").to_string(),
        tokenizer: TokenizerEntry {
            name: tokenizer.name().to_string(),
            fingerprint: fingerprint_hex(tokenizer.fingerprint()),
            vocab_size: tokenizer.vocab_size(),
            end_of_text: tokenizer.end_of_text(),
        },
        train: pass.train,
        val: pass.val,
        empty_documents: pass.empty_documents,
        other_files: found.other_files,
        skipped,
        options: Options {
            inputs: options.inputs.iter().map(|path| path.display().to_string()).collect(),
            val_fraction: options.val_fraction,
            shard_tokens: options.shard_tokens,
            seed: options.seed,
            text_field: options.text_field.clone(),
        },
    };
    manifest.write(staging.dir())?;
    staging.commit(options.force)?;
    Ok(PrepareSummary::new(options.out.clone(), manifest, started.elapsed()))
}

/// One way through the corpus.
struct Pass {
    train: Part,
    val: Part,
    skipped: SkipLog,
    empty_documents: u64,
    smallest: Smallest,
}

/// The shortest document; of several, that of the lowest score.
struct Smallest {
    bytes: u64,
    score: f64,
    number: u64,
}

fn tokenise(
    options: &PrepareOptions,
    context: &Arc<Context>,
    pool: &rayon::ThreadPool,
    division: Division,
    dir: &Path,
    progress: &mut impl FnMut(Progress),
) -> Result<Pass> {
    let meta = ShardMeta {
        vocab_size: context.tokenizer.vocab_size() as u32,
        tokenizer: context.tokenizer.fingerprint(),
        end_of_text: context.tokenizer.end_of_text(),
    };
    let writer = |split| SplitWriter::new(dir, split, meta, options.shard_tokens);
    let (mut train, mut val) = (writer(Split::Train), writer(Split::Val));
    let mut pass = Pass {
        train: Part::default(),
        val: Part::default(),
        skipped: SkipLog::default(),
        empty_documents: 0,
        smallest: Smallest { bytes: u64::MAX, score: f64::INFINITY, number: 0 },
    };
    let source_bytes_total = context.sources.iter().map(|source| source.bytes).sum();
    let mut shown = Progress { source_bytes_total, ..Progress::default() };
    let (mut document, mut document_bytes) = (0u64, 0u64);
    pipeline::run(context, pool, |encoded| {
        let Encoded { tokens, pieces, skipped, empty_documents, source_bytes } = encoded;
        for piece in pieces {
            document_bytes += piece.bytes;
            let whole = Smallest { bytes: document_bytes, score: score(piece.hash, options.seed), number: document };
            if piece.last && (whole.bytes, whole.score) < (pass.smallest.bytes, pass.smallest.score) {
                pass.smallest = whole;
            }
            let split = if division.holds_out(document, piece.hash) { &mut val } else { &mut train };
            split.push(&tokens[piece.start..piece.end], piece.bytes, piece.last)?;
            if piece.last {
                (document, document_bytes) = (document + 1, 0);
            }
            shown.text_bytes += piece.bytes;
        }
        pass.skipped.merge(skipped);
        pass.empty_documents += empty_documents;
        shown.source_bytes += source_bytes;
        shown.tokens += tokens.len() as u64;
        progress(shown);
        Ok(())
    })?;
    (pass.train, pass.val) = (train.finish()?, val.finish()?);
    Ok(pass)
}

fn remove_shards(dir: &Path, pass: &Pass) -> Result<()> {
    for entry in pass.train.shards.iter().chain(&pass.val.shards) {
        let path = dir.join(&entry.file);
        std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

fn nothing_to_train_on(options: &PrepareOptions, skipped: &[Skipped], files: usize, other_files: u64) -> Error {
    let inputs: Vec<String> = options.inputs.iter().map(|input| input.display().to_string()).collect();
    let mut message = format!("no text found in {}: ", inputs.join(", "));
    match files {
        0 => {
            message += &format!(
                "expected .py, .txt, .md, .jsonl(.gz, .zst) or .parquet files, found {other_files} files of other kinds \
                 (name a file itself to read it whatever its kind)"
            );
        }
        _ => message += &format!("expected at least one document with text, found none in {files} files"),
    }
    for skip in skipped.iter().take(3) {
        message += &format!("; {}: {}", skip.path, skip.reason);
    }
    if skipped.len() > 3 {
        message += &format!("; and {} more that could not be read", skipped.len() - 3);
    }
    Error::input(message)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
