//! `trainer prepare`

use serde_json::json;

use super::args::{Global, PrepareArgs};
use super::{print, print_json};
use crate::data::prepare::{self, Bar, PrepareOptions};
use crate::error::{Error, Result};
use crate::exit;
use crate::report::voice::say;

pub fn run(args: &PrepareArgs, _: &Global) -> Result<()> {
    let options = PrepareOptions {
        inputs: args.inputs.clone(),
        out: args.out.clone(),
        tokenizer: args.tokenizer.clone(),
        val_fraction: args.val_fraction,
        shard_tokens: args.shard_tokens,
        seed: args.seed,
        text_field: args.text_field.clone(),
        force: args.force,
        threads: 0,
    };
    let bar = Bar::new();
    end_on_signals(bar.clone())?;
    let summary = prepare::run(&options, |progress| bar.show(progress));
    bar.clear();
    let summary = summary?;
    if !args.json {
        return print(&summary.to_string());
    }
    let (skipped_files, skipped_records) = summary.skipped();
    print_json(&json!({
        "out": summary.out,
        "manifest": summary.manifest,
        "text_bytes": summary.text_bytes(),
        "tokens": summary.tokens(),
        "skipped_files": skipped_files,
        "skipped_records": skipped_records,
        "seconds": summary.elapsed.as_secs_f64(),
        "warnings": summary.warnings,
    }))
}

/// Has Ctrl-C and SIGTERM end the process with nothing left behind.
fn end_on_signals(bar: Bar) -> Result<()> {
    let end = move |code| {
        prepare::abandon(|| {
            bar.clear();
            say("interrupted: nothing was written");
            exit::at_once(code)
        });
    };
    let cannot = |why: String| Error::failed(format!("cannot listen for signals: {why}"));
    #[cfg(unix)]
    {
        use nix::sys::signal::{SigSet, Signal};
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        // For this thread and those that it starts, so that the signals wait for the thread below.
        signals.thread_block().map_err(|error| cannot(error.to_string()))?;
        // As shells report them: 130 and 143.
        let listen = move || {
            if let Ok(signal) = signals.wait() {
                end(128 + signal as u8);
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(listen).map_err(|error| cannot(error.to_string()))?;
        Ok(())
    }
    #[cfg(not(unix))]
    {
        ctrlc::set_handler(move || end(130)).map_err(|error| cannot(error.to_string()))
    }
}
