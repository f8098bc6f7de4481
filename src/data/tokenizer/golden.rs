//! The ids that Hugging Face's tokenizers give (tests/data/make_tokenizer_golden.py), or those of another file of that
//! form named by TRAINER_TOKENIZER_GOLDEN.

use std::path::PathBuf;

use super::Tokenizer;

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn codegen_gives_the_golden_ids_and_decodes_them_back() {
    let path = std::env::var_os("TRAINER_TOKENIZER_GOLDEN")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/codegen-tokenizer.json"));
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(&path).expect("the golden file")).unwrap();
    assert!(!cases.is_empty());
    let tokenizer = Tokenizer::codegen();
    for case in &cases {
        let ids = tokenizer.encode(&case.text).unwrap();
        assert_eq!(ids, case.ids, "{:?}", case.text);
        assert_eq!(tokenizer.decode(&ids).unwrap(), case.text);
    }
}
