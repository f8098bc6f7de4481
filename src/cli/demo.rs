//! `trainer` without a command: trains a small model on exercises that the program writes itself, and lets it solve
//! some that it has not seen.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use trainer_backends::DecoderBackend;
use trainer_backends::discovery::Choice;

use super::args::{DemoArgs, Global};
use super::backend::{Task, facts, with_backend};
use super::model::HostModel;
use super::print;
use crate::config::Config;
use crate::data::dataset::Dataset;
use crate::data::exercises::{self, Exercise, demo_tokenizer_json};
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::eval::execute::{Limits, Python, Verdict};
use crate::eval::exercises::{body, judge, pass_share};
use crate::eval::generate::{Generation, Next, Sampling, complete};
use crate::parallel::Alone;
use crate::report::progress::duration;
use crate::report::voice::say;
use crate::train::input::TrainingData;
use crate::train::run::{self, Resume, RunRequest, RunSummary};

/// What a demo's configuration has in place of a path to data.
pub const DATA_PATH: &str = "built-in exercises";
/// Exercises that the model is trained on: more than one epoch of the preset reads.
const CORPUS: u64 = 75_000;
/// Of the exercises, one in this many is for validation (by position: they are in random order).
const VAL_EVERY: u64 = 64;
/// Held-out exercises that the trained model is given.
const HELD_OUT: usize = 96;
/// Of which this many are shown.
const SHOWN: usize = 4;
/// Longest completion, in tokens.
const MAX_TOKENS: usize = 96;

pub fn run(args: &DemoArgs, global: &Global) -> Result<()> {
    let config = configuration(args)?;
    fs::create_dir_all(&args.out).map_err(Error::io("create", &args.out))?;
    let data = training_data(args.seed, &args.out)?;
    // The demo is to be run again and again: an earlier one makes way.
    remove_earlier(args)?;
    let request = RunRequest {
        config,
        out: args.out.clone(),
        init_from: None,
        resume: Resume::Never,
        max_hours: None,
        profile: None,
        group: Arc::new(Alone),
        overlap: false,
    };
    let summary = with_backend(global, Train { request, data: &data })?;
    if !summary.finished {
        return Ok(());
    }
    let tokenizer = data.tokenizer.as_ref();
    let tokenizer = tokenizer.ok_or_else(|| Error::failed("the demo's data has lost its tokenizer: run it again"))?;
    let held_out = exercises::held_out(args.seed, HELD_OUT);
    eprintln!("completing {HELD_OUT} exercises that it has not seen");
    let completions = with_backend(global, Solve { args, tokenizer, exercises: &held_out })?;
    show(args, &held_out, &completions, &summary)
}

fn configuration(args: &DemoArgs) -> Result<Config> {
    let mut sets = vec![format!("data.seed={}", args.seed), format!("train.seed={}", args.seed)];
    sets.extend(args.steps.map(|steps| format!("train.steps={steps}")));
    sets.extend(args.sets.iter().cloned());
    let mut config = Config::resolve(Some("demo"), None, &sets)?;
    config.data.path = DATA_PATH.into();
    Ok(config)
}

/// What the run in `out` trains on, and its tokenizer beside it.
pub fn training_data(seed: u64, out: &Path) -> Result<TrainingData> {
    let tokenizer = demo_tokenizer(out)?;
    say(&format!("writing {CORPUS} exercises: {} kinds of tasks, seed {seed}", exercises::families().len()));
    corpus(seed, tokenizer)
}

/// The embedded tokenizer, through the file that stays with the run.
fn demo_tokenizer(out: &Path) -> Result<Tokenizer> {
    let path = out.join("tokenizer.json");
    // Several ranks may resume a demo at the same time: none may find the file half written.
    if fs::read(&path).ok().as_deref() != Some(demo_tokenizer_json().as_bytes()) {
        fs::write(&path, demo_tokenizer_json()).map_err(Error::io("write", &path))?;
    }
    let name = path.to_str().ok_or_else(|| Error::file(&path, "this path is not UTF-8: choose another --out"))?;
    Tokenizer::load(name)
}

fn corpus(seed: u64, tokenizer: Tokenizer) -> Result<TrainingData> {
    let (mut train, mut val) = (Vec::new(), Vec::new());
    let end = tokenizer.end_of_text() as u16;
    let mut ids = Vec::new();
    for (i, document) in exercises::corpus(seed, CORPUS).enumerate() {
        ids.clear();
        tokenizer.encode_into(&document, &mut ids)?;
        let split = if (i as u64).is_multiple_of(VAL_EVERY) { &mut val } else { &mut train };
        split.extend(ids.iter().map(|id| *id as u16));
        split.push(end);
    }
    let vocab = Some(tokenizer.vocab_size());
    Ok(TrainingData {
        train: Arc::new(Dataset::from_tokens(train, vocab)?),
        val: Some(Arc::new(Dataset::from_tokens(val, vocab)?)),
        tokenizer: Some(Arc::new(tokenizer)),
    })
}

fn remove_earlier(args: &DemoArgs) -> Result<()> {
    let checkpoints = args.out.join("checkpoints");
    if checkpoints.exists() {
        eprintln!("replacing the earlier demo in {}", args.out.display());
        fs::remove_dir_all(&checkpoints).map_err(Error::io("remove", &checkpoints))?;
    }
    Ok(())
}

struct Train<'a> {
    request: RunRequest,
    data: &'a TrainingData,
}

impl Task for Train<'_> {
    type Output = RunSummary;

    fn run<B: DecoderBackend>(self, device: &B::Device, choice: &Choice) -> Result<RunSummary> {
        let facts = facts(choice, self.request.config.train.precision);
        run::run::<B>(self.request, self.data, device, &facts)
    }
}

struct Solve<'a> {
    args: &'a DemoArgs,
    tokenizer: &'a Tokenizer,
    exercises: &'a [Exercise],
}

impl Task for Solve<'_> {
    type Output = Vec<String>;

    fn run<B: DecoderBackend>(self, device: &B::Device, _: &Choice) -> Result<Vec<String>> {
        let model = HostModel::load(&self.args.out)?;
        let seq = model.arch.context;
        let (decoder, weights) = model.upload::<B>(device, seq)?;
        let prompts: Vec<Vec<u32>> =
            self.exercises.iter().map(|exercise| self.tokenizer.encode(&exercise.prompt)).collect::<Result<_>>()?;
        let generation = Generation {
            max_tokens: MAX_TOKENS,
            end_of_text: Some(self.tokenizer.end_of_text()),
            sampling: Sampling::GREEDY,
            streams: Vec::new(),
            batch: Generation::BATCH,
            cache: true,
        };
        let (completions, _) = complete(&decoder, &weights, &prompts, &generation, |_, _| Next::Continue)?;
        completions.iter().map(|completion| self.tokenizer.decode(&completion.tokens)).collect()
    }
}

fn show(args: &DemoArgs, held_out: &[Exercise], completions: &[String], summary: &RunSummary) -> Result<()> {
    let verdicts = match Python::find() {
        Some(python) => {
            let jobs = std::thread::available_parallelism().map_or(1, usize::from);
            Some(judge(&python, held_out, completions, &Limits::default(), jobs)?)
        }
        None => None,
    };
    for (i, (exercise, completion)) in held_out.iter().zip(completions).take(SHOWN).enumerate() {
        let verdict = match verdicts.as_ref().map(|verdicts| &verdicts[i]) {
            None => "not run".to_owned(),
            Some(Verdict::Passed) => "its assertions pass".to_owned(),
            Some(Verdict::Failed(why)) => format!("its assertions do not pass: {why}"),
            Some(Verdict::TimedOut) => "it does not end".to_owned(),
            Some(Verdict::TooMuchOutput) => "it prints without end".to_owned(),
        };
        print(&format!("\n{}{}# ({verdict})\n", exercise.prompt, body(completion)))?;
    }
    let share = match &verdicts {
        Some(verdicts) => {
            let passed = verdicts.iter().filter(|verdict| **verdict == Verdict::Passed).count();
            format!(
                "{passed} of {} unseen exercises solved ({:.0}%), judged by running their assertions",
                verdicts.len(),
                100.0 * pass_share(verdicts)
            )
        }
        None => "no Python was found, so the completions were not run".to_owned(),
    };
    let val_loss = summary.val_loss.map_or_else(String::new, |loss| format!(", validation loss {loss:.4}"));
    print(&format!(
        "\n{share}\ntrained {} steps in {}{val_loss}\ntry it: trainer generate --model {} --prompt 'def add(a, b):'\n",
        summary.step,
        duration(summary.seconds),
        args.out.display()
    ))
}
