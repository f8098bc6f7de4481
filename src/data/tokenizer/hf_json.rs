//! Hugging Face's tokenizer.json and tokenizer_config.json for the built-in tokenizers.
//!
//! What is written gives the same ids in `tokenizers` and transformers' AutoTokenizer as the built-in encoder gives here.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::codegen::{END_OF_TEXT_ID, codegen, spaces_id, tabs_id};
use super::pretokenize::{END_OF_TEXT, MAX_SPACES, MAX_TABS};

/// The printable character that stands for a byte in a byte-level vocabulary (openai/gpt-2, src/encoder.py,
/// `bytes_to_unicode`): printable Latin-1 stands for itself, the other bytes in order for U+0100 onwards.
pub fn byte_to_char(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// CodeGen's tokenizer.json: GPT-2's BPE and the added tokens.
pub fn codegen_json() -> Value {
    let chars: Vec<char> = (0..=255).map(byte_to_char).collect();
    let codegen = codegen();
    let names: Vec<String> =
        codegen.tokens().iter().map(|token| token.iter().map(|&byte| chars[byte as usize]).collect()).collect();
    let mut vocab: Map<String, Value> =
        names.iter().enumerate().map(|(id, name)| (name.clone(), Value::from(id))).collect();
    vocab.insert(END_OF_TEXT.to_string(), Value::from(END_OF_TEXT_ID));
    let merges = codegen
        .merge_pairs()
        .iter()
        .map(|&(left, right)| Value::from(format!("{} {}", names[left as usize], names[right as usize])))
        .collect();
    let mut added = vec![added_token(END_OF_TEXT_ID, END_OF_TEXT, true)];
    added.extend((2..=MAX_SPACES).rev().map(|n| added_token(spaces_id(n), &" ".repeat(n), false)));
    added.extend((2..=MAX_TABS).rev().map(|n| added_token(tabs_id(n), &"\t".repeat(n), false)));
    tokenizer_json(vocab, merges, added, true)
}

/// The tokenizer.json of `bytes`: ids 0..=255 are the bytes, 256 is end of text.
pub fn bytes_json() -> Value {
    let vocab = (0..=255u8).map(|byte| (byte_to_char(byte).to_string(), Value::from(byte))).collect();
    tokenizer_json(vocab, Vec::new(), vec![added_token(256, END_OF_TEXT, true)], false)
}

fn added_token(id: u32, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "special": special, "normalized": !special,
        "single_word": false, "lstrip": false, "rstrip": false,
    })
}

fn tokenizer_json(vocab: Map<String, Value>, merges: Vec<Value>, added: Vec<Value>, gpt2_split: bool) -> Value {
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": gpt2_split,
        },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    })
}

/// The tokenizer_config.json that makes AutoTokenizer read tokenizer.json as it stands. The longest input is the
/// model's to say; phi takes no token_type_ids, which transformers 4 would otherwise hand to `generate`.
pub fn config_json(end_of_text: &str) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end_of_text,
        "eos_token": end_of_text,
        "unk_token": end_of_text,
        "add_prefix_space": false,
        "clean_up_tokenization_spaces": false,
        "model_input_names": ["input_ids", "attention_mask"],
    })
}

/// 64 bits of SHA-256 over the (id, token) pairs in the order of ids, tokens spelled as in tokenizer.json.
/// A vocabulary has the same fingerprint built in and read from a file.
pub fn vocabulary_fingerprint(mut vocabulary: Vec<(u32, String)>) -> u64 {
    vocabulary.sort_unstable();
    let mut hash = Sha256::new();
    for (id, token) in &vocabulary {
        hash.update(id.to_le_bytes());
        hash.update((token.len() as u64).to_le_bytes());
        hash.update(token);
    }
    let digest = hash.finalize();
    digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The (id, token) pairs of a tokenizer.json made here.
pub fn vocabulary_of(json: &Value) -> Vec<(u32, String)> {
    let mut pairs: BTreeMap<u32, String> = BTreeMap::new();
    if let Some(vocab) = json["model"]["vocab"].as_object() {
        pairs.extend(vocab.iter().filter_map(|(token, id)| Some((id.as_u64()? as u32, token.clone()))));
    }
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        if let (Some(id), Some(content)) = (token["id"].as_u64(), token["content"].as_str()) {
            pairs.insert(id as u32, content.to_string());
        }
    }
    pairs.into_iter().collect()
}

/// A fingerprint as manifests and messages show it: 16 hexadecimal digits.
pub fn hex(fingerprint: u64) -> String {
    format!("{fingerprint:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_characters_are_gpt_2s() {
        assert_eq!(byte_to_char(b' '), 'Ġ');
        assert_eq!(byte_to_char(b'\n'), 'Ċ');
        assert_eq!(byte_to_char(b'a'), 'a');
        assert_eq!(byte_to_char(0xad), 'Ń');
        let all: std::collections::HashSet<char> = (0..=255).map(byte_to_char).collect();
        assert_eq!(all.len(), 256);
    }

    #[test]
    fn fingerprints_depend_on_ids_and_tokens_not_on_order() {
        let pairs = |a: &str, b: &str| vec![(0, a.to_string()), (1, b.to_string())];
        let reversed = vec![(1, "b".to_string()), (0, "a".to_string())];
        assert_eq!(vocabulary_fingerprint(pairs("a", "b")), vocabulary_fingerprint(reversed));
        assert_ne!(vocabulary_fingerprint(pairs("a", "b")), vocabulary_fingerprint(pairs("b", "a")));
        assert_ne!(vocabulary_fingerprint(pairs("ab", "")), vocabulary_fingerprint(pairs("a", "b")));
    }
}
