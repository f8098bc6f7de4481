//! What a run's own files say of how a checkpoint of it came to be: for the model card.

use std::path::Path;

use super::run::{CONFIG, stored_config};
use super::save::LoopState;
use crate::checkpoint::hugging_face::Facts;
use crate::config::Config;
use crate::data::dataset::{Dataset, Split};
use crate::data::manifest::Manifest;
use crate::report::metrics::{self, Record};
use crate::report::progress::duration;
use crate::report::table::thousands;

/// Steps whose losses are averaged: a single step's is noisy.
const LAST_STEPS: usize = 100;

/// The training of a checkpoint, and the data that it was trained on. What cannot be read is left out.
pub fn of_checkpoint(checkpoint: &Path) -> (Facts, Facts) {
    let Ok(state) = LoopState::read(checkpoint) else { return (Facts::new(), Facts::new()) };
    let run_dir = checkpoint.join("..").join("..");
    let config = run_dir.join(CONFIG).is_file().then(|| stored_config(&run_dir, &[]).ok()).flatten();
    let data = config.as_ref().and_then(|config| prepared(&config.data.path, &state));
    let mut training = steps(&state, config.as_ref(), data.as_ref());
    training.extend(losses(&run_dir, &state));
    training.extend(config.as_ref().map(recipe).unwrap_or_default());
    training.push(("time", duration(state.seconds)));
    training.push(("program", format!("trainer {}", state.version)));
    (training, data.as_ref().map(described).unwrap_or_default())
}

fn steps(state: &LoopState, config: Option<&Config>, data: Option<&Manifest>) -> Facts {
    let mut made = thousands(state.step);
    if let Some(config) = config {
        made += &format!(" of {}", thousands(config.train.steps));
    }
    if state.updates < state.step {
        made += &format!(", {} of them skipped since gradients overflowed", thousands(state.step - state.updates));
    }
    let mut seen = thousands(state.tokens);
    if let Some(tokens) = data.map(|data| data.train.tokens).filter(|tokens| *tokens > 0) {
        seen += &format!(", {:.2} epochs", state.tokens as f64 / tokens as f64);
    }
    vec![("steps", made), ("tokens seen", seen)]
}

/// Mean training loss of the last steps, the last validation, and the best one.
fn losses(run_dir: &Path, state: &LoopState) -> Facts {
    let mut facts = Facts::new();
    let records = metrics::read(&run_dir.join(metrics::FILE_NAME)).unwrap_or_default();
    let before = || records.iter().rev().filter(|record| record.step() <= state.step);
    let last: Vec<f64> = before()
        .filter_map(|record| match record {
            Record::Step(step) => Some(step.loss),
            Record::Validation(_) => None,
        })
        .take(LAST_STEPS)
        .collect();
    if !last.is_empty() {
        let mean = last.iter().sum::<f64>() / last.len() as f64;
        facts.push(("training loss", format!("{mean:.4} nats per token, the mean of the last {} steps", last.len())));
    }
    let validation = before().find_map(|record| match record {
        Record::Validation(validation) => Some(validation),
        Record::Step(_) => None,
    });
    if let Some(validation) = validation {
        let (loss, step) = (validation.val_loss, thousands(validation.step));
        facts.push(("validation loss", format!("{loss:.4} nats per token after step {step}")));
    }
    if let Some(best) = state.best {
        let (loss, step) = (best.val_loss, thousands(best.step));
        let solved = best
            .pass_at_1
            .map_or_else(String::new, |share| format!(", with {:.1}% of the problems solved", 100.0 * share));
        facts.push(("best checkpoint", format!("step {step}: validation loss {loss:.4} nats per token{solved}")));
    }
    facts
}

fn recipe(config: &Config) -> Facts {
    let (train, optimizer, model) = (&config.train, &config.optimizer, &config.model);
    let batch = format!("{} sequences of {} tokens", thousands(train.batch as u64), thousands(model.seq_len as u64));
    let adamw = format!(
        "AdamW, betas {} and {}, eps {:e}, weight decay {} on matrices, gradients clipped at norm {}",
        optimizer.beta1, optimizer.beta2, optimizer.eps, optimizer.weight_decay, optimizer.clip
    );
    let schedule = format!(
        "{:e} after {} steps of linear warm-up, then linear to 0 at step {}",
        optimizer.lr,
        thousands(optimizer.warmup_steps),
        thousands(train.steps)
    );
    let dropout = format!(
        "attention {}, residual {}, embedding {}",
        model.attention_dropout, model.residual_dropout, model.embedding_dropout
    );
    vec![
        ("batch", batch),
        ("precision", train.precision.to_string()),
        ("optimizer", adamw),
        ("learning rate", schedule),
        ("dropout", dropout),
        ("seed", train.seed.to_string()),
    ]
}

/// The manifest of the data that the checkpoint was trained on, if it is still where the run found it.
fn prepared(path: &Path, state: &LoopState) -> Option<Manifest> {
    let same = format!("{:016x}", Dataset::open(path, Split::Train).ok()?.fingerprint()) == state.data;
    same.then(|| Manifest::read(path).ok().flatten()).flatten()
}

/// Names only: where the files lay is nobody else's business.
fn described(manifest: &Manifest) -> Facts {
    let name = |path: &str| Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
    let inputs: Vec<String> = manifest.options.inputs.iter().filter_map(|input| name(input)).collect();
    let mut facts = Facts::new();
    if !inputs.is_empty() {
        facts.push(("prepared from", inputs.join(", ")));
    }
    for (what, part) in [("training part", &manifest.train), ("validation part", &manifest.val)] {
        if part.tokens > 0 {
            let [documents, bytes, tokens] = [part.documents, part.bytes, part.tokens].map(thousands);
            facts.push((what, format!("{documents} documents, {bytes} bytes of text, {tokens} tokens")));
        }
    }
    let tokenizer = name(&manifest.tokenizer.name).unwrap_or_default();
    facts.push(("tokenizer", format!("{tokenizer}, {} ids", thousands(manifest.tokenizer.vocab_size as u64))));
    facts
}
