//! `trainer prepare`

use serde_json::json;

use super::args::{Global, PrepareArgs};
use super::{print, print_json};
use crate::data::prepare::{self, Bar, PrepareOptions};
use crate::error::Result;

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
