//! `trainer export`

use std::fs;

use super::args::{ExportArgs, Global};
use super::print;
use crate::checkpoint::hugging_face::{ConfigExtras, read_config};
use crate::checkpoint::model_files::{dtype, load_model, save_host_model};
use crate::checkpoint::{Dtype, resolve_model_dir};
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::model::ParameterTable;

pub fn run(args: &ExportArgs, _: &Global) -> Result<()> {
    let location = resolve_model_dir(&args.source)?;
    let source = read_config(&location.model)?;
    let out = &args.out;
    if out.exists() && fs::read_dir(out).map_err(Error::io("read", out))?.next().is_some() {
        return Err(Error::file(out, "is not empty: choose a new directory for the export"));
    }
    let (config, weights) = load_model(&location.model)?;
    fs::create_dir_all(out).map_err(Error::io("create", out))?;
    let extras = ConfigExtras {
        eos_token_id: config.eos_token_id,
        bos_token_id: config.bos_token_id,
        residual_dropout: config.residual_dropout,
        attention_dropout: config.attention_dropout,
        embedding_dropout: config.embedding_dropout,
        ..ConfigExtras::new(args.dtype.map(dtype).or(source.dtype).unwrap_or(Dtype::F32))
    };
    let table = ParameterTable::new(&config.architecture);
    save_host_model(out, &config.architecture, &extras, &table, &weights)?;
    if let Some(tokenizer) = location.tokenizer {
        let name = tokenizer.to_str().ok_or_else(|| Error::file(&tokenizer, "this path is not UTF-8: move it"))?;
        Tokenizer::load(name)?.save(out)?;
    }
    print(&format!("{}: {} parameters in {}\n", out.display(), config.architecture.parameters(), extras.dtype))
}
