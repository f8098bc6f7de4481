//! One training step, from batch to update.

use burn_tensor::{DType, Tensor};
use trainer_backends::DecoderBackend;
use trainer_backends::dropout::Dropout;
use trainer_backends::ops::{AdamWBuffers, AdamWStep};

use super::loss_scale::Overflow;
use super::schedule::learning_rate;
use super::spikes::Ceilings;
use super::state::TrainState;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::weights::download_one;
use crate::model::{Buffers, Decoder, GradientSink, MicroBatchDropout};
use crate::parallel::signs::Signs;
use crate::parallel::{Replica, reduce, session};
use crate::profile::{self, ops};

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
    /// Why the update was left out, if for another reason than an overflow.
    pub held_back: Option<HeldBack>,
    /// What the ranks have told each other.
    pub signs: Signs,
}

/// Why a step's update was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBack {
    /// The loss or the gradient norm exceeds its ceiling.
    Exceeded,
    /// The loss or a gradient is not a finite number, in fp32 or bf16.
    NotFinite,
    /// The same in fp16, with the loss scale at its floor.
    AtFloor,
}

impl HeldBack {
    /// For a run that does not go on from it.
    pub fn error(self, step: u64, loss: f64) -> Error {
        let what = if loss.is_finite() { "a gradient" } else { "the loss" };
        let again =
            "then go on from the last checkpoint (--resume) or, where there is none of before the trouble, begin again";
        Error::failed(match self {
            Self::Exceeded => format!(
                "step {step}: the loss or the gradient norm has leapt; lower optimizer.lr or look at the data of this step, {again}"
            ),
            Self::NotFinite => format!(
                "step {step}: {what} is not a finite number; lower optimizer.lr or look at the data of this step, {again}"
            ),
            Self::AtFloor => format!(
                "step {step}: {what} is not finite in fp16 although the loss scale is down at 1; lower optimizer.lr, or \
                 train with train.precision=bf16 or fp32, {again}"
            ),
        })
    }
}

/// What a step is watched for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    /// The update is left out where these are exceeded, or where a number is not finite; without them only an overflow of
    /// fp16 leaves it out, and other numbers that are not finite are an error.
    pub ceilings: Option<Ceilings>,
    /// What this rank has to tell the others.
    pub signs: Signs,
}

/// Ceilings as the device compares them.
#[derive(Clone, Copy)]
struct DeviceCeilings {
    /// Of the loss, summed over the step's tokens.
    loss: f32,
    /// Of the sum of squares of the scaled gradient.
    squares: f32,
}

impl DeviceCeilings {
    fn new(ceilings: Ceilings, tokens: usize, loss_scale: f64) -> Self {
        Self { loss: (ceilings.loss * tokens as f64) as f32, squares: (ceilings.grad_norm * loss_scale).powi(2) as f32 }
    }

    /// As `held_back` on the device.
    fn exceeded(&self, [loss, squares]: [f32; 2]) -> bool {
        loss > self.loss || squares > self.squares
    }

    /// `factor`, or zero where a number exceeds its ceiling.
    fn held_back<B: DecoderBackend>(
        &self,
        factor: Tensor<B, 1>,
        loss: &Tensor<B, 1>,
        squares: &Tensor<B, 1>,
    ) -> Tensor<B, 1> {
        let values = [(loss, self.loss), (squares, self.squares)];
        values
            .into_iter()
            .filter(|(_, ceiling)| ceiling.is_finite())
            .fold(factor, |factor, (value, ceiling)| factor.mask_fill(value.clone().greater_elem(ceiling), 0.0))
    }
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
    replica_step(decoder, state, config, batches, &Replica::alone(&decoder.table), Watch::default())
}

/// One rank's part of a step that all ranks make together: as `training_step`, and every rank gets the same report.
pub fn replica_step<B: DecoderBackend>(
    decoder: &Decoder<B>,
    state: &mut TrainState<B>,
    config: &Config,
    batches: &impl Batches,
    replica: &Replica,
    watch: Watch,
) -> Result<StepReport> {
    let step = state.step + 1;
    let (batch, seq) = (config.train.batch, config.model.seq_len);
    let loss_scale = state.loss_scale.map_or(1.0, |scale| scale.scale);
    let lr = learning_rate(step, config);

    // The gradient of the mean over all the step's tokens: each micro-batch adds its share of the sum.
    let seed = (loss_scale / (batch * seq) as f64) as f32;
    let (loss, grads) = accumulate(decoder, state, config, batches, replica, seed)?;

    let ceilings = watch.ceilings.map(|ceilings| DeviceCeilings::new(ceilings, batch * seq, loss_scale));
    let factor = |loss: &Tensor<B, 1>, squares: &Tensor<B, 1>| {
        let _span = ops::scalar("clipping factor");
        let factor = B::grad_factor(loss, squares, loss_scale as f32, config.optimizer.clip as f32);
        ceilings.map_or(factor.clone(), |ceilings| ceilings.held_back(factor, loss, squares))
    };
    let adamw = adamw_step(config, lr, state.updates);
    let mut signs = watch.signs;
    let scalars = if replica.is_alone() {
        drop(grads);
        // The update decides on the device whether it happens, and by how much: it is queued before anything is waited for.
        let squares = sum_of_squares(&state.grads);
        let factor = factor(&loss, &squares);
        let grads = std::mem::take(&mut state.grads);
        update(decoder, state, &grads, &factor, adamw);
        state.grads = grads;
        let span = ops::over_buffers("clear gradients", &state.grads, 1);
        state.grads.iter_mut().for_each(B::clear);
        drop(span);
        // Loss and norm come to the host together: the only wait of the step.
        let _span = profile::host("read loss and norm");
        let scalars = download_one(&Tensor::cat(vec![loss, squares], 0));
        [scalars[0], scalars[1]]
    } else {
        let scalars;
        (scalars, signs) = reduce::scalars(loss, sum_of_squares(&grads), signs, replica);
        let [loss, squares] = scalars.map(|scalar| Tensor::from_data([scalar], (&decoder.device, DType::F32)));
        let factor = factor(&loss, &squares);
        if scalars.iter().all(|scalar| scalar.is_finite()) && !ceilings.is_some_and(|own| own.exceeded(scalars)) {
            match replica.zero {
                0 => update(decoder, state, &grads, &factor, adamw),
                _ => reduce::update_own_parts(decoder, state, &grads, &factor, adamw, replica)?,
            }
        }
        // They may be those that are cleared.
        drop(grads);
        let span = ops::over_buffers("clear gradients", &state.grads, 1);
        state.grads.iter_mut().for_each(B::clear);
        drop(span);
        scalars
    };
    let loss = f64::from(scalars[0]) / (batch * seq) as f64;
    let grad_norm = f64::from(scalars[1]).sqrt() / loss_scale;

    let finite = grad_norm.is_finite() && loss.is_finite();
    let (mut overflow, mut held_back) = (None, None);
    if finite {
        held_back = ceilings.filter(|ceilings| ceilings.exceeded(scalars)).map(|_| HeldBack::Exceeded);
        state.updates += u64::from(held_back.is_none());
        state.loss_scale.iter_mut().for_each(|scale| scale.clean());
    } else {
        match overflowed(state) {
            Ok(how) => overflow = Some(how),
            Err(why) if ceilings.is_some() => held_back = Some(why),
            Err(why) => return Err(session::shared(why.error(step, loss))),
        }
    }
    state.step = step;
    Ok(StepReport { loss, lr, grad_norm, loss_scale, overflow, held_back, signs })
}

/// Forward and backward over this rank's micro-batches. Returns the loss, summed over their tokens, and the gradients that
/// this rank updates from: where it is alone they are in `state.grads`, else those of all ranks.
fn accumulate<B: DecoderBackend>(
    decoder: &Decoder<B>,
    state: &mut TrainState<B>,
    config: &Config,
    batches: &impl Batches,
    replica: &Replica,
    seed: f32,
) -> Result<(Tensor<B, 1>, Buffers<B>)> {
    let step = state.step + 1;
    let (batch, micro_batch, seq) = (config.train.batch, config.train.micro_batch, config.model.seq_len);
    let mut loss = Tensor::zeros([1], (&decoder.device, DType::F32));
    let (mut inputs, mut targets) = (vec![0; micro_batch * seq], vec![0; micro_batch * seq]);
    let mut micro_batch_into = |first_sequence: usize, grads: &mut dyn GradientSink<B>| -> Result<()> {
        let _span = profile::group(|| format!("micro-batch at sequence {first_sequence}"));
        let fill = profile::host("fill the batch");
        batches.fill((step - 1) * batch as u64 + first_sequence as u64, &mut inputs, &mut targets)?;
        drop(fill);
        let dropout = micro_batch_dropout(config, step, first_sequence);
        let micro = (&inputs[..], &targets[..]);
        let added = decoder.forward_backward(&state.weights, grads, micro, micro_batch, dropout, seed);
        let _sum = ops::scalar("sum the loss");
        loss = loss.clone() + added;
        Ok(())
    };
    let mut sequences: Vec<_> = replica.sequences(batch).step_by(micro_batch).collect();
    // What all micro-batches add to leaves with the last one's backward pass; at stage 2 each one's leaves by itself.
    let leaving = match (replica.is_alone(), replica.zero) {
        (true, _) => Vec::new(),
        (false, 2) => std::mem::take(&mut sequences),
        (false, _) => sequences.pop().into_iter().collect(),
    };
    for first_sequence in sequences {
        micro_batch_into(first_sequence, &mut state.grads)?;
    }
    if leaving.is_empty() {
        return Ok((loss, Vec::new()));
    }
    let mut sink = reduce::Leaving::new(decoder, replica, &mut state.grads);
    for first_sequence in leaving {
        micro_batch_into(first_sequence, &mut sink)?;
    }
    let grads = sink.arrived()?;
    Ok((loss, grads))
}

#[expect(clippy::expect_used, reason = "a decoder has at least three groups of parameters")]
fn sum_of_squares<B: DecoderBackend>(grads: &Buffers<B>) -> Tensor<B, 1> {
    let _span = ops::over_buffers("sum of squares", grads, 1);
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

fn overflowed<B: DecoderBackend>(state: &mut TrainState<B>) -> std::result::Result<Overflow, HeldBack> {
    match state.loss_scale.as_mut().map(|scale| scale.overflowed()) {
        None => Err(HeldBack::NotFinite),
        Some(Overflow::AtFloor) => Err(HeldBack::AtFloor),
        Some(forgiven_or_halved) => Ok(forgiven_or_halved),
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
        let updated = ops::adamw(AdamWBuffers { weights, master, m, v }, grads, factor, group.decay_len, step);
        state.weights.push(updated.weights);
        state.m.push(updated.m);
        state.v.push(updated.v);
        if let (Some(masters), Some(master)) = (&mut state.master, updated.master) {
            masters.push(master);
        }
    }
}
