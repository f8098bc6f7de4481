//! `trainer humaneval --model`

use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value, json};
use trainer_backends::DecoderBackend;
use trainer_backends::discovery::Choice;

use super::Progress;
use crate::cli::args::{Global, HumanevalArgs};
use crate::cli::backend::{Task, check_precision, with_backend};
use crate::cli::model::HostModel;
use crate::cli::{print, print_json};
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::eval::generate::{Generation, Pace, Sampling};
use crate::eval::humaneval::generate::texts;
use crate::eval::humaneval::problems::Problems;
use crate::eval::humaneval::sample::{Request, sample};
use crate::report::voice::say;
use crate::train::stop;

/// Samples that are written together, in times the batch: while some are long, others take the places of those that ended.
const BATCHES: usize = 4;

/// Writes the samples that `args.out` lacks.
pub fn run(args: &HumanevalArgs, path: &Path, global: &Global) -> Result<()> {
    let Some(out) = &args.out else {
        return Err(Error::input("--out FILE.jsonl is missing: the file for the samples"));
    };
    let problems = Problems::read(&args.problems)?;
    let mut model = HostModel::load(path)?;
    let tokenizer = model.tokenizer()?;
    stop::listen()?;
    let wanted = problems.all().len() * args.samples;
    let started = Instant::now();
    let task = Sample { args, model, tokenizer: &tokenizer, problems: &problems, out };
    let (there, tokens, pace) = with_backend(global, task)?;
    let finished = there >= wanted;
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        return print_json(&json!({
            "finished": finished, "samples": there, "problems": problems.all().len(), "tokens": tokens,
            "tokens_per_s": tokens as f64 / seconds, "out": out,
        }));
    }
    say(&format!("{tokens} tokens in {seconds:.0} s, {:.1} tokens/s once prompts were read", pace.tokens_per_s()));
    let (file, problems) = (out.display(), args.problems.display());
    print(&match finished {
        true => {
            format!("{file}: {there} samples; score them: trainer humaneval --problems {problems} --score {file}\n")
        }
        false => format!("stopped after {there} of {wanted} samples; run it again to go on\n"),
    })
}

struct Sample<'a> {
    args: &'a HumanevalArgs,
    model: HostModel,
    tokenizer: &'a Tokenizer,
    problems: &'a Problems,
    out: &'a Path,
}

impl Task for Sample<'_> {
    /// Samples in the file, tokens generated now, and their pace.
    type Output = (usize, usize, Pace);

    fn run<B: DecoderBackend>(self, device: &B::Device, _: &Choice) -> Result<Self::Output> {
        let Self { args, model, tokenizer, problems, out } = self;
        let dtype = check_precision::<B>(device, args.precision)?;
        let seq = model.arch.context;
        let (decoder, weights) = model.upload_as::<B>(device, seq, dtype)?;
        let request =
            Request { problems, samples: args.samples, batch: BATCHES * args.batch, out, settings: settings(args) };
        let sampling =
            Sampling { temperature: args.temperature, top_p: args.top_p, top_k: args.top_k, seed: args.seed };
        let (mut tokens, mut pace) = (0, Pace::default());
        let generate = |prompts: &[String], numbers: &[u64]| {
            let generation = Generation {
                max_tokens: args.max_tokens,
                end_of_text: Some(tokenizer.end_of_text()),
                sampling,
                streams: numbers.to_vec(),
                batch: args.batch,
                cache: true,
            };
            let written = texts(&decoder, &weights, tokenizer, prompts, &generation)?;
            tokens += written.tokens;
            pace.tokens += written.pace.tokens;
            pace.seconds += written.pace.seconds;
            Ok(written.texts)
        };
        let mut progress = Progress::new(problems.all().len() * args.samples);
        let there = sample(&request, generate, |done| {
            progress.show(done);
            !stop::requested()
        })?;
        progress.clear();
        Ok((there, tokens, pace))
    }
}

/// What decides a sample's text, kept in its line: a file of other settings is not gone on with.
fn settings(args: &HumanevalArgs) -> Map<String, Value> {
    let settings = json!({
        "temperature": args.temperature, "top_p": args.top_p, "top_k": args.top_k, "seed": args.seed,
        "max_tokens": args.max_tokens, "precision": args.precision,
    });
    settings.as_object().cloned().unwrap_or_default()
}
