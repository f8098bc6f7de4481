//! SentencePiece's table of replacements inside a tokenizer.json: its length, a trie of that many bytes, the replacements.
//!
//! The library reserves memory by that length before it looks for the trie, up to 8 GiB.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

const KEY: &str = "precompiled_charsmap";

/// # Errors
/// A table in the normalizer of `json`, a tokenizer.json, that says to be longer than it is, in words.
pub fn check(json: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct File {
        normalizer: Value,
    }
    match serde_json::from_slice(json) {
        Ok(File { normalizer }) => check_within(&normalizer),
        Err(error) if error.to_string().contains("duplicate field") => Err(error.to_string()),
        // No normalizer, or for the library to refuse.
        Err(_) => Ok(()),
    }
}

fn check_within(value: &Value) -> Result<(), String> {
    match value {
        Value::Array(values) => values.iter().try_for_each(check_within),
        Value::Object(entries) => entries.iter().try_for_each(|(key, value)| match value {
            Value::String(table) if key == KEY => check_table(table),
            _ => check_within(value),
        }),
        _ => Ok(()),
    }
}

fn check_table(table: &str) -> Result<(), String> {
    // What is no base64 the library refuses.
    let Ok(table) = BASE64_STANDARD.decode(table) else { return Ok(()) };
    let Some((length, rest)) = table.split_first_chunk() else { return Ok(()) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > rest.len() {
        return Err(format!("the trie in its {KEY} says to be {length} bytes long, and {} follow", rest.len()));
    }
    Ok(())
}
