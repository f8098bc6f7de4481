//! The table at the start of a run.

use std::path::Path;

use trainer_backends::DecoderBackend;

use super::{DeviceFacts, Run};
use crate::model::memory::{Memory, Plan};
use crate::report::table::{Table, bytes, thousands};

impl<B: DecoderBackend> Run<'_, B> {
    /// The table at the start.
    pub(super) fn overview(&self, facts: &DeviceFacts, init_from: Option<&Path>) -> String {
        let config = &self.config;
        let arch = &self.decoder.arch;
        let ranks = self.replica.group.size();
        let plan = Plan { devices: ranks as u64, zero: self.replica.zero, ..Plan::new(config) };
        let memory = Memory::estimate(arch, &plan).total();
        let tokens = self.data.train.tokens();
        let epochs = config.train.steps as f64 * config.tokens_per_step() as f64 / tokens as f64;
        let start = match (self.state.step, init_from) {
            (0, None) => format!("random weights, seed {}", config.train.seed),
            (0, Some(model)) => format!("the weights of {}", model.display()),
            (step, _) => format!("the checkpoint of step {step}"),
        };
        let micro_batches = match config.accumulation() {
            1 => "one micro-batch".to_owned(),
            several => format!("{several} micro-batches"),
        };
        let mut table = Table::pairs();
        table
            .row(["device", &facts.description])
            .row([
                "model",
                &format!(
                    "{} layers, hidden {}, {} heads of {}, vocabulary {}: {:.2} M parameters",
                    arch.layers,
                    arch.hidden,
                    arch.heads,
                    arch.head_dim(),
                    arch.vocab,
                    arch.parameters() as f64 / 1e6
                ),
            ])
            .row([
                "batch",
                &format!(
                    "{} sequences of {} = {} tokens per step, in {} of {}",
                    config.train.batch,
                    config.model.seq_len,
                    config.tokens_per_step(),
                    micro_batches,
                    config.train.micro_batch
                ),
            ]);
        if ranks > 1 {
            let kept = [
                "keeps all state",
                "master weights and moments divided",
                "master weights, moments and gradients divided",
            ];
            table.row([
                "ranks",
                &format!("{ranks}, ZeRO stage {} ({})", self.replica.zero, kept[usize::from(self.replica.zero)]),
            ]);
        }
        table
            .row([
                "data",
                &format!("{} training tokens; {epochs:.2} epochs in {} steps", thousands(tokens), config.train.steps),
            ])
            .row([
                "recipe",
                &format!(
                    "{}, AdamW lr {:.1e}, {} warm-up steps, decay {}, clip {}, dropout {} / {}",
                    config.train.precision,
                    config.optimizer.lr,
                    config.optimizer.warmup_steps,
                    config.optimizer.weight_decay,
                    config.optimizer.clip,
                    config.model.attention_dropout,
                    config.model.residual_dropout
                ),
            ])
            .row(["memory", &format!("about {} for model, optimizer and activations", bytes(memory))])
            .row(["start", &start])
            .row(["run", &self.out.display().to_string()]);
        table.to_string()
    }
}
