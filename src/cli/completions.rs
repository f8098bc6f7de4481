//! `trainer completions` and `trainer man`: what the shell and man(1) are told, from the definitions in `args`.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};

use super::args::{Cli, CompletionsArgs, Global, ManArgs};
use super::print;
use crate::error::{Error, Result};

pub fn completions(args: &CompletionsArgs, _: &Global) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "trainer", &mut script);
    print(&String::from_utf8_lossy(&script))
}

pub fn man(args: &ManArgs, _: &Global) -> Result<()> {
    let mut command = Cli::command();
    command.build();
    match &args.out {
        None => print(&page(&command)?),
        Some(dir) => {
            fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
            write_pages(&command, dir)
        }
    }
}

/// One page a command, as `trainer-train.1`.
fn write_pages(command: &Command, dir: &Path) -> Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let path = dir.join(format!("{name}.1"));
    fs::write(&path, page(command)?).map_err(Error::io("write", &path))?;
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help");
    shown.into_iter().try_for_each(|command| write_pages(command, dir))
}

fn page(command: &Command) -> Result<String> {
    let mut page = Vec::new();
    let written = clap_mangen::Man::new(command.clone()).render(&mut page);
    written.map_err(|error| Error::failed(format!("the man page: {error}")))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
