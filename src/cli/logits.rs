//! `trainer logits`

use indicatif::{ProgressBar, ProgressStyle};
use trainer_backends::DecoderBackend;
use trainer_backends::discovery::Choice;

use super::args::{Global, LogitsArgs};
use super::backend::{Task, with_backend};
use super::model::HostModel;
use super::print;
use crate::breakdown;
use crate::checkpoint::element::encode_f32;
use crate::checkpoint::tensor_file::{check_replaceable, replace_tensor_file};
use crate::checkpoint::{Dtype, TensorEntry};
use crate::data::dataset::{Dataset, Split};
use crate::error::{Error, Result};
use crate::model::weights::download_one;

/// Sequences a forward pass.
const BATCH: usize = 4;

pub fn run(args: &LogitsArgs, global: &Global) -> Result<()> {
    check_replaceable(&args.out)?;
    let model = HostModel::load(&args.model)?;
    let dataset = Dataset::open(&args.tokens, Split::Val)?;
    dataset.verify()?;
    dataset.check_vocab_of_trained(model.arch.vocab)?;
    let sequences = dataset.tokens() as usize / args.seq_len;
    if sequences == 0 {
        let what = format!("holds {} tokens, fewer than one sequence of {}", dataset.tokens(), args.seq_len);
        return Err(Error::file(&args.tokens, what));
    }
    let vocab = model.arch.vocab;
    with_backend(global, Logits { args, model, dataset: &dataset, sequences })?;
    print(&format!("{}: logits of {sequences} x {} tokens x {vocab}\n", args.out.display(), args.seq_len))
}

/// Writes logits as they are computed: those of a validation part fit no memory.
struct Logits<'a> {
    args: &'a LogitsArgs,
    model: HostModel,
    dataset: &'a Dataset,
    sequences: usize,
}

impl Task for Logits<'_> {
    type Output = ();

    fn run<B: DecoderBackend>(self, device: &B::Device, _: &Choice) -> Result<()> {
        let (seq, sequences, vocab) = (self.args.seq_len, self.sequences, self.model.arch.vocab);
        let (decoder, weights) = self.model.upload::<B>(device, seq)?;
        let bar = ProgressBar::new(sequences as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} sequences, eta {eta}") {
            bar.set_style(style);
        }
        let logits = TensorEntry::in_parts("logits", Dtype::F32, vec![sequences, seq, vocab], |sink| {
            for first in (0..sequences).step_by(BATCH) {
                let rows = BATCH.min(sequences - first);
                let mut tokens = vec![0u16; rows * seq];
                self.dataset.read((first * seq) as u64, &mut tokens)?;
                let inputs: Vec<i32> = tokens.into_iter().map(i32::from).collect();
                let logits = download_one(&decoder.logits(&weights, &inputs, rows));
                breakdown::check()?;
                sink(&encode_f32(&logits, Dtype::F32)?)?;
                bar.inc(rows as u64);
            }
            Ok(())
        });
        let written = replace_tensor_file(&self.args.out, vec![logits]);
        bar.finish_and_clear();
        written
    }
}
