//! tokenizer.json, ours and those of Hugging Face's other models.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::Target;
use crate::data::tokenizer::Tokenizer;
use crate::error::Result;

/// One of each kind of model that the library knows, with the parts that such files have.
fn files() -> Vec<Vec<u8>> {
    let added = json!([{"id": 9, "content": "</s>", "special": true, "normalized": false, "single_word": false,
        "lstrip": false, "rstrip": true}]);
    let file = |normalizer: Value, pre: Value, decoder: Value, model: Value| {
        let post = json!({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "</s>", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [9], "tokens": ["</s>"]}}});
        json!({"version": "1.0", "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst",
            "stride": 1}, "padding": null, "added_tokens": added, "normalizer": normalizer, "pre_tokenizer": pre,
            "post_processor": post, "decoder": decoder, "model": model})
        .to_string()
        .into_bytes()
    };
    let bpe = json!({"type": "BPE", "dropout": null, "unk_token": "?", "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
        "vocab": {"?": 0, "d": 1, "e": 2, "f": 3, "de": 4, "def": 5, "<0x0A>": 6, "x": 7, "\u{2581}": 8, "</s>": 9},
        "merges": ["d e", "de f"]});
    let unigram = json!({"type": "Unigram", "unk_id": 0, "byte_fallback": false,
        "vocab": [["<unk>", 0.0], ["\u{2581}", -1.0], ["d", -2.0], ["e", -2.5], ["def", -1.5], ["x", -3.0], ["</s>", 0.0]]});
    let word_piece = json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "def": 1, "##x": 2, "f": 3, "</s>": 9}});
    let split = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\s+|\\w+(?=x)"}, "behavior": "Isolated", "invert": false},
        {"type": "Digits", "individual_digits": true}, {"type": "Punctuation", "behavior": "Isolated"}]});
    let metaspace = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    let normalizers = json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"},
        {"type": "Replace", "pattern": {"Regex": "e{2,3}"}, "content": "e"}, {"type": "Prepend", "prepend": "d"},
        {"type": "Strip", "strip_left": true, "strip_right": false}]});
    let bert = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
        "lowercase": true});
    let fallback = json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    // SentencePiece's table of replacements in base64: 256 empty units, then one text.
    let charsmap = format!("AAQA{}AABhAA==", "AAAA".repeat(341));
    let precompiled = json!({"type": "Precompiled", "precompiled_charsmap": charsmap});
    let dir = tempfile::tempdir().unwrap();
    Tokenizer::bytes().save(dir.path()).unwrap();
    vec![
        fs::read(dir.path().join("tokenizer.json")).unwrap(),
        file(normalizers, split, fallback, bpe),
        file(precompiled, metaspace.clone(), metaspace, unigram),
        file(
            bert,
            json!({"type": "BertPreTokenizer"}),
            json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
            word_piece,
        ),
    ]
}

fn use_tokenizer(path: &Path) -> Result<()> {
    let tokenizer = Tokenizer::load(path.to_str().unwrap())?;
    for text in ["", "def f(x):\n    return 'it''s' 3.14\t</s>", "été 東京 \u{0}🚀 eeeee dex"] {
        let ids = tokenizer.encode(text)?;
        tokenizer.decode(&ids)?;
    }
    tokenizer.decode(&[0, 9, 256, u32::MAX])?;
    Ok(())
}

#[test]
fn tokenizer_files() {
    // The library compiles its patterns into tables of some megabytes.
    let target = Target { extra: 64 << 20, ..Target::new(file!(), "tokenizer.json", files()) };
    target.run(|_| {}, use_tokenizer);
}
