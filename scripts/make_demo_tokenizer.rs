//! Makes assets/demo-tokenizer.json: a byte-level BPE trained on the built-in exercises.
//!
//! Usage: cargo run --release --example make_demo_tokenizer > assets/demo-tokenizer.json
//!
//! The result depends on the generator alone. Rerun it when a family is added or reworded, and retune the demo preset after it:
//! the file decides the demo's vocabulary. Its figures go to stderr.

use std::error::Error;
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{AddedToken, SplitDelimiterBehavior, TokenizerBuilder};
use trainer::data::exercises::{Generator, corpus};

const VOCABULARY: usize = 1024;
const DOCUMENTS: u64 = 60_000;
const SEED: u64 = 0;

/// Line ends, indentation, words (a part of a name that begins with an underscore counts as one), single digits, and
/// runs of punctuation; a single space goes with what follows it. So a prompt that ends with a newline is cut
/// where the document that goes on after it is cut, and a number is spelled the same wherever it stands.
const PIECES: &str = r"\n+| {2,}| ?_?[A-Za-z]+| ?[0-9]| ?_+| ?[^\sA-Za-z0-9_]+|\s";

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let end_of_text = AddedToken::from("<|endoftext|>", true);
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(VOCABULARY)
        .special_tokens(vec![end_of_text])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .min_frequency(2)
        .show_progress(false)
        .build();
    let split = Split::new(SplitPattern::Regex(PIECES.to_string()), SplitDelimiterBehavior::Isolated, false)?;
    let bytes = ByteLevel::new(false, true, false);
    let mut tokenizer =
        TokenizerBuilder::<BPE, NormalizerWrapper, Sequence, PostProcessorWrapper, ByteLevelDecoder>::new()
            .with_model(BPE::default())
            .with_pre_tokenizer(Some(Sequence::new(vec![split.into(), bytes.into()])))
            .with_decoder(Some(ByteLevelDecoder::default()))
            .build()?;
    tokenizer.train(&mut trainer, corpus(SEED, DOCUMENTS))?;
    println!("{}", tokenizer.to_string(false)?);

    let sample: Vec<_> = (0..10_000).map(|index| Generator::new(SEED + 1).exercise(index)).collect();
    let mut lengths = Vec::with_capacity(sample.len());
    for exercise in &sample {
        let document = exercise.document();
        let ids = tokenizer.encode(document.as_str(), false)?;
        if tokenizer.decode(ids.get_ids(), true)? != document {
            return Err(format!("this document does not survive: {document}").into());
        }
        lengths.push(ids.len());
    }
    lengths.sort_unstable();
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
    let [median, most, longest] = [50, 95, 100].map(|percent| lengths[(lengths.len() - 1) * percent / 100]);
    eprintln!(
        "vocabulary {}; tokens a document: mean {mean:.1}, median {median}, 95% up to {most}, longest {longest}",
        tokenizer.get_vocab_size(true)
    );
    Ok(())
}
