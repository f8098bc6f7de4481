//! `trainer report`, `trainer runs`, and what shells and `man` read.

use std::path::PathBuf;

use clap::Args;

#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// Run directories; several are drawn over one another
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// HTML file to write [default: report.html in the first run]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Draw the losses into this PNG in place of writing the page
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "watch"])]
    pub png: Option<PathBuf>,
    /// Serve the page on 127.0.0.1 in place of writing it; it follows runs that go on, until Ctrl-C
    #[arg(long, conflicts_with = "out")]
    pub watch: bool,
    /// Port of --watch [default: 8642, or a free one where that is taken]
    #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
}

#[derive(Clone, Debug, Args)]
pub struct RunsArgs {
    /// Folder to look in, two levels deep
    #[arg(value_name = "DIR", default_value = "runs")]
    pub dir: PathBuf,
    /// Print the runs as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// Whose completions
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Folder to write trainer.1, trainer-train.1 and so on to
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}
