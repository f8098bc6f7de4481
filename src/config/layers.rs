//! Presets, files and `--set`: three layers of keys, of which the later wins, each key with where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::keys::{KEYS, Key};
use super::parsed::Parsed;
use super::suggest::nearest;
use crate::error::{Error, Result, Short};

/// The presets that the binary holds, by name.
const PRESETS: [(&str, &str); 6] = [
    ("phi-1", include_str!("../../configs/phi-1.toml")),
    ("phi-1-small", include_str!("../../configs/phi-1-small.toml")),
    ("phi-1-finetune", include_str!("../../configs/phi-1-finetune.toml")),
    ("laptop", include_str!("../../configs/laptop.toml")),
    ("laptop-finetune", include_str!("../../configs/laptop-finetune.toml")),
    ("demo", include_str!("../../configs/demo.toml")),
];

/// The one key outside tables: the preset on which a file builds.
const INHERITS: &str = "inherits";

/// The names of the presets.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Preset(&'static str),
    File(PathBuf),
    Set,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Set => write!(f, "--set"),
        }
    }
}

/// Checked values by (table, key), each with its origin.
#[derive(Debug, Default)]
pub(super) struct Layers(BTreeMap<(&'static str, &'static str), (Value, Origin)>);

impl Layers {
    /// Lays a preset over what is there, after the one it inherits from.
    pub fn add_preset(&mut self, name: &str) -> Result<()> {
        let Some((name, text)) = PRESETS.iter().find(|(known, _)| *known == name) else {
            return Err(unknown(
                format!("unknown preset {}", Short(format!("{name:?}"))),
                name,
                preset_names(),
                "the presets are",
            ));
        };
        self.add_text(text, Origin::Preset(name))
    }

    pub fn add_file(&mut self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::file(path, "there is no such file: give --config an existing file, or --preset NAME")
            }
            io::ErrorKind::InvalidData => Error::file(path, "is not UTF-8: expected a configuration file (TOML)"),
            _ if path.is_dir() => Error::file(path, "is a folder: expected a configuration file (TOML)"),
            _ => Error::io("read", path)(error),
        })?;
        self.add_text(&text, Origin::File(path.to_path_buf()))
    }

    /// One `--set table.key=value`. The value is TOML; text needs no quotes.
    pub fn add_set(&mut self, set: &str) -> Result<()> {
        let Some((path, text)) = set.split_once('=') else {
            let set = Short(set);
            return Err(Error::input(format!("--set {set}: expected table.key=value, as in train.steps=20")));
        };
        let (path, text) = (path.trim(), text.trim());
        let Some((table, name)) = path.split_once('.') else {
            // `--set lr=..` most often means the one table that has such a key.
            let full = KEYS.iter().find(|key| key.name == path).map(|key| format!("{}.{}", key.table, key.name));
            let hint = full.map(|full| format!("; did you mean {full}?")).unwrap_or_default();
            let (set, path) = (Short(set), Short(format!("{path:?}")));
            return Err(Error::input(format!("--set {set}: {path} names no table: write table.key=value{hint}")));
        };
        let key = find(table, name, &Origin::Set)?;
        let value = match toml_value(text) {
            Some(value) if value.is_str() || !key.kind.is_text() => value,
            _ => Value::String(text.to_owned()),
        };
        self.insert(key, value, &Origin::Set)
    }

    /// Parses and lays a whole TOML text over what is there.
    fn add_text(&mut self, text: &str, origin: Origin) -> Result<()> {
        let table: Table = text.parse().map_err(|error| syntax_error(text, &error, &origin))?;
        match (table.get(INHERITS), self.0.is_empty()) {
            (None, _) => {}
            // A preset that was asked for by name stands in the place of the one that the file would build on.
            (Some(Value::String(_)), false) => {}
            (Some(Value::String(base)), true) => self.add_preset(base).map_err(|error| {
                // Whose mistake it is, where a file named it.
                Error::input(format!("{INHERITS} ({origin}): {error}"))
            })?,
            (Some(other), _) => {
                let other = Short(other);
                return Err(Error::input(format!("{INHERITS} is {other} ({origin}): it must be a preset's name")));
            }
        }
        let mut layer = Layers::default();
        for (table_name, content) in table.iter().filter(|(name, _)| *name != INHERITS) {
            let tables = || KEYS.iter().map(|key| key.table);
            let known = tables().any(|known| known == table_name);
            match content {
                Value::Table(keys) if known => {
                    for (name, value) in keys {
                        layer.insert(find(table_name, name, &origin)?, value.clone(), &origin)?;
                    }
                }
                _ if known => {
                    let content = Short(content);
                    let message = format!(
                        "{table_name} is {content} ({origin}): it must be a table, [{table_name}] on its own line"
                    );
                    return Err(Error::input(message));
                }
                _ => {
                    let shown = Short(table_name);
                    let what = match content {
                        Value::Table(_) => format!("unknown table [{shown}] ({origin})"),
                        _ => format!("unknown key {shown} outside of any table ({origin})"),
                    };
                    return Err(unknown(what, table_name, tables(), "the tables are"));
                }
            }
        }
        self.lay(layer);
        Ok(())
    }

    fn lay(&mut self, layer: Layers) {
        // `dropout` speaks for both kinds: it must not be silently outvoted by what an earlier layer said of one.
        if layer.0.contains_key(&("model", "dropout")) {
            self.forget_dropouts();
        }
        self.0.extend(layer.0);
    }

    fn insert(&mut self, key: &Key, value: Value, origin: &Origin) -> Result<()> {
        if !key.kind.accepts(&value) {
            let hint = match (&value, key.kind) {
                (Value::String(word), super::keys::Kind::Choice(words)) => nearest(word, words.iter().copied())
                    .map(|word| format!("; did you mean {word}?"))
                    .unwrap_or_default(),
                _ => String::new(),
            };
            let value = Short(value);
            let message = format!("{}.{} is {value} ({origin}): it must be {}{hint}", key.table, key.name, key.kind);
            return Err(Error::input(message));
        }
        if *origin == Origin::Set && (key.table, key.name) == ("model", "dropout") {
            self.forget_dropouts();
        }
        self.0.insert((key.table, key.name), (value, origin.clone()));
        Ok(())
    }

    fn forget_dropouts(&mut self) {
        self.0.remove(&("model", "attention_dropout"));
        self.0.remove(&("model", "residual_dropout"));
    }

    /// The value and origin of a key, as in "train.batch 12 (--set)", for messages.
    pub fn describe(&self, table: &str, name: &str) -> Option<String> {
        let ((table, name), (value, origin)) = self.0.iter().find(|((t, n), _)| *t == table && *n == name)?;
        Some(format!("{table}.{name} = {value} ({origin})"))
    }

    /// All layers as one typed configuration.
    pub fn parsed(&self) -> Result<Parsed> {
        let mut tables = Table::new();
        for ((table, name), (value, _)) in &self.0 {
            if let Value::Table(keys) = tables.entry(*table).or_insert_with(|| Value::Table(Table::new())) {
                keys.insert((*name).to_owned(), value.clone());
            }
        }
        tables.try_into().map_err(|error: toml::de::Error| Error::input(format!("configuration: {}", error.message())))
    }
}

/// `text` as one TOML value, or `None` if it is not one.
fn toml_value(text: &str) -> Option<Value> {
    // A line break would end the value and begin a key of its own.
    if text.contains(['\n', '\r']) {
        return None;
    }
    format!("value = {text}").parse::<Table>().ok()?.remove("value")
}

fn find(table: &str, name: &str, origin: &Origin) -> Result<&'static Key> {
    if let Some(key) = KEYS.iter().find(|key| key.table == table && key.name == name) {
        return Ok(key);
    }
    if !KEYS.iter().any(|key| key.table == table) {
        let (shown, name) = (Short(table), Short(name));
        let what = format!("unknown table {shown} in {shown}.{name} ({origin})");
        return Err(unknown(what, table, KEYS.iter().map(|key| key.table), "the tables are"));
    }
    let what = format!("unknown key {table}.{} ({origin})", Short(name));
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return Err(Error::input(format!("{what}; did you mean {}.{name}?", key.table)));
    }
    let names = KEYS.iter().filter(|key| key.table == table).map(|key| key.name);
    Err(unknown(what, name, names, &format!("[{table}] has")))
}

/// "`what`; did you mean ..? The presets are a, b, c".
fn unknown<'a>(what: String, word: &str, known: impl Iterator<Item = &'a str>, list: &str) -> Error {
    let mut names: Vec<&str> = known.collect();
    names.dedup();
    let hint = nearest(word, names.iter().copied()).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
    Error::input(format!("{what}{hint} ({list} {})", names.join(", ")))
}

fn syntax_error(text: &str, error: &toml::de::Error, origin: &Origin) -> Error {
    let line = error.span().map(|span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
    let place = line.map(|line| format!(", line {line}")).unwrap_or_default();
    Error::input(format!("{origin}{place}: not valid TOML: {}", Short(error.message().replace('\n', ", "))))
}
