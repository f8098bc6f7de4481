//! `trainer evaluate`

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use trainer_backends::DecoderBackend;
use trainer_backends::discovery::Choice;

use super::args::{EvaluateArgs, Global};
use super::backend::{Task, with_backend};
use super::model::HostModel;
use super::{print, print_json};
use crate::data::dataset::Dataset;
use crate::data::manifest::MANIFEST;
use crate::data::shard;
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::eval::loss::{Loss, mean_loss};
use crate::eval::text::{TokenisedText, decoded_bytes};
use crate::eval::windows::Windows;
use crate::report::voice::say;

pub fn run(args: &EvaluateArgs, global: &Global) -> Result<()> {
    let mut model = HostModel::load(&args.model)?;
    let given = match (&args.text, &args.data) {
        (Some(text), _) => Given::text(text, &mut model)?,
        (None, Some(data)) if is_tokens(data)? => Given::tokens(data, args, &mut model)?,
        (None, Some(data)) => Given::files(data, &mut model)?,
        (None, None) => return Err(Error::input("nothing to evaluate on: give --data or --text")),
    };
    given.check_vocab(args, model.arch.vocab)?;
    let tokens = given.dataset.tokens();
    let tail = given.text_bytes.is_some() || args.stride.is_some();
    // Where only whole windows count, the default shortens itself for data that is shorter than the context.
    let whole = if tail { u64::MAX } else { tokens.saturating_sub(1).max(1) };
    let seq = args.seq_len.unwrap_or(whole.min(model.arch.context as u64) as usize);
    let windows = Windows::new(tokens, seq, args.stride.unwrap_or(seq), tail)?;
    let Loss { nats, tokens } = with_backend(global, Evaluate { args, model, dataset: &given.dataset, windows, seq })?;
    if !nats.is_finite() {
        let what = "its loss is not a finite number: look for damaged or diverged weights with `trainer verify`";
        return Err(Error::failed(format!("{}: {what}", args.model.display())));
    }
    let bytes = given.bytes(tokens)?;
    let bits_per_byte = bytes.filter(|bytes| *bytes > 0).map(|bytes| nats * tokens as f64 / 2f64.ln() / bytes as f64);
    let perplexity = nats.exp();
    if args.json {
        return print_json(&json!({
            "loss": nats, "perplexity": perplexity, "bits_per_byte": bits_per_byte, "tokens": tokens, "bytes": bytes,
            "seq_len": seq, "stride": args.stride.unwrap_or(seq),
        }));
    }
    let bits = bits_per_byte.map_or_else(String::new, |bits| format!(", {bits:.4} bits per byte"));
    let text = bytes.map_or_else(String::new, |bytes| format!(" ({bytes} bytes)"));
    print(&format!("loss {nats:.4} nats per token, perplexity {perplexity:.3}{bits}, over {tokens} tokens{text}\n"))
}

/// What to evaluate on.
struct Given {
    dataset: Dataset,
    /// The tokenizer that made the tokens, if it is known.
    tokenizer: Option<Tokenizer>,
    /// Bytes of the whole text, where it was given as text.
    text_bytes: Option<u64>,
}

impl Given {
    fn tokens(path: &Path, args: &EvaluateArgs, model: &mut HostModel) -> Result<Self> {
        let dataset = Dataset::open(path, args.split.into())?;
        dataset.verify()?;
        let tokenizer = model.tokenizer.take();
        let same = |tokenizer: &Tokenizer| dataset.tokenizer_fingerprint().is_none_or(|f| f == tokenizer.fingerprint());
        if tokenizer.as_ref().is_some_and(|tokenizer| !same(tokenizer)) {
            say(&format!(
                "{} was prepared with another tokenizer than the model's: its ids mean something else to the model",
                path.display()
            ));
        }
        Ok(Self { tokenizer: tokenizer.filter(same), dataset, text_bytes: None })
    }

    /// A file of text, or standard input where the path is `-`.
    fn text(path: &Path, model: &mut HostModel) -> Result<Self> {
        let (mut bytes, name) = (Vec::new(), if path == "-" { Path::new("standard input") } else { path });
        match path == "-" {
            true => std::io::stdin().lock().read_to_end(&mut bytes).map(|_| ()),
            false => fs::read(path).map(|read| bytes = read),
        }
        .map_err(Error::input_file("read", name))?;
        let text = String::from_utf8(bytes).map_err(|_| Error::file(name, "is not UTF-8: expected text"))?;
        if text.is_empty() {
            return Err(Error::file(name, "is empty: expected text"));
        }
        let tokenizer = model.tokenizer()?;
        let tokenised = TokenisedText::of(&text, &tokenizer)?;
        Self::tokenised(tokenised, tokenizer)
    }

    /// Files and folders as `trainer prepare` reads them.
    fn files(path: &Path, model: &mut HostModel) -> Result<Self> {
        let tokenizer = model.tokenizer()?;
        let tokenised = TokenisedText::of_files(&[path.to_path_buf()], &tokenizer)?;
        for skip in tokenised.skipped.iter().take(3) {
            say(&format!("skipped {}: {}", skip.path.display(), skip.reason));
        }
        if tokenised.skipped.len() > 3 {
            say(&format!("and {} more that could not be read", tokenised.skipped.len() - 3));
        }
        Self::tokenised(tokenised, tokenizer)
    }

    fn tokenised(text: TokenisedText, tokenizer: Tokenizer) -> Result<Self> {
        let dataset = Dataset::from_tokens(text.tokens, None)?;
        Ok(Self { dataset, tokenizer: Some(tokenizer), text_bytes: Some(text.bytes) })
    }

    fn check_vocab(&self, args: &EvaluateArgs, vocab: usize) -> Result<()> {
        if self.text_bytes.is_none() {
            return self.dataset.check_vocab_of_trained(vocab);
        }
        match usize::from(self.dataset.highest_id()) {
            highest if highest >= vocab => Err(Error::file(
                &args.model,
                format!(
                    "its tokenizer makes the id {highest} of this text, but its vocabulary has only {vocab} ids: put \
                     the tokenizer.json there that it was trained with"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Bytes of text that tokens 1 to `scored` stand for, if that is known.
    fn bytes(&self, scored: u64) -> Result<Option<u64>> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(None) };
        match self.text_bytes {
            Some(bytes) if scored + 1 == self.dataset.tokens() => {
                let mut first = [0];
                self.dataset.read(0, &mut first)?;
                let unscored = tokenizer.decode_bytes(&[u32::from(first[0])])?.len() as u64;
                Ok(Some(bytes.saturating_sub(unscored)))
            }
            _ => decoded_bytes(&self.dataset, tokenizer, scored).map(Some),
        }
    }
}

/// Whether a path holds tokens: a folder that `trainer prepare` wrote or of .bin shards, or one shard. Else it is text.
fn is_tokens(path: &Path) -> Result<bool> {
    let is_bin = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "bin");
    if path.is_dir() {
        let mut entries =
            fs::read_dir(path).map_err(Error::io("read", path))?.filter_map(|entry| Some(entry.ok()?.path()));
        return Ok(entries.any(|entry| entry.ends_with(MANIFEST) || is_bin(&entry)));
    }
    let mut start = [0; 4];
    let read = File::open(path).map_err(Error::input_file("open", path))?.read_exact(&mut start);
    Ok(is_bin(&path.to_path_buf()) || (read.is_ok() && shard::is_magic(start)))
}

struct Evaluate<'a> {
    args: &'a EvaluateArgs,
    model: HostModel,
    dataset: &'a Dataset,
    windows: Windows,
    seq: usize,
}

impl Task for Evaluate<'_> {
    type Output = Loss;

    fn run<B: DecoderBackend>(self, device: &B::Device, _: &Choice) -> Result<Loss> {
        let Self { args, model, dataset, windows, seq } = self;
        let (decoder, weights) = model.upload::<B>(device, seq)?;
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} sequences, eta {eta}") {
            bar.set_style(style);
        }
        let batches = args.max_batches.unwrap_or(0);
        let loss = mean_loss(&decoder, &weights, dataset, windows, args.batch, batches, |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        })?;
        bar.finish_and_clear();
        Ok(loss)
    }
}
