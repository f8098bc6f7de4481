//! `trainer report`: curves of runs as one HTML file, as a live page, or the loss as a PNG.

use std::path::PathBuf;

use super::args::{Global, ReportArgs};
use super::print;
use crate::checkpoint::storage::replace_file;
use crate::error::{Error, Result};
use crate::report::history::{History, names};
use crate::report::live::LiveReport;
use crate::report::page::PageData;
use crate::report::plot::write_png;

/// The page's name in a run directory.
const FILE_NAME: &str = "report.html";

pub fn run(args: &ReportArgs, _: &Global) -> Result<()> {
    let runs = histories(&args.runs)?;
    if args.watch {
        return watch(args);
    }
    if let Some(png) = &args.png {
        write_png(png, &runs)?;
        return print(&format!("{}\n", png.display()));
    }
    let page = PageData::new(runs, None).to_html()?;
    let out = args.out.clone().unwrap_or_else(|| args.runs[0].join(FILE_NAME));
    if out.is_dir() {
        return Err(Error::file(&out, "is a directory: give --out the name of the HTML file to write"));
    }
    replace_file(&out, page.as_bytes())?;
    print(&format!("{}\n", out.display()))
}

/// Serves the page until the process is ended.
fn watch(args: &ReportArgs) -> Result<()> {
    let live = LiveReport::listen(args.runs.clone(), args.port)?;
    print(&format!("{}\n", live.url()))?;
    let runs = match args.runs.len() {
        1 => "one run".to_owned(),
        several => format!("{several} runs"),
    };
    eprintln!("the report of {runs}, for this machine alone; Ctrl-C ends it");
    live.serve();
    Ok(())
}

/// The runs under names that tell them apart.
fn histories(dirs: &[PathBuf]) -> Result<Vec<History>> {
    let runs = dirs.iter().map(|dir| History::read(dir)).collect::<Result<Vec<_>>>()?;
    Ok(runs.into_iter().zip(names(dirs)).map(|(run, name)| History { name, ..run }).collect())
}
