//! Any Hugging Face tokenizer.json, run by the `tokenizers` crate.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::pretokenize::END_OF_TEXT;
use super::{charsmap, hf_json};
use crate::data::guard::guarded;
use crate::error::{Error, Result, Short};

/// Bytes. The longest tokens in use are runs of some hundred spaces.
const LONGEST_TOKEN: usize = 4096;

/// Ends of a text where neither `<|endoftext|>` nor the file's configuration gives one, the more certain first: of Llama and
/// T5, Gemma, Llama 3, ChatML and BERT.
const ENDS: [&str; 5] = ["</s>", "<eos>", "<|end_of_text|>", "<|im_end|>", "[SEP]"];

/// A tokenizer read from a file, with the file itself, so that it can be handed on unchanged.
pub struct FileTokenizer {
    path: PathBuf,
    tokenizer: tokenizers::Tokenizer,
    json: Vec<u8>,
    /// The tokenizer_config.json that lay beside it, if any.
    config: Option<Vec<u8>>,
    end_of_text: u32,
    end_of_text_token: String,
    vocabulary: Vec<(u32, String)>,
}

impl FileTokenizer {
    /// Reads `path`, a tokenizer.json.
    pub fn open(path: &Path, json: Vec<u8>) -> Result<Self> {
        let refused = |why: String| {
            Error::file(path, format!("expected a Hugging Face tokenizer.json, but it does not load: {}", Short(why)))
        };
        check_tokens(&json).and_then(|()| charsmap::check(&json)).map_err(refused)?;
        let loaded = guarded(|| tokenizers::Tokenizer::from_bytes(&json).map_err(|error| error.to_string()));
        let mut tokenizer = loaded.and_then(|loaded| loaded).map_err(refused)?;
        // A corpus is encoded whole: what the file says of padding and truncation is for batches of prompts.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| Error::file(path, format!("cannot lift truncation: {error}")))?;
        let config = read_optional(&path.with_file_name("tokenizer_config.json"))?;
        let told = config.as_deref().and_then(eos_token);
        // First, whatever the configuration of a chat model says: there it is the end of a turn.
        let (end_of_text_token, end_of_text) = std::iter::once(END_OF_TEXT)
            .chain(told.as_deref())
            .chain(ENDS)
            .find_map(|token| tokenizer.token_to_id(token).map(|id| (token.to_string(), id)))
            .ok_or_else(|| {
                let eos = told.as_ref().map_or("there is none".to_string(), |told| format!("\"{}\"", Short(told)));
                Error::file(
                    path,
                    format!(
                        "its vocabulary has no token to stand between documents: looked for {END_OF_TEXT}, the eos_token of \
                         a tokenizer_config.json beside it ({eos}), {}; add one of them to the tokenizer's added_tokens",
                        ENDS.join(", ")
                    ),
                )
            })?;
        let vocabulary = tokenizer.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
        Ok(Self { path: path.to_path_buf(), tokenizer, json, config, end_of_text, end_of_text_token, vocabulary })
    }

    /// One more than the highest id.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.iter().map(|(id, _)| *id as usize + 1).max().unwrap_or(0)
    }

    pub fn end_of_text(&self) -> u32 {
        self.end_of_text
    }

    pub fn fingerprint(&self) -> u64 {
        hf_json::vocabulary_fingerprint(self.vocabulary.clone())
    }

    /// Whether the file says the same as `json`, in whatever order and layout.
    pub fn is_same_as(&self, json: &serde_json::Value) -> bool {
        serde_json::from_slice::<serde_json::Value>(&self.json).is_ok_and(|own| own == *json)
    }

    /// Appends the ids of `text`, without the special tokens that a post-processor would add around a prompt.
    pub fn encode_into(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        let encoded = guarded(|| self.tokenizer.encode_fast(text, false).map_err(|error| error.to_string()));
        let encoding = encoded.and_then(|encoded| encoded).map_err(|why| self.failed("encode this text", &why))?;
        out.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let decoded = guarded(|| self.tokenizer.decode(ids, false).map_err(|error| error.to_string()));
        decoded.and_then(|decoded| decoded).map_err(|why| self.failed("decode these ids", &why))
    }

    fn failed(&self, what: &str, why: &str) -> Error {
        Error::failed(format!("{}: the tokenizer cannot {what}: {}", self.path.display(), Short(why)))
    }

    /// The files to write into a model or data directory: (name, contents).
    pub fn files(&self) -> [(&'static str, Vec<u8>); 2] {
        let config = self
            .config
            .clone()
            .unwrap_or_else(|| format!("{:#}\n", hf_json::config_json(&self.end_of_text_token)).into_bytes());
        [("tokenizer.json", self.json.clone()), ("tokenizer_config.json", config)]
    }
}

/// The library keeps a Unigram vocabulary as a tree with a level a byte, which it frees level within level: a long token would
/// exhaust the stack, and that ends a process without a word.
///
/// # Errors
/// A longer token than any vocabulary has, in words.
fn check_tokens(json: &[u8]) -> std::result::Result<(), String> {
    #[derive(Deserialize)]
    struct File {
        model: Model,
    }
    #[derive(Deserialize)]
    struct Model {
        vocab: Vec<(String, serde::de::IgnoredAny)>,
    }
    let model = match serde_json::from_slice(json) {
        Ok(File { model }) => model,
        // The library would look at both.
        Err(error) if error.to_string().contains("duplicate field") => return Err(error.to_string()),
        // Another model, or for the library to refuse.
        Err(_) => return Ok(()),
    };
    match model.vocab.iter().map(|(token, _)| token.len()).max() {
        Some(longest) if longest > LONGEST_TOKEN => {
            Err(format!("a token of its vocabulary has {longest} bytes, expected at most {LONGEST_TOKEN}"))
        }
        _ => Ok(()),
    }
}

/// `path` itself, or the tokenizer.json inside it if it is a directory.
pub fn tokenizer_path(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() }
}

/// The end of a text that a tokenizer_config.json names, in either of its two forms.
fn eos_token(config: &[u8]) -> Option<String> {
    let config: serde_json::Value = serde_json::from_slice(config).ok()?;
    let token = config.get("eos_token")?;
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_string)
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}
