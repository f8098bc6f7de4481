//! `trainer evaluate`

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use trainer_backends::DecoderBackend;
use trainer_backends::discovery::Choice;

use super::args::{EvaluateArgs, Global};
use super::backend::{Task, with_backend};
use super::model::HostModel;
use super::{print, print_json};
use crate::data::dataset::{Dataset, Split};
use crate::error::Result;
use crate::eval::loss::{Loss, mean_loss};

pub fn run(args: &EvaluateArgs, global: &Global) -> Result<()> {
    let model = HostModel::load(&args.model)?;
    let dataset = Dataset::open(&args.data, Split::Val)?;
    dataset.verify()?;
    dataset.check_vocab(model.arch.vocab)?;
    let Loss { nats, tokens } = with_backend(global, Evaluate { args, model, dataset: &dataset })?;
    let perplexity = nats.exp();
    if args.json {
        return print_json(&json!({ "loss": nats, "perplexity": perplexity, "tokens": tokens }));
    }
    print(&format!("loss {nats:.4} nats a token, perplexity {perplexity:.3}, over {tokens} tokens\n"))
}

struct Evaluate<'a> {
    args: &'a EvaluateArgs,
    model: HostModel,
    dataset: &'a Dataset,
}

impl Task for Evaluate<'_> {
    type Output = Loss;

    fn run<B: DecoderBackend>(self, device: &B::Device, _: &Choice) -> Result<Loss> {
        let Self { args, model, dataset } = self;
        let context = model.arch.context;
        // The default shortens itself where the data is shorter than the context.
        let longest = (dataset.tokens().saturating_sub(1)).max(1).min(context as u64) as usize;
        let seq = args.seq_len.unwrap_or(longest);
        let (decoder, weights) = model.upload::<B>(device, seq)?;
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} sequences, eta {eta}") {
            bar.set_style(style);
        }
        let loss =
            mean_loss(&decoder, &weights, dataset, (args.batch, seq), args.max_batches.unwrap_or(0), |done, all| {
                bar.set_length(all);
                bar.set_position(done);
            })?;
        bar.finish_and_clear();
        Ok(loss)
    }
}
