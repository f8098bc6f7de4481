//! `trainer train`

use std::collections::BTreeMap;

use trainer_backends::DecoderBackend;
use trainer_backends::discovery::Choice;

use super::args::{Global, TrainArgs};
use super::backend::{Task, facts, on_device, refuse_what_failed};
use super::ranks::{self, Joined};
use super::{choose_device, demo, print, print_json, resolve};
use crate::breakdown;
use crate::config::Config;
use crate::data::dataset::Dataset;
use crate::error::{Error, Result};
use crate::parallel::agreement::{Facts, agree};
use crate::report::voice::say;
use crate::train::device::DeviceFacts;
use crate::train::input::TrainingData;
use crate::train::run::{self, DryRun, Resume, RunRequest, RunSummary, goes_on, stored_config};

pub fn run(args: &TrainArgs, global: &Global) -> Result<u8> {
    if args.resume == Resume::Always && args.init_from.is_some() {
        return Err(Error::input(
            "--resume and --init-from cannot be used together: a run that goes on has its own weights; leave --resume out to \
             start from the model, or to go on with a run that did",
        ));
    }
    let group = match ranks::join(args, global)? {
        Joined::Rank(group) => group,
        Joined::Parent(code) => return Ok(code),
    };
    let set_up = set_up(args, global);
    // Ranks compare what they are about to do; an error of one of them is then everybody's.
    let (mine, ready) = match set_up {
        Ok(ready) => (facts_of(&ready, args), Ok(ready)),
        Err(error) => (Err(error), Err(())),
    };
    agree(&*group, mine)?;
    let Ok((config, data, choice)) = ready else {
        return Err(Error::failed("the ranks disagree on whether this rank has failed"));
    };
    let demo_seed = (config.data.path.as_os_str() == demo::DATA_PATH).then_some(config.data.seed);
    let (out, init_from) = (args.out.clone(), args.init_from.clone());
    let group = ranks::on_device(group, &choice, args)?;
    let (resume, max_hours, profile) = (args.resume, args.max_hours, args.profile);
    let overlap = !args.no_overlap;
    let request = RunRequest { config, out, init_from, resume, max_hours, profile, group: group.clone(), overlap };
    say(&format!("backend {}", choice.reason));
    if args.dry_run {
        if group.size() > 1 {
            return Err(Error::input("--dry-run tries one device: leave --devices, mpirun or srun out"));
        }
        let would = on_device(&choice, global, Try { request, data: &data })?;
        let shown = if args.json { print_json(&would) } else { print(&format!("{would}")) };
        return shown.map(|()| 0);
    }
    let summary = on_device(&choice, global, Train { request, data: &data })?;
    if args.json && group.rank() == 0 {
        print_json(&summary)?;
    }
    if let Some(seed) = demo_seed.filter(|_| summary.finished && group.size() == 1 && !args.json) {
        demo::end(&args.out, seed, &summary, &choice, global)?;
    }
    Ok(summary.stopped.map_or(0, |stop| stop.exit_code()))
}

/// Everything that can be wrong with the options, the data and the device.
fn set_up(args: &TrainArgs, global: &Global) -> Result<(Config, TrainingData, Choice)> {
    let config = configuration(args)?;
    // A demo that was stopped is resumed here.
    let data = if config.data.path.as_os_str() == demo::DATA_PATH {
        demo::training_data(config.data.seed, &args.out)?
    } else {
        TrainingData::open(&config.data.path, config.validation.every > 0)?
    };
    let choice = choose_device(&ranks::spread(global)?)?;
    refuse_what_failed(&choice)?;
    Ok((config, data, choice))
}

/// What must be the same on every rank.
fn facts_of((config, data, choice): &(Config, TrainingData, Choice), args: &TrainArgs) -> Result<Facts> {
    let mut facts = Facts::of(config)?;
    let fingerprint = |data: &Dataset| format!("{:016x}", data.fingerprint());
    facts.add("the training data's fingerprint", fingerprint(&data.train));
    facts.add("the validation data's fingerprint", data.val.as_deref().map_or("none".into(), fingerprint));
    facts.add("the backend", choice.backend);
    facts.add("--collectives", format!("{:?}", args.collectives));
    facts.add("--no-overlap", args.no_overlap);
    facts.add("--out", args.out.display());
    facts.add("--resume", format!("{:?}", args.resume));
    facts.add("--init-from", args.init_from.as_deref().map_or("none".into(), |path| path.display().to_string()));
    Ok(facts)
}

/// The options' configuration, or the run's own where it is resumed.
fn configuration(args: &TrainArgs) -> Result<Config> {
    let args = &with_shorthands(args)?;
    let named = args.config.preset.is_some() || args.config.config.is_some();
    let stored = args.out.join(run::CONFIG).is_file();
    let asked = || -> Result<Config> {
        let mut asked = resolve(&args.config)?;
        asked.data.path = args.data.clone().unwrap_or(asked.data.path);
        Ok(asked)
    };
    let mut config = match args.resume {
        Resume::Always if stored || !named => {
            let before = stored_config(&args.out, &[])?;
            let stored = stored_config(&args.out, &args.config.sets)?;
            if named {
                refuse_changes(&stored, &asked()?, "the run has another configuration than the options")?;
            }
            tell_changes(&before, &stored)?;
            stored
        }
        // Nobody has said that this is to be that run: then nothing of it may differ.
        Resume::Auto if stored && goes_on(&args.out, args.resume) => {
            let stored = stored_config(&args.out, &[])?;
            if named || !args.config.sets.is_empty() {
                let sets = stored_config(&args.out, &args.config.sets);
                let asked = if named { asked()? } else { sets? };
                let what = format!("{} already holds a run, with another configuration", args.out.display());
                refuse_changes(&stored, &asked, &what)?;
            }
            stored
        }
        _ => resolve(&args.config)?,
    };
    if let Some(data) = &args.data {
        config.data.path = data.clone();
    }
    Ok(config)
}

/// Options that are a `--set` in short.
fn with_shorthands(args: &TrainArgs) -> Result<TrainArgs> {
    let mut args = args.clone();
    let sets = &mut args.config.sets;
    sets.extend(args.zero.map(|stage| format!("train.zero={stage}")));
    sets.extend(args.select.map(|select| format!("validation.select={}", select.name())));
    if let Some(path) = &args.problems {
        let path = path.to_str().ok_or_else(|| Error::file(path, "this path is not UTF-8: choose another"))?;
        // Quoted: a path may look like a number.
        let value = serde_json::to_string(path).map_err(|error| Error::failed(format!("{path}: {error}")))?;
        sets.push(format!("validation.problems={value}"));
    }
    Ok(args)
}

/// A resumed run keeps its configuration: what differs is named.
fn refuse_changes(stored: &Config, asked: &Config, what: &str) -> Result<()> {
    let asked = Config { data: crate::config::Data { path: stored.data.path.clone(), ..asked.data }, ..asked.clone() };
    if *stored == asked {
        return Ok(());
    }
    let changes = changes(stored, &asked)?;
    let changes = changes.iter().map(|(key, [there, here])| format!("{key} = {there} there, {here} asked for"));
    let changes: Vec<String> = changes.collect();
    Err(Error::input(format!(
        "{what} ({}): go on with it by --resume alone, or with --set for what is to change; or choose another --out",
        changes.join("; ")
    )))
}

/// The keys, as `--set` names them, whose values differ, with both.
fn changes(stored: &Config, asked: &Config) -> Result<BTreeMap<String, [String; 2]>> {
    let mut values: BTreeMap<String, [String; 2]> = BTreeMap::new();
    for (side, config) in [stored, asked].into_iter().enumerate() {
        let toml: toml::Table = toml::from_str(&config.to_toml()?)
            .map_err(|error| Error::failed(format!("a configuration cannot be read back: {error}")))?;
        for (table, keys) in toml.iter().filter_map(|(table, keys)| Some((table, keys.as_table()?))) {
            for (key, value) in keys {
                let values = values.entry(format!("{table}.{key}")).or_insert_with(|| ["unset".into(), "unset".into()]);
                values[side] = value.to_string();
            }
        }
    }
    values.retain(|_, [there, here]| there != here);
    Ok(values)
}

/// Says with what a run goes on that it did not begin with.
fn tell_changes(stored: &Config, now: &Config) -> Result<()> {
    for (key, [before, now]) in changes(stored, now)? {
        let note = match key.as_str() {
            "train.batch" => "; step s reads the sequences from (s - 1) x batch on, so the place in the data moves",
            "data.seed" => "; the order of the sequences is another one",
            _ => "",
        };
        say(&format!("going on with {key} = {now} ({before} before){note}"));
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
        let (config, ranks) = (self.request.config.clone(), self.request.group.size());
        whole(&facts, &config, ranks, || run::run::<B>(self.request, self.data, device, &facts))
    }
}

/// Does `work`; a device that breaks down meanwhile is an error.
fn whole<T>(facts: &DeviceFacts, config: &Config, ranks: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    breakdown::caught(work).unwrap_or_else(|| {
        Err(match breakdown::out_of_memory() {
            true => facts.out_of_memory(config, ranks),
            false => breakdown::broken(),
        })
    })
}

struct Try<'a> {
    request: RunRequest,
    data: &'a TrainingData,
}

impl Task for Try<'_> {
    type Output = DryRun;

    fn run<B: DecoderBackend>(self, device: &B::Device, choice: &Choice) -> Result<DryRun> {
        let facts = facts(choice, self.request.config.train.precision);
        let (config, ranks) = (self.request.config.clone(), self.request.group.size());
        whole(&facts, &config, ranks, || run::dry_run::<B>(self.request, self.data, device, &facts))
    }
}
