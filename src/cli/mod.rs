//! The command line: one file a command.

pub mod args;
mod backend;
mod bench;
mod completions;
mod demo;
mod devices;
mod estimate;
mod evaluate;
mod exercises;
mod export;
mod generate;
mod humaneval;
mod logits;
mod model;
mod prepare;
mod ranks;
mod report;
mod runs;
mod selftest;
mod sweep;
mod train;
mod trial;
mod verify;

use std::io::{self, Write};

use clap::Parser;
use serde::Serialize;
use trainer_backends::discovery::{Choice, choose};

use crate::breakdown;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::parallel::{launch, session};
use args::{Cli, Command, ConfigArgs, Global};

/// Parses the command line, runs one command and returns the process's exit code: 0 done, 1 failed, 2 wrong usage or input.
pub fn run() -> u8 {
    quiet_graphics_drivers();
    refuse_long_files_quietly();
    let Cli { global, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        // Of several ranks one explains.
        Err(_) if launch::detect().is_ok_and(|launch| launch.is_some_and(|launch| launch.rank > 0)) => {
            return 2;
        }
        Err(error) => error.exit(),
    };
    let command = command.unwrap_or_else(|| Command::Demo(Default::default()));
    // burn and its drivers panic where a device fails (out of memory, lost); that is a failed run, not a wrong usage.
    let done = breakdown::caught(|| dispatch(command, &global)).unwrap_or_else(|| Err(breakdown::broken()));
    match done {
        Ok(code) => code,
        Err(error) => session::fail(&error),
    }
}

fn dispatch(command: Command, global: &Global) -> Result<u8> {
    if global.devices.is_some_and(|devices| devices > 1) && !matches!(command, Command::Train(_) | Command::Estimate(_))
    {
        return Err(Error::input("--devices is for train and estimate: this command runs on one device, leave it out"));
    }
    match command {
        Command::Train(args) => return train::run(&args, global),
        Command::Demo(args) => demo::run(&args, global),
        Command::Prepare(args) => prepare::run(&args, global),
        Command::Evaluate(args) => evaluate::run(&args, global),
        Command::Logits(args) => logits::run(&args, global),
        Command::Generate(args) => generate::run(&args, global),
        Command::Exercises(args) => exercises::run(&args),
        Command::Humaneval(args) => humaneval::run(&args, global),
        Command::Export(args) => export::run(&args, global),
        Command::Estimate(args) => estimate::run(&args, global),
        Command::Devices(args) => devices::run(&args, global),
        Command::Report(args) => report::run(&args, global),
        Command::Runs(args) => runs::run(&args, global),
        Command::Verify(args) => verify::run(&args, global),
        Command::Bench(args) => bench::run(&args, global),
        Command::Sweep(args) => sweep::run(&args, global),
        Command::Selftest(args) => selftest::run(&args, global),
        Command::Trial(args) => trial::run(&args, global),
        Command::Completions(args) => completions::completions(&args, global),
        Command::Man(args) => completions::man(&args, global),
    }?;
    Ok(0)
}

/// The device that `--backend` and `--device` name.
///
/// # Errors
/// `Error::Input` where it is not there: what is missing and how to get it, or which devices there are.
pub fn choose_device(global: &Global) -> Result<Choice> {
    choose(global.backend.into(), global.device).map_err(|error| Error::input(error.to_string()))
}

/// The configuration that the options name.
pub(crate) fn resolve(args: &ConfigArgs) -> Result<Config> {
    Config::resolve(args.preset.as_deref(), args.config.as_deref(), &args.sets)
}

/// Writes to standard output. A reader that has gone away (`trainer devices | head -1`) is no failure.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("write", "standard output")(error)),
        _ => Ok(()),
    }
}

/// Writes one JSON object and a line end to standard output.
pub(crate) fn print_json(object: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(object).map_err(|error| Error::failed(format!("JSON: {error}")))?;
    print(&format!("{text}\n"))
}

/// Mesa's device-selection layer looks for a Wayland display whenever Vulkan is loaded, and where there is none writes
/// "error: XDG_RUNTIME_DIR is invalid" to stderr. It has nothing to select on such a machine unless it is told.
fn quiet_graphics_drivers() {
    let unset = |name| std::env::var_os(name).is_none();
    if cfg!(target_os = "linux") && ["XDG_RUNTIME_DIR", "DISPLAY", "MESA_VK_DEVICE_SELECT"].into_iter().all(unset) {
        // SAFETY: called first in the process, before any other thread could read the environment.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

/// Beyond a limit on the size of files (`ulimit -f`) a write is to fail, which has a sentence, and not to end the process.
fn refuse_long_files_quietly() {
    #[cfg(unix)]
    {
        use nix::sys::signal::{SigHandler, Signal, signal};
        // SAFETY: no handler is installed. Where this fails, such a write ends the process as it does everywhere.
        let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
    }
}
