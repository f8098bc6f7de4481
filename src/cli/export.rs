//! `trainer export`

use std::fs;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::{ExportArgs, Global};
use super::{print, print_json};
use crate::checkpoint::hugging_face::{ConfigExtras, Facts, ModelCard, README, Staging, write_config};
use crate::checkpoint::model_files::{ModelFiles, dtype};
use crate::checkpoint::{ModelLocation, resolve_model_dir};
use crate::config::{Config, preset_names};
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::model::Architecture;
use crate::report::table::{bytes, thousands};
use crate::train::facts;

/// What belongs to a tokenizer beside tokenizer.json and tokenizer_config.json, where its directory has it.
const TOKENIZER_FILES: [&str; 5] =
    ["special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja"];
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

pub fn run(args: &ExportArgs, _: &Global) -> Result<()> {
    let location = resolve_model_dir(&args.source)?;
    let files = ModelFiles::open(&location.model)?;
    let config = &files.config;
    let dtype = args.dtype.map_or_else(|| files.dtype(), |precision| Ok(dtype(precision)))?;
    let staging = Staging::begin(&args.out)?;
    let dir = staging.dir();
    let extras = ConfigExtras {
        eos_token_id: config.eos_token_id,
        bos_token_id: config.bos_token_id,
        residual_dropout: config.residual_dropout,
        attention_dropout: config.attention_dropout,
        embedding_dropout: config.embedding_dropout,
        ..ConfigExtras::new(dtype)
    };
    write_config(&dir, &config.architecture, &extras)?;
    let parameters = config.architecture.parameters();
    let bar = ProgressBar::new(parameters);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {percent}% of {human_len} parameters, eta {eta}") {
        bar.set_style(style);
    }
    files.write_weights(&dir, dtype, args.shard_size, |written| bar.inc(written))?;
    bar.finish_and_clear();
    let tokenizer = write_tokenizer(&location, &dir, config.architecture.context)?;
    write_card(args, &location, &config.architecture, tokenizer.as_ref(), &dir)?;
    let (names, total) = staging.commit()?;
    if args.json {
        return print_json(&json!({
            "out": args.out, "parameters": parameters, "dtype": dtype.to_string(), "files": names, "bytes": total,
        }));
    }
    let out = args.out.display();
    let files = names.len();
    print(&format!("{out}: {} parameters in {dtype}, {files} files, {}\n", thousands(parameters), bytes(total)))
}

/// The tokenizer beside the model, if there is one, with the longest input that the model takes.
fn write_tokenizer(location: &ModelLocation, dir: &Path, context: usize) -> Result<Option<Tokenizer>> {
    let Some(path) = &location.tokenizer else { return Ok(None) };
    let name = path.to_str().ok_or_else(|| Error::file(path, "this path is not UTF-8: move it"))?;
    let tokenizer = Tokenizer::load(name)?;
    tokenizer.save(dir)?;
    for name in TOKENIZER_FILES {
        copy_if_there(&path.with_file_name(name), &dir.join(name))?;
    }
    let config_path = dir.join(TOKENIZER_CONFIG);
    let text = fs::read(&config_path).map_err(Error::io("read", &config_path))?;
    let mut config: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text)
        .map_err(|error| Error::file(path.with_file_name(TOKENIZER_CONFIG), format!("is no JSON object: {error}")))?;
    let longest = config.get("model_max_length").and_then(serde_json::Value::as_f64);
    if longest.is_none_or(|longest| longest > context as f64) {
        config.insert("model_max_length".to_string(), json!(context));
        let text = format!("{:#}\n", serde_json::Value::Object(config));
        fs::write(&config_path, text).map_err(Error::io("write", &config_path))?;
    }
    Ok(Some(tokenizer))
}

/// The card that the model has, or one of what its run, if it comes from one, says of it.
fn write_card(
    args: &ExportArgs,
    location: &ModelLocation,
    arch: &Architecture,
    tokenizer: Option<&Tokenizer>,
    dir: &Path,
) -> Result<()> {
    for name in ["LICENSE", "LICENSE.md", "NOTICE.md"] {
        copy_if_there(&location.model.join(name), &dir.join(name))?;
    }
    if copy_if_there(&location.model.join(README), &dir.join(README))? {
        return Ok(());
    }
    let (training, data) = location.checkpoint.as_deref().map(facts::of_checkpoint).unwrap_or_default();
    let name = args.out.file_name().map(|name| name.to_string_lossy().into_owned());
    let card = ModelCard {
        name: name.unwrap_or_else(|| "phi".to_string()),
        parameters: thousands(arch.parameters()),
        model: sizes(arch),
        training,
        data,
        has_tokenizer: tokenizer.is_some(),
        version: env!("CARGO_PKG_VERSION").to_string(),
    };
    let path = dir.join(README);
    fs::write(&path, card.text()).map_err(Error::io("write", &path))
}

fn sizes(arch: &Architecture) -> Facts {
    let mut facts = Facts::new();
    let same = |name: &&str| {
        let preset = Config::resolve(Some(name), None, &[]).map(|config| config.architecture());
        preset.is_ok_and(|preset| Architecture { context: arch.context, ..preset } == *arch)
    };
    if let Some(preset) = preset_names().find(same) {
        facts.push(("preset", preset.to_string()));
    }
    facts.extend([
        ("layers", arch.layers.to_string()),
        ("hidden size", arch.hidden.to_string()),
        ("heads", format!("{} of {} dimensions, {} of them rotary", arch.heads, arch.head_dim(), arch.rotary_dim)),
        ("MLP", arch.mlp.to_string()),
        ("vocabulary", arch.vocab.to_string()),
        ("context", format!("{} tokens", arch.context)),
    ]);
    facts
}

/// Whether there was such a file.
fn copy_if_there(from: &Path, to: &Path) -> Result<bool> {
    if !from.is_file() {
        return Ok(false);
    }
    fs::copy(from, to).map(|_| true).map_err(Error::io("copy", from))
}
