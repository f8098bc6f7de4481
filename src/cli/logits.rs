//! `trainer logits`

use trainer_backends::DecoderBackend;
use trainer_backends::discovery::Choice;

use super::args::{Global, LogitsArgs};
use super::backend::{Task, with_backend};
use super::model::HostModel;
use super::print;
use crate::checkpoint::TensorEntry;
use crate::checkpoint::tensor_file::write_tensor_file;
use crate::data::dataset::{Dataset, Split};
use crate::error::{Error, Result};
use crate::model::weights::download_one;

/// Sequences a forward pass.
const BATCH: usize = 4;

pub fn run(args: &LogitsArgs, global: &Global) -> Result<()> {
    let model = HostModel::load(&args.model)?;
    let dataset = Dataset::open(&args.tokens, Split::Val)?;
    dataset.verify()?;
    dataset.check_vocab(model.arch.vocab)?;
    let sequences = dataset.tokens() as usize / args.seq_len;
    if sequences == 0 {
        let what = format!("holds {} tokens, fewer than one sequence of {}", dataset.tokens(), args.seq_len);
        return Err(Error::file(&args.tokens, what));
    }
    let vocab = model.arch.vocab;
    let logits = with_backend(global, Logits { args, model, dataset: &dataset, sequences })?;
    let shape = vec![sequences, args.seq_len, vocab];
    write_tensor_file(&args.out, vec![TensorEntry::f32("logits", shape, &logits)], &[])?;
    print(&format!("{}: logits of {sequences} x {} tokens x {vocab}\n", args.out.display(), args.seq_len))
}

struct Logits<'a> {
    args: &'a LogitsArgs,
    model: HostModel,
    dataset: &'a Dataset,
    sequences: usize,
}

impl Task for Logits<'_> {
    type Output = Vec<f32>;

    fn run<B: DecoderBackend>(self, device: &B::Device, _: &Choice) -> Result<Vec<f32>> {
        let seq = self.args.seq_len;
        let (decoder, weights) = self.model.upload::<B>(device, seq)?;
        let mut all = Vec::new();
        for first in (0..self.sequences).step_by(BATCH) {
            let rows = BATCH.min(self.sequences - first);
            let mut tokens = vec![0u16; rows * seq];
            self.dataset.read((first * seq) as u64, &mut tokens)?;
            let inputs: Vec<i32> = tokens.into_iter().map(i32::from).collect();
            all.extend(download_one(&decoder.logits(&weights, &inputs, rows)));
        }
        Ok(all)
    }
}
