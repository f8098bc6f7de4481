//! `trainer` without a command: trains a small model on exercises that the program writes itself, and lets it solve
//! some that it has not seen.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use trainer_backends::DecoderBackend;
use trainer_backends::discovery::Choice;

use super::args::{DemoArgs, Global};
use super::backend::{Task, facts, on_device, with_backend};
use super::model::HostModel;
use super::print;
use crate::checkpoint::storage::{self, write_error};
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
use crate::train::stop;

/// What a demo's configuration has in place of a path to data.
pub const DATA_PATH: &str = "built-in exercises";
/// Exercises that the model is trained on: more than one epoch of the preset reads.
const CORPUS: u64 = 75_000;
/// Held-out exercises that the trained model is given to solve.
const HELD_OUT: usize = 96;
/// Others that the validation loss is measured on.
const VALIDATION: usize = 1024;
/// Of which this many are shown.
const SHOWN: usize = 4;
/// Longest completion, in tokens.
const MAX_TOKENS: usize = 96;

pub fn run(args: &DemoArgs, global: &Global) -> Result<()> {
    let config = configuration(args)?;
    check_makes_way(&args.out)?;
    let held_out = exercises::held_out(config.data.seed, HELD_OUT);
    match with_backend(global, Demo { args, config, held_out: &held_out })? {
        Some((completions, summary)) => show(&args.out, &held_out, &completions, &summary),
        None => Ok(()),
    }
}

/// The end of a demo that was stopped and has gone on by `trainer train --resume`.
pub fn end(out: &Path, seed: u64, summary: &RunSummary, choice: &Choice, global: &Global) -> Result<()> {
    let held_out = exercises::held_out(seed, HELD_OUT);
    let completions = on_device(choice, global, Solve { out, held_out: &held_out })?;
    show(out, &held_out, &completions, summary)
}

fn configuration(args: &DemoArgs) -> Result<Config> {
    if args.sets.iter().any(|set| set.starts_with("data.path")) {
        return Err(Error::input(
            "the demo trains on its own exercises, not on data.path: use trainer train --data for others",
        ));
    }
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
    let encode = |documents: &mut dyn Iterator<Item = String>| -> Result<Vec<u16>> {
        let (mut tokens, mut ids) = (Vec::new(), Vec::new());
        for document in documents {
            ids.clear();
            tokenizer.encode_into(&document, &mut ids)?;
            ids.push(tokenizer.end_of_text());
            tokens.extend(ids.iter().map(|id| *id as u16));
        }
        Ok(tokens)
    };
    let train = encode(&mut exercises::corpus(seed, CORPUS))?;
    let held_out = exercises::held_out(seed, HELD_OUT + VALIDATION);
    let val = encode(&mut held_out.iter().skip(HELD_OUT).map(Exercise::document))?;
    let vocab = Some(tokenizer.vocab_size());
    Ok(TrainingData {
        train: Arc::new(Dataset::from_tokens(train, vocab)?),
        val: Some(Arc::new(Dataset::from_tokens(val, vocab)?)),
        tokenizer: Some(Arc::new(tokenizer)),
    })
}

/// The demo is to be run again and again, and an earlier one makes way; nothing else does.
///
/// # Errors
/// A folder that holds something else than a demo.
fn check_makes_way(out: &Path) -> Result<()> {
    let configuration = out.join(run::CONFIG);
    let of_a_demo = match fs::metadata(&configuration) {
        Ok(_) => run::stored_config(out, &[])?.data.path.as_os_str() == DATA_PATH,
        // What a demo writes before its configuration.
        Err(_) => storage::names(out)?.iter().all(|name| ["tokenizer.json", ".lock"].contains(&name.as_str())),
    };
    if of_a_demo {
        return Ok(());
    }
    Err(Error::file(out, "holds something else than a demo, which a demo does not replace: choose another --out"))
}

/// Trains, then lets the model solve the exercises; no completions where the training was stopped.
struct Demo<'a> {
    args: &'a DemoArgs,
    config: Config,
    held_out: &'a [Exercise],
}

impl Task for Demo<'_> {
    type Output = Option<(Vec<String>, RunSummary)>;

    fn run<B: DecoderBackend>(self, device: &B::Device, choice: &Choice) -> Result<Self::Output> {
        let Self { args, config, held_out } = self;
        fs::create_dir_all(&args.out).map_err(write_error("create", &args.out))?;
        let data = training_data(config.data.seed, &args.out)?;
        let facts = facts(choice, config.train.precision);
        let request = RunRequest {
            config,
            out: args.out.clone(),
            init_from: None,
            resume: Resume::Replace,
            max_hours: None,
            profile: None,
            group: Arc::new(Alone),
            overlap: false,
        };
        let summary = run::run::<B>(request, &data, device, &facts)?;
        if !summary.finished {
            return Ok(None);
        }
        Ok(Some((Solve { out: &args.out, held_out }.run::<B>(device, choice)?, summary)))
    }
}

/// Lets the trained model complete exercises; gives nothing where it was stopped.
struct Solve<'a> {
    out: &'a Path,
    held_out: &'a [Exercise],
}

impl Task for Solve<'_> {
    type Output = Vec<String>;

    fn run<B: DecoderBackend>(self, device: &B::Device, _: &Choice) -> Result<Vec<String>> {
        let Self { out, held_out } = self;
        let tokenizer = demo_tokenizer(out)?;
        eprintln!("completing {} exercises that it has not seen", held_out.len());
        let model = HostModel::load(out)?;
        let seq = model.arch.context;
        let (decoder, weights) = model.upload::<B>(device, seq)?;
        let prompts: Vec<Vec<u32>> =
            held_out.iter().map(|exercise| tokenizer.encode(&exercise.prompt)).collect::<Result<_>>()?;
        let generation = Generation {
            max_tokens: MAX_TOKENS,
            end_of_text: Some(tokenizer.end_of_text()),
            sampling: Sampling::GREEDY,
            streams: Vec::new(),
            batch: Generation::BATCH,
            cache: true,
        };
        // The run that came before listens for signals.
        let next = |_, _| if stop::is_asked() { Next::Stop } else { Next::Continue };
        let (completions, _) = complete(&decoder, &weights, &prompts, &generation, next)?;
        if stop::is_asked() {
            return Ok(Vec::new());
        }
        completions.iter().map(|completion| tokenizer.decode(&completion.tokens)).collect()
    }
}

fn show(out: &Path, held_out: &[Exercise], completions: &[String], summary: &RunSummary) -> Result<()> {
    if completions.is_empty() {
        return print(&format!(
            "stopped before the exercises were solved; the trained model is in {}\n",
            out.display()
        ));
    }
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
        out.display()
    ))
}
