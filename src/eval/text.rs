//! Text as the tokens that `trainer prepare` would make of it, and how many bytes of text tokens are.

use std::io;
use std::path::PathBuf;

use crate::data::corpus::{self, Skip, Stopped, TextField, read_units};
use crate::data::dataset::Dataset;
use crate::data::shard::check_vocab_fits;
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// Tokens that are decoded at a time.
const PIECE: usize = 1 << 20;

/// Documents, each with its end-of-text token behind it.
#[derive(Default)]
pub struct TokenisedText {
    pub tokens: Vec<u16>,
    pub documents: u64,
    /// Bytes of UTF-8 text.
    pub bytes: u64,
    /// What could not be read.
    pub skipped: Vec<Skip>,
}

impl TokenisedText {
    /// One document.
    ///
    /// # Errors
    /// A vocabulary above 65536 ids, or a text that the tokenizer cannot encode.
    pub fn of(text: &str, tokenizer: &Tokenizer) -> Result<Self> {
        check_vocab_fits(tokenizer.vocab_size())?;
        let mut all = Self::default();
        all.push(text, true, tokenizer)?;
        Ok(all)
    }

    /// What `trainer prepare` reads in files and folders, in its order.
    ///
    /// # Errors
    /// As [`TokenisedText::of`]; also an input that does not exist, and inputs without any text.
    pub fn of_files(inputs: &[PathBuf], tokenizer: &Tokenizer) -> Result<Self> {
        check_vocab_fits(tokenizer.vocab_size())?;
        let found = corpus::find(inputs)?;
        let (mut all, field) = (Self { skipped: found.skipped, ..Self::default() }, TextField::new(None));
        let mut failed = None;
        // Stopped means that the error below ended it.
        let _ = read_units(&found.sources, &field, |unit| {
            let mut skipped = Vec::new();
            let read: std::result::Result<(), ReadError> = unit.for_each(
                &field,
                |fragment| all.push(fragment.text, fragment.last, tokenizer).map_err(ReadError),
                |skip| skipped.push(skip),
            );
            all.skipped.append(&mut skipped);
            read.map_err(|ReadError(error)| {
                failed = Some(error);
                Stopped
            })
        });
        match failed {
            Some(error) => Err(error),
            None if all.documents == 0 => Err(no_text(inputs, &all.skipped)),
            None => Ok(all),
        }
    }

    fn push(&mut self, text: &str, last: bool, tokenizer: &Tokenizer) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        // Ids fit: the vocabulary was checked.
        self.tokens.extend(tokenizer.encode(text)?.into_iter().map(|id| id as u16));
        self.bytes += text.len() as u64;
        if last {
            self.tokens.push(tokenizer.end_of_text() as u16);
            self.documents += 1;
        }
        Ok(())
    }
}

struct ReadError(Error);

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self(Error::failed(format!("the text cannot be read: {error}; evaluate it again")))
    }
}

fn no_text(inputs: &[PathBuf], skipped: &[Skip]) -> Error {
    let inputs: Vec<String> = inputs.iter().map(|input| input.display().to_string()).collect();
    let reasons: String =
        skipped.iter().take(3).map(|skip| format!("; {}: {}", skip.path.display(), skip.reason)).collect();
    Error::input(format!(
        "no text found in {}: expected a folder that `trainer prepare` wrote, token shards (.bin), or text (.py, .txt, \
         .md, .jsonl, .parquet; a file that is named itself may have any name){reasons}",
        inputs.join(", ")
    ))
}

/// Bytes of the text that tokens 1 to `scored` of `dataset` stand for; end-of-text tokens are none. Exact for the
/// built-in tokenizers; one from a file is asked for whole documents, and forgets what its normaliser changed.
///
/// # Errors
/// A range past the end, or ids that a tokenizer from a file cannot decode.
pub fn decoded_bytes(dataset: &Dataset, tokenizer: &Tokenizer, scored: u64) -> Result<u64> {
    let end = tokenizer.end_of_text();
    let (mut bytes, mut at) = (0, 1);
    while at <= scored {
        let mut tokens = vec![0u16; (scored + 1 - at).min(PIECE as u64) as usize];
        dataset.read(at, &mut tokens)?;
        at += tokens.len() as u64;
        let ids: Vec<u32> = tokens.into_iter().map(u32::from).collect();
        for document in ids.split(|id| *id == end) {
            bytes += tokenizer.decode_bytes(document)?.len() as u64;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn bytes_of_text_and_of_its_tokens_agree() {
        let text = "def f(x):\n        return x  # été 東京 🚀\n\t\t\t<|endoftext|>é";
        for tokenizer in [Tokenizer::codegen(), Tokenizer::bytes()] {
            let tokenised = TokenisedText::of(text, &tokenizer).unwrap();
            let first = tokenizer.decode_bytes(&[u32::from(tokenised.tokens[0])]).unwrap().len();
            let scored = tokenised.tokens.len() as u64 - 1;
            let dataset = Dataset::from_tokens(tokenised.tokens, None).unwrap();
            // An end of text within the text is none of its bytes.
            let inner = "<|endoftext|>".len();
            assert_eq!(decoded_bytes(&dataset, &tokenizer, scored).unwrap(), (text.len() - inner - first) as u64);
            assert_eq!(decoded_bytes(&dataset, &tokenizer, 0).unwrap(), 0);
            assert_eq!((tokenised.bytes, tokenised.documents), (text.len() as u64, 1));
        }
    }

    #[test]
    fn files_become_what_prepare_makes_of_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.py"), "ab").unwrap();
        fs::write(dir.path().join("b.jsonl"), "{\"text\": \"c\"}\nbad\n").unwrap();
        fs::write(dir.path().join("c.txt"), "").unwrap();
        fs::write(dir.path().join("odd.bin"), b"\xff").unwrap();
        let bytes = Tokenizer::bytes();
        let all = TokenisedText::of_files(&[dir.path().to_path_buf()], &bytes).unwrap();
        assert_eq!(all.tokens, [97, 98, 256, 99, 256]);
        assert_eq!((all.documents, all.bytes, all.skipped.len()), (2, 3, 1));
        for name in ["c.txt", "odd.bin"] {
            let error = TokenisedText::of_files(&[dir.path().join(name)], &bytes).err().unwrap();
            assert!(error.to_string().contains("no text found") && error.exit_code() == 2, "{error}");
        }
        assert!(TokenisedText::of_files(&[dir.path().join("missing")], &bytes).is_err());
    }
}
