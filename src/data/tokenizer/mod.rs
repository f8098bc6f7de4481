//! Text to token ids and back: CodeGen's tokenizer and plain bytes built in, any other from its tokenizer.json.

mod bpe;
mod charsmap;
mod codegen;
mod file;
mod hf_json;
mod pretokenize;
mod unicode;

#[cfg(test)]
mod golden;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use crate::error::{Error, Result};
use file::FileTokenizer;
pub use hf_json::hex as fingerprint_hex;
use pretokenize::END_OF_TEXT;

/// A tokenizer; it can be shared between threads.
pub struct Tokenizer {
    kind: Kind,
    name: String,
    fingerprint: u64,
}

enum Kind {
    Codegen,
    Bytes,
    File(Box<FileTokenizer>),
}

/// Id of end of text in `bytes`, whose other ids are the bytes themselves.
const BYTES_END_OF_TEXT: u32 = 256;

impl Tokenizer {
    /// `codegen` (phi-1's), `bytes`, or the path of a Hugging Face tokenizer.json or of a directory that holds one.
    ///
    /// # Errors
    /// No such file, a file that is not a tokenizer, or one without an end-of-text token.
    pub fn load(name: &str) -> Result<Self> {
        match name {
            "codegen" => Ok(Self::codegen()),
            "bytes" => Ok(Self::bytes()),
            path => Self::from_file(Path::new(path)),
        }
    }

    /// phi-1's tokenizer: 50295 ids, end of text 50256.
    pub fn codegen() -> Self {
        // Of fifty thousand tokens: each file that is loaded is compared with it.
        static FINGERPRINT: LazyLock<u64> = LazyLock::new(|| {
            let vocabulary = hf_json::vocabulary_of(&hf_json::codegen_json());
            hf_json::vocabulary_fingerprint(vocabulary)
        });
        Self { kind: Kind::Codegen, name: "codegen".to_string(), fingerprint: *FINGERPRINT }
    }

    /// A byte is its own id; end of text is 256.
    pub fn bytes() -> Self {
        let vocabulary = hf_json::vocabulary_of(&hf_json::bytes_json());
        let fingerprint = hf_json::vocabulary_fingerprint(vocabulary);
        Self { kind: Kind::Bytes, name: "bytes".to_string(), fingerprint }
    }

    /// A file that this program saved from a built-in tokenizer is run by the built-in encoder, which is much faster.
    fn from_file(path: &Path) -> Result<Self> {
        let path = file::tokenizer_path(path);
        let json = fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::input(format!(
                "no tokenizer {}: expected codegen, bytes, or the path of a tokenizer.json",
                path.display()
            )),
            _ => Error::io("read", &path)(error),
        })?;
        let file = FileTokenizer::open(&path, json)?;
        let fingerprint = file.fingerprint();
        for (built_in, json) in
            [(Self::codegen as fn() -> Self, hf_json::codegen_json as fn() -> _), (Self::bytes, hf_json::bytes_json)]
        {
            let built_in = built_in();
            if built_in.fingerprint == fingerprint && file.is_same_as(&json()) {
                return Ok(built_in);
            }
        }
        Ok(Self { fingerprint, kind: Kind::File(Box::new(file)), name: path.display().to_string() })
    }

    /// `codegen`, `bytes`, or the file's path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ids are below this. A model's vocabulary must be at least as large.
    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Codegen => codegen::VOCAB_SIZE,
            Kind::Bytes => BYTES_END_OF_TEXT as usize + 1,
            Kind::File(file) => file.vocab_size(),
        }
    }

    /// The id that ends each document: of `<|endoftext|>`, or of another end of text where a file has only that.
    pub fn end_of_text(&self) -> u32 {
        match &self.kind {
            Kind::Codegen => codegen::END_OF_TEXT_ID,
            Kind::Bytes => BYTES_END_OF_TEXT,
            Kind::File(file) => file.end_of_text(),
        }
    }

    /// A hash of the (id, token) pairs, the same on every machine and for a built-in tokenizer and its saved file.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The ids of `text`; `<|endoftext|>` in it becomes the end-of-text id, as in Hugging Face's tokenizers.
    ///
    /// # Errors
    /// Only a tokenizer from a file can fail (one without a token for unknown text).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        self.encode_into(text, &mut ids)?;
        Ok(ids)
    }

    /// [`Tokenizer::encode`], appending to `out`.
    pub fn encode_into(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        match &self.kind {
            Kind::Codegen => codegen::codegen().encode_into(text, out),
            Kind::Bytes => {
                for (i, part) in text.split(END_OF_TEXT).enumerate() {
                    if i > 0 {
                        out.push(BYTES_END_OF_TEXT);
                    }
                    out.extend(part.bytes().map(u32::from));
                }
            }
            Kind::File(file) => file.encode_into(text, out)?,
        }
        Ok(())
    }

    /// The text of `ids`. Bytes that are not UTF-8 (a character cut at an edge) become U+FFFD; ids past the vocabulary,
    /// which a model with a padded embedding can emit, become nothing.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        match &self.kind {
            Kind::File(file) => file.decode(ids),
            _ => Ok(String::from_utf8_lossy(&self.decode_bytes(ids)?).into_owned()),
        }
    }

    /// The bytes of `ids`: exact for the built-in tokenizers, so that a character cut in two can be joined again; for a
    /// tokenizer from a file they are those of its decoded text.
    pub fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        match &self.kind {
            Kind::Codegen => ids.iter().for_each(|&id| codegen::codegen().decode_into(id, &mut bytes)),
            Kind::Bytes => {
                for &id in ids {
                    match u8::try_from(id) {
                        Ok(byte) => bytes.push(byte),
                        Err(_) if id == BYTES_END_OF_TEXT => bytes.extend_from_slice(END_OF_TEXT.as_bytes()),
                        Err(_) => {}
                    }
                }
            }
            Kind::File(file) => bytes = file.decode(ids)?.into_bytes(),
        }
        Ok(bytes)
    }

    /// Writes tokenizer.json and tokenizer_config.json into `dir`, which must exist. Hugging Face's `tokenizers` and
    /// AutoTokenizer read them and give the same ids.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let files = match &self.kind {
            Kind::File(file) => file.files(),
            built_in => {
                let json = match built_in {
                    Kind::Codegen => hf_json::codegen_json(),
                    _ => hf_json::bytes_json(),
                };
                [
                    ("tokenizer.json", format!("{json:#}\n").into_bytes()),
                    ("tokenizer_config.json", format!("{:#}\n", hf_json::config_json(END_OF_TEXT)).into_bytes()),
                ]
            }
        };
        for (name, contents) in files {
            let path = dir.join(name);
            fs::write(&path, contents).map_err(Error::io("write", &path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_their_own_ids() {
        let bytes = Tokenizer::load("bytes").unwrap();
        assert_eq!((bytes.vocab_size(), bytes.end_of_text(), bytes.name()), (257, 256, "bytes"));
        assert_eq!(bytes.encode("aé\n<|endoftext|>z").unwrap(), [97, 195, 169, 10, 256, 122]);
        assert_eq!(bytes.decode(&[97, 195, 169, 10, 256, 122, 300]).unwrap(), "aé\n<|endoftext|>z");
        assert_eq!(bytes.decode(&[195, 97]).unwrap(), "\u{fffd}a");
        assert_eq!(bytes.decode_bytes(&[195]).unwrap(), [195]);
    }

    /// The saved file must be run by the `tokenizers` crate itself here, not recognised as ours.
    #[test]
    fn saved_files_give_the_built_in_ids() {
        let text = "def f(x):\n        return x + 1  # it's ok\n\n\n\t\t\tété 東京 <|endoftext|>\u{a0}\u{2003} end   ";
        for tokenizer in [Tokenizer::codegen(), Tokenizer::bytes()] {
            let dir = tempfile::tempdir().unwrap();
            tokenizer.save(dir.path()).unwrap();
            let hugging_face = tokenizers::Tokenizer::from_file(dir.path().join("tokenizer.json")).unwrap();
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(ids, hugging_face.encode(text, false).unwrap().get_ids(), "{}", tokenizer.name());
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
            assert_eq!(hugging_face.decode(&ids, false).unwrap(), text);
            assert_eq!(hugging_face.get_vocab_size(true), tokenizer.vocab_size());
        }
    }

    #[test]
    fn a_saved_built_in_tokenizer_is_recognised() {
        for tokenizer in [Tokenizer::codegen(), Tokenizer::bytes()] {
            let dir = tempfile::tempdir().unwrap();
            tokenizer.save(dir.path()).unwrap();
            let loaded = Tokenizer::load(dir.path().to_str().unwrap()).unwrap();
            assert_eq!(loaded.name(), tokenizer.name());
            assert_eq!(loaded.fingerprint(), tokenizer.fingerprint());
        }
        assert_ne!(Tokenizer::codegen().fingerprint(), Tokenizer::bytes().fingerprint());
    }

    /// A word-level tokenizer with padding, truncation and a post-processor that adds a special token.
    fn word_level(end: &str) -> String {
        format!(
            r#"{{"version":"1.0","truncation":{{"direction":"Right","max_length":2,"strategy":"LongestFirst","stride":0}},
            "padding":{{"strategy":{{"Fixed":8}},"direction":"Right","pad_to_multiple_of":null,"pad_id":0,"pad_type_id":0,
            "pad_token":"[PAD]"}},"added_tokens":[],"normalizer":null,"pre_tokenizer":{{"type":"Whitespace"}},
            "post_processor":{{"type":"BertProcessing","sep":["{end}",4],"cls":["[CLS]",9]}},"decoder":null,
            "model":{{"type":"WordLevel","vocab":{{"[PAD]":0,"a":1,"b":2,"[UNK]":3,"{end}":4,"[CLS]":9}},"unk_token":"[UNK]"}}}}"#
        )
    }

    #[test]
    fn a_file_is_run_whole_and_handed_on_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        fs::write(&path, word_level("</s>")).unwrap();
        let tokenizer = Tokenizer::load(path.to_str().unwrap()).unwrap();
        assert_eq!(tokenizer.encode("a b c a").unwrap(), [1, 2, 3, 1]);
        assert_eq!((tokenizer.vocab_size(), tokenizer.end_of_text()), (10, 4));
        assert_eq!(tokenizer.decode(&[1, 2]).unwrap(), "a b");
        let out = tempfile::tempdir().unwrap();
        tokenizer.save(out.path()).unwrap();
        assert_eq!(fs::read_to_string(out.path().join("tokenizer.json")).unwrap(), word_level("</s>"));
        assert!(fs::read_to_string(out.path().join("tokenizer_config.json")).unwrap().contains("</s>"));
    }

    #[test]
    fn what_cannot_be_a_tokenizer_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        let message = |path: &Path| Tokenizer::load(path.to_str().unwrap()).err().unwrap();
        let missing = message(&path);
        assert!(missing.to_string().contains("expected codegen, bytes, or the path"), "{missing}");
        assert_eq!(missing.exit_code(), 2);
        fs::write(&path, word_level("[END]")).unwrap();
        let endless = message(&path).to_string();
        assert!(endless.contains("<|endoftext|>") && endless.contains("(there is none), </s>, <eos>"), "{endless}");
        fs::write(&path, "{}").unwrap();
        assert!(message(&path).to_string().contains("expected a Hugging Face tokenizer.json"));
        assert_eq!(message(&path).exit_code(), 2);
    }

    #[test]
    fn a_text_ends_as_the_file_or_its_configuration_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        let end = || Tokenizer::load(path.to_str().unwrap()).map(|tokenizer| tokenizer.end_of_text()).ok();
        for token in ["</s>", "<eos>", "<|end_of_text|>", "<|im_end|>", "[SEP]"] {
            fs::write(&path, word_level(token)).unwrap();
            assert_eq!(end(), Some(4), "{token}");
        }
        for (config, expected) in [
            (r#"{"eos_token":"[CLS]"}"#, Some(9)),
            (r#"{"eos_token":{"content":"[CLS]"}}"#, Some(9)),
            (r#"{"eos_token":"elsewhere"}"#, Some(4)),
            (r#"{"eos_token":null}"#, Some(4)),
        ] {
            fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
            assert_eq!(end(), expected, "{config}");
        }
        fs::write(&path, word_level("<|endoftext|>")).unwrap();
        fs::write(dir.path().join("tokenizer_config.json"), r#"{"eos_token":"[CLS]"}"#).unwrap();
        assert_eq!(end(), Some(4));
    }

    fn unigram(token: &str, normalizer: &str) -> String {
        format!(
            r#"{{"version":"1.0","added_tokens":[],"normalizer":{normalizer},"model":{{"type":"Unigram","unk_id":0,
            "vocab":[["</s>",0.0],["{token}",-1.0]]}}}}"#
        )
    }

    /// What the library itself answers with the end of the process: by a panic, or by exhausting the stack.
    #[test]
    fn files_that_break_the_library_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        let load = |text: &str| {
            fs::write(&path, text).unwrap();
            Tokenizer::load(path.to_str().unwrap()).map(|_| ()).map_err(|error| (error.exit_code(), error.to_string()))
        };
        assert_eq!(load(&unigram(&"a".repeat(4096), "null")), Ok(()));
        let long = unigram(&"a".repeat(100_000), "null");
        let (code, why) = load(&long).unwrap_err();
        assert!(
            code == 2 && why.contains("a token of its vocabulary has 100000 bytes, expected at most 4096"),
            "{why}"
        );
        let twice = long.replacen("\"unk_id\"", "\"vocab\":[],\"unk_id\"", 1);
        assert!(load(&twice).unwrap_err().1.contains("duplicate field"));
        let (code, why) = load(&unigram("a", r#"{"type":"Precompiled","precompiled_charsmap":"AAA="}"#)).unwrap_err();
        assert!(code == 2 && why.contains("tokenizer.json: expected a Hugging Face tokenizer.json"), "{why}");
        // A table that says to be 4 GiB long, of which three bytes follow.
        let (code, why) =
            load(&unigram("a", r#"{"type":"Precompiled","precompiled_charsmap":"/P///wAAAA=="}"#)).unwrap_err();
        assert!(code == 2 && why.contains("says to be 4294967292 bytes long, and 3 follow"), "{why}");
    }
}
