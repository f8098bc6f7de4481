//! One training step, from batch to update.

use burn_tensor::{DType, Tensor};
use trainer_backends::DecoderBackend;
use trainer_backends::dropout::Dropout;
use trainer_backends::ops::{AdamWBuffers, AdamWStep};

use super::loss_scale::Overflow;
use super::schedule::learning_rate;
use super::state::TrainState;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::weights::download_one;
use crate::model::{Buffers, Decoder, MicroBatchDropout};
use crate::parallel::{Replica, reduce, session};

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Mean over the step's tokens, nats.
    pub loss: f64,
    pub lr: f64,
    /// Global L2 norm of the unscaled gradient, before clipping.
    pub grad_norm: f64,
    /// The loss scale that the step ran with; 1 where there is none.
    pub loss_scale: f64,
    /// What the overflow did to the scale, if the gradients overflowed and the update was skipped.
    pub overflow: Option<Overflow>,
}

/// Fills the inputs and targets of one micro-batch, `[micro_batch, T]` each.
pub trait Batches {
    /// `position` counts sequences since the first step.
    fn fill(&self, position: u64, inputs: &mut [i32], targets: &mut [i32]) -> Result<()>;
}

/// Makes step `state.step + 1`: forward and backward over the micro-batches, unscaling, clipping, AdamW.
///
/// # Errors
/// `Error::Failed` where the loss or a gradient is not finite in fp32 or bf16, or in fp16 with the loss scale at its
/// floor. The weights are then those of the step before.
pub fn training_step<B: DecoderBackend>(
    decoder: &Decoder<B>,
    state: &mut TrainState<B>,
    config: &Config,
    batches: &impl Batches,
) -> Result<StepReport> {
    replica_step(decoder, state, config, batches, &Replica::alone(&decoder.table))
}

/// One rank's part of a step that all ranks make together: as `training_step`, and every rank gets the same report.
pub fn replica_step<B: DecoderBackend>(
    decoder: &Decoder<B>,
    state: &mut TrainState<B>,
    config: &Config,
    batches: &impl Batches,
    replica: &Replica,
) -> Result<StepReport> {
    let step = state.step + 1;
    let (batch, seq) = (config.train.batch, config.model.seq_len);
    let loss_scale = state.loss_scale.map_or(1.0, |scale| scale.scale);
    let lr = learning_rate(step, config);

    // The gradient of the mean over all the step's tokens: each micro-batch adds its share of the sum.
    let seed = (loss_scale / (batch * seq) as f64) as f32;
    let loss = accumulate(decoder, state, config, batches, replica, seed)?;

    let factor = |loss: &Tensor<B, 1>, squares: &Tensor<B, 1>| {
        B::grad_factor(loss, squares, loss_scale as f32, config.optimizer.clip as f32)
    };
    let adamw = adamw_step(config, lr, state.updates);
    let scalars = if replica.is_alone() {
        // The update decides on the device whether it happens, and by how much: it is queued before anything is waited for.
        let squares = sum_of_squares(&state.grads);
        let factor = factor(&loss, &squares);
        let grads = std::mem::take(&mut state.grads);
        update(decoder, state, &grads, &factor, adamw);
        state.grads = grads;
        state.grads.iter_mut().for_each(B::clear);
        // Loss and norm come to the host together: the only wait of the step.
        download_one(&Tensor::cat(vec![loss, squares], 0))
    } else {
        let grads = reduce::gradients(decoder, &mut state.grads, replica);
        let scalars = reduce::scalars(loss, sum_of_squares(&grads), replica);
        let [loss, squares] = scalars.map(|scalar| Tensor::from_data([scalar], (&decoder.device, DType::F32)));
        let factor = factor(&loss, &squares);
        if scalars.iter().all(|scalar| scalar.is_finite()) {
            match replica.zero {
                0 => update(decoder, state, &grads, &factor, adamw),
                _ => reduce::update_own_parts(decoder, state, &grads, &factor, adamw, replica),
            }
        }
        scalars.to_vec()
    };
    let loss = f64::from(scalars[0]) / (batch * seq) as f64;
    let grad_norm = f64::from(scalars[1]).sqrt() / loss_scale;

    let finite = grad_norm.is_finite() && loss.is_finite();
    let overflow = if finite { None } else { Some(overflowed(state, step, loss).map_err(session::shared)?) };
    if finite {
        state.updates += 1;
        state.loss_scale.iter_mut().for_each(|scale| scale.clean());
    }
    state.step = step;
    Ok(StepReport { loss, lr, grad_norm, loss_scale, overflow })
}

/// Forward and backward over this rank's micro-batches. Returns the loss, summed over their tokens; the gradients are in
/// `state.grads`.
fn accumulate<B: DecoderBackend>(
    decoder: &Decoder<B>,
    state: &mut TrainState<B>,
    config: &Config,
    batches: &impl Batches,
    replica: &Replica,
    seed: f32,
) -> Result<Tensor<B, 1>> {
    let step = state.step + 1;
    let (batch, micro_batch, seq) = (config.train.batch, config.train.micro_batch, config.model.seq_len);
    let mut loss = Tensor::zeros([1], (&decoder.device, DType::F32));
    let (mut inputs, mut targets) = (vec![0; micro_batch * seq], vec![0; micro_batch * seq]);
    for first_sequence in replica.sequences(batch).step_by(micro_batch) {
        batches.fill((step - 1) * batch as u64 + first_sequence as u64, &mut inputs, &mut targets)?;
        let dropout = micro_batch_dropout(config, step, first_sequence);
        let micro = (&inputs[..], &targets[..]);
        let weights = &state.weights;
        loss = loss
            + match replica.zero {
                2 => {
                    let mut grads = reduce::Scattered::new(decoder, replica, &mut state.grads);
                    decoder.forward_backward(weights, &mut grads, micro, micro_batch, dropout, seed)
                }
                _ => decoder.forward_backward(weights, &mut state.grads, micro, micro_batch, dropout, seed),
            };
    }
    Ok(loss)
}

#[expect(clippy::expect_used, reason = "a decoder has at least three groups of parameters")]
fn sum_of_squares<B: DecoderBackend>(grads: &Buffers<B>) -> Tensor<B, 1> {
    grads.iter().map(B::sum_of_squares).reduce(|a, b| a + b).expect("a decoder has parameters")
}

/// The dropout of the micro-batch that starts at `first_sequence` of the step's global batch.
fn micro_batch_dropout(config: &Config, step: u64, first_sequence: usize) -> MicroBatchDropout {
    let dropout = |rate| Dropout::new(rate, config.train.seed, step, first_sequence);
    MicroBatchDropout {
        embedding: dropout(config.model.embedding_dropout),
        attention: dropout(config.model.attention_dropout),
        residual: dropout(config.model.residual_dropout),
    }
}

fn overflowed<B: DecoderBackend>(state: &mut TrainState<B>, step: u64, loss: f64) -> Result<Overflow> {
    let what = if loss.is_finite() { "a gradient" } else { "the loss" };
    match &mut state.loss_scale {
        None => Err(Error::failed(format!(
            "step {step}: {what} is not a finite number; lower optimizer.lr or look at the data of this step, and resume \
             from the last checkpoint"
        ))),
        Some(scale) => match scale.overflowed() {
            Overflow::AtFloor => Err(Error::failed(format!(
                "step {step}: {what} is not finite in fp16 although the loss scale is down at 1; lower optimizer.lr, or \
                 train with train.precision=bf16 or fp32, and resume from the last checkpoint"
            ))),
            forgiven_or_halved => Ok(forgiven_or_halved),
        },
    }
}

/// The update after `updates` others.
fn adamw_step(config: &Config, lr: f64, updates: u64) -> AdamWStep {
    let o = &config.optimizer;
    AdamWStep {
        lr: lr as f32,
        beta1: o.beta1 as f32,
        beta2: o.beta2 as f32,
        eps: o.eps as f32,
        weight_decay: o.weight_decay as f32,
        // Counted once it is known to have happened.
        update: updates + 1,
    }
}

/// AdamW on every group.
fn update<B: DecoderBackend>(
    decoder: &Decoder<B>,
    state: &mut TrainState<B>,
    grads: &Buffers<B>,
    factor: &Tensor<B, 1>,
    step: AdamWStep,
) {
    // Owned alone, so that each group's buffers are written in place.
    let weights = std::mem::take(&mut state.weights);
    let m = std::mem::take(&mut state.m);
    let v = std::mem::take(&mut state.v);
    let mut masters = state.master.as_mut().map(std::mem::take).map(Vec::into_iter);
    for ((((weights, m), v), grads), group) in weights.into_iter().zip(m).zip(v).zip(grads).zip(&decoder.table.groups) {
        let master = masters.as_mut().and_then(Iterator::next);
        let updated = B::adamw(AdamWBuffers { weights, master, m, v }, grads, factor, group.decay_len, step);
        state.weights.push(updated.weights);
        state.m.push(updated.m);
        state.v.push(updated.v);
        if let (Some(masters), Some(master)) = (&mut state.master, updated.master) {
            masters.push(master);
        }
    }
}
