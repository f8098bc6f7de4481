//! `trainer train`

use trainer_backends::DecoderBackend;
use trainer_backends::discovery::Choice;

use super::args::{Global, TrainArgs};
use super::backend::{Task, facts, with_backend};
use super::{demo, print_json, resolve};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::train::input::TrainingData;
use crate::train::run::{self, RunRequest, RunSummary, stored_config};

pub fn run(args: &TrainArgs, global: &Global) -> Result<()> {
    let config = configuration(args)?;
    // A demo that was stopped is resumed here.
    let data = if config.data.path.as_os_str() == demo::DATA_PATH {
        demo::training_data(config.data.seed, &args.out)?
    } else {
        TrainingData::open(&config.data.path, config.validation.every > 0)?
    };
    let request = RunRequest { config, out: args.out.clone(), init_from: args.init_from.clone(), resume: args.resume };
    let summary = with_backend(global, Train { request, data: &data })?;
    if args.json { print_json(&summary) } else { Ok(()) }
}

/// The options' configuration, or the run's own where it is resumed.
fn configuration(args: &TrainArgs) -> Result<Config> {
    let named = args.config.preset.is_some() || args.config.config.is_some();
    let stored = args.out.join(run::CONFIG).is_file();
    let mut config = if args.resume && (stored || !named) {
        let stored = stored_config(&args.out, &args.config.sets)?;
        if named {
            let mut asked = resolve(&args.config)?;
            asked.data.path = args.data.clone().unwrap_or(asked.data.path);
            refuse_changes(&stored, &asked)?;
        }
        stored
    } else {
        resolve(&args.config)?
    };
    if let Some(data) = &args.data {
        config.data.path = data.clone();
    }
    Ok(config)
}

/// A resumed run keeps its configuration: what differs is named.
fn refuse_changes(stored: &Config, asked: &Config) -> Result<()> {
    let asked = Config { data: crate::config::Data { path: stored.data.path.clone(), ..asked.data }, ..asked.clone() };
    if *stored == asked {
        return Ok(());
    }
    let (stored, asked) = (stored.to_toml()?, asked.to_toml()?);
    let mut table = "";
    let mut changes = Vec::new();
    for (stored, asked) in stored.lines().zip(asked.lines()) {
        if let Some(name) = stored.strip_prefix('[') {
            table = name.trim_end_matches(']');
        } else if stored != asked {
            changes.push(format!("{table}.{stored} there, {asked} asked for"));
        }
    }
    Err(Error::input(format!(
        "the run has another configuration than the options ({}): resume it with --resume alone, or with --set for what \
         is to change",
        changes.join("; ")
    )))
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
