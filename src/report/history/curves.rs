//! Metrics by column.

use serde::Serialize;

use crate::report::metrics::{Record, StepRecord};

/// A run's steps and validations, column by column; all step columns have the same length. Numbers that are not finite are
/// null in JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Curves {
    pub step: Vec<u64>,
    pub loss: Vec<f32>,
    pub lr: Vec<f32>,
    pub grad_norm: Vec<f32>,
    pub loss_scale: Vec<f32>,
    pub skipped: Vec<bool>,
    pub tokens: Vec<u64>,
    pub tokens_per_s: Vec<f32>,
    /// Null where unknown.
    pub mfu: Vec<f32>,
    /// Seconds of training since the run began.
    pub seconds: Vec<f32>,
    /// Bytes, as last looked at; null before.
    pub memory: Vec<f32>,
    /// Share of exchanges between ranks; null where there are none.
    pub communication: Vec<f32>,
    pub validation: ValidationCurve,
}

/// Losses by step, and where those steps are on the other axes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ValidationCurve {
    pub step: Vec<u64>,
    pub loss: Vec<f32>,
    pub tokens: Vec<u64>,
    pub seconds: Vec<f32>,
}

impl Curves {
    /// Of records in the file's order. Where a step occurs twice (a file that was put together, or of a run that went on
    /// elsewhere), what was written later counts, as it does when a run is resumed.
    pub fn new(records: &[Record]) -> Self {
        let mut curves = Self::default();
        for record in records {
            match record {
                Record::Step(record) => {
                    curves.forget_from(record.step);
                    curves.push(record);
                }
                Record::Validation(record) => {
                    let validation = &mut curves.validation;
                    truncate_sorted(&mut validation.step, record.step);
                    let kept = validation.step.len();
                    validation.loss.truncate(kept);
                    validation.tokens.truncate(kept);
                    validation.seconds.truncate(kept);
                    validation.step.push(record.step);
                    validation.loss.push(record.val_loss as f32);
                    let at = curves.step.binary_search(&record.step).ok();
                    validation.tokens.push(at.map_or(0, |at| curves.tokens[at]));
                    validation.seconds.push(at.map_or(0.0, |at| curves.seconds[at]));
                }
            }
        }
        curves
    }

    fn push(&mut self, record: &StepRecord) {
        self.step.push(record.step);
        self.loss.push(record.loss as f32);
        self.lr.push(record.lr as f32);
        self.grad_norm.push(record.grad_norm as f32);
        self.loss_scale.push(record.loss_scale as f32);
        self.skipped.push(record.skipped);
        self.tokens.push(record.tokens);
        self.tokens_per_s.push(record.tokens_per_s as f32);
        self.mfu.push(record.mfu.map_or(f32::NAN, |mfu| mfu as f32));
        self.seconds.push(record.seconds as f32);
        let last = self.memory.last().copied().unwrap_or(f32::NAN);
        self.memory.push(record.memory.map_or(last, |bytes| bytes as f32));
        self.communication.push(record.communication.map_or(f32::NAN, |share| share as f32));
    }

    /// Drops this step and later ones, and the validations after later ones.
    fn forget_from(&mut self, step: u64) {
        if self.step.last().is_none_or(|last| *last < step) {
            return;
        }
        truncate_sorted(&mut self.step, step);
        self.cut(self.step.len());
        let validation = &mut self.validation;
        truncate_sorted(&mut validation.step, step);
        validation.loss.truncate(validation.step.len());
        validation.tokens.truncate(validation.step.len());
        validation.seconds.truncate(validation.step.len());
    }

    fn cut(&mut self, kept: usize) {
        self.each_column(|column| column.truncate(kept));
        self.step.truncate(kept);
        self.skipped.truncate(kept);
        self.tokens.truncate(kept);
    }

    /// The same work on each column of numbers that are not counts.
    fn each_column(&mut self, mut work: impl FnMut(&mut Vec<f32>)) {
        let columns = [
            &mut self.loss,
            &mut self.lr,
            &mut self.grad_norm,
            &mut self.loss_scale,
            &mut self.tokens_per_s,
            &mut self.mfu,
            &mut self.seconds,
            &mut self.memory,
            &mut self.communication,
        ];
        columns.into_iter().for_each(&mut work);
    }

    /// Keeps the rows at these indices, in ascending order.
    pub(super) fn keep(&mut self, rows: &[usize]) {
        self.each_column(|column| *column = rows.iter().map(|row| column[*row]).collect());
        self.step = rows.iter().map(|row| self.step[*row]).collect();
        self.skipped = rows.iter().map(|row| self.skipped[*row]).collect();
        self.tokens = rows.iter().map(|row| self.tokens[*row]).collect();
    }
}

/// Drops what is `from` or more.
fn truncate_sorted(values: &mut Vec<u64>, from: u64) {
    values.truncate(values.partition_point(|value| *value < from));
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::report::metrics::ValidationRecord;

    pub fn step(step: u64, loss: f64) -> Record {
        Record::Step(StepRecord {
            step,
            loss,
            lr: 1e-3,
            grad_norm: 0.5,
            loss_scale: 1.0,
            skipped: loss.is_nan(),
            tokens: 100 * step,
            tokens_per_s: 50.0,
            mfu: None,
            seconds: 2.0 * step as f64,
            memory: (step == 2).then_some(1 << 20),
            communication: None,
            exposed: None,
        })
    }

    fn validation(step: u64, val_loss: f64) -> Record {
        Record::Validation(ValidationRecord { step, val_loss, pass_at_1: None })
    }

    #[test]
    fn what_was_written_later_counts() {
        let records = [
            step(1, 5.0),
            step(2, 4.0),
            validation(2, 4.5),
            step(3, 3.0),
            step(4, 2.0),
            validation(4, 2.5),
            step(3, 3.5),
            step(4, f64::NAN),
            validation(4, 2.25),
            validation(4, 2.0),
        ];
        let curves = Curves::new(&records);
        assert_eq!(curves.step, [1, 2, 3, 4]);
        assert_eq!(curves.loss[..3], [5.0, 4.0, 3.5]);
        assert!(curves.loss[3].is_nan());
        assert_eq!(curves.skipped, [false, false, false, true]);
        let expected =
            ValidationCurve { step: vec![2, 4], loss: vec![4.5, 2.0], tokens: vec![200, 400], seconds: vec![4.0, 8.0] };
        assert_eq!(curves.validation, expected);
        // What was looked at last holds until the next look; steps that are written again forget it.
        assert!(curves.memory[0].is_nan());
        assert_eq!(curves.memory[1..], [1048576.0; 3]);
        let json = serde_json::to_value(&curves).unwrap();
        assert!(json["loss"][3].is_null() && json["mfu"][0].is_null(), "{json}");
    }
}
