//! Which sequences of a step, and which part of the training state, are one rank's.
//!
//! Every flat group buffer (src/model/table.rs) is divided into as many contiguous parts as there are ranks, at multiples
//! of 256 elements, as slots are. Stages, after "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models"
//! (Rajbhandari et al., 2020):
//!
//! | stage | a rank keeps of master weights, m, v | of gradients | weights |
//! |---|---|---|---|
//! | 0 | all | all | all |
//! | 1 | its parts | all | all |
//! | 2 | its parts | its parts, and one whole group for a moment | all |

use std::ops::Range;
use std::sync::Arc;

use super::collective::{Alone, Collective};
use super::courier::Courier;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::ParameterTable;

/// Parts begin at multiples of this many elements: as kernels want slots, and whole words of fp16.
const ALIGN: usize = 256;

/// One rank's share of a run.
pub struct Replica {
    pub group: Arc<dyn Collective>,
    /// 0, 1 or 2; 0 where the rank is alone.
    pub zero: u8,
    /// By parameter group, each rank's part.
    parts: Vec<Arc<[Range<usize>]>>,
    pub courier: Courier,
}

impl Replica {
    /// All of it on one device.
    pub fn alone(table: &ParameterTable) -> Self {
        let parts = table.groups.iter().map(|group| vec![0..group.len].into()).collect();
        let group = Arc::new(Alone);
        Self { courier: Courier::new(group.clone(), false), group, zero: 0, parts }
    }

    /// This rank's share of a configuration. `overlap`: exchanges are made in a thread beside the training.
    ///
    /// # Errors
    /// A batch that does not divide over the ranks; a model that is too small or too large for them.
    pub fn new(group: Arc<dyn Collective>, config: &Config, table: &ParameterTable, overlap: bool) -> Result<Self> {
        let size = group.size();
        if size == 1 && group.on_device().is_none() {
            return Ok(Self::alone(table));
        }
        check_batch(config, size)?;
        let smallest = table.groups.iter().map(|group| group.len / ALIGN).min().unwrap_or(0);
        if smallest < size {
            return Err(Error::input(format!(
                "a parameter group of this model has {} elements, too few to divide among {size} ranks: start at most \
                 {smallest} ranks, or train a larger model",
                smallest * ALIGN
            )));
        }
        let counted = group.on_device().is_none();
        let too_large = |group: &&crate::model::table::Group| counted && group.len * size.min(2) > i32::MAX as usize;
        if let Some(group) = table.groups.iter().find(too_large) {
            return Err(Error::input(format!(
                "a parameter group of this model has {} elements, more than MPI counts in one exchange ({}): choose a \
                 smaller vocabulary or hidden size",
                group.len,
                i32::MAX / 2
            )));
        }
        let parts = table.groups.iter().map(|group| divide(group.len, size)).collect();
        Ok(Self { courier: Courier::new(group.clone(), overlap), group, zero: config.train.zero, parts })
    }

    /// Whether there is nothing to exchange, and no engine to try.
    pub fn is_alone(&self) -> bool {
        self.group.size() == 1 && self.group.on_device().is_none()
    }

    pub fn is_first(&self) -> bool {
        self.group.rank() == 0
    }

    /// Each rank's part of a parameter group.
    pub fn parts(&self, group: usize) -> &Arc<[Range<usize>]> {
        &self.parts[group]
    }

    /// This rank's part of a parameter group.
    pub fn own(&self, group: usize) -> Range<usize> {
        self.parts[group][self.group.rank()].clone()
    }

    /// What of a parameter group's master weights and moments is in this rank's memory.
    pub fn kept(&self, group: usize) -> Range<usize> {
        match self.zero {
            0 => 0..self.parts[group].last().map_or(0, |part| part.end),
            _ => self.own(group),
        }
    }

    /// This rank's sequences of a step's global batch: its own run of whole micro-batches.
    pub fn sequences(&self, batch: usize) -> Range<usize> {
        let own = batch / self.group.size();
        self.group.rank() * own..(self.group.rank() + 1) * own
    }
}

/// `len` elements, a multiple of `ALIGN`, in `size` parts whose lengths differ by `ALIGN` at most.
fn divide(len: usize, size: usize) -> Arc<[Range<usize>]> {
    let units = len / ALIGN;
    (0..size).map(|rank| rank * units / size * ALIGN..(rank + 1) * units / size * ALIGN).collect()
}

fn check_batch(config: &Config, ranks: usize) -> Result<()> {
    let (batch, micro_batch) = (config.train.batch, config.train.micro_batch);
    if batch.is_multiple_of(micro_batch * ranks) {
        return Ok(());
    }
    let fitting = (1..=micro_batch).rev().find(|smaller| batch.is_multiple_of(smaller * ranks));
    let choice = match fitting {
        Some(smaller) => format!("train.micro_batch {smaller}"),
        None => format!("another number of ranks, which must divide {batch}"),
    };
    let next = batch.next_multiple_of(micro_batch * ranks);
    Err(Error::input(format!(
        "train.batch {batch} is not a multiple of train.micro_batch {micro_batch} x {ranks} ranks: choose {choice}, or \
         train.batch {next}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::hosted::tests::on_ranks;

    fn demo(sets: &[&str]) -> Config {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        Config::resolve(Some("demo"), None, &sets).unwrap()
    }

    #[test]
    fn parts_cover_every_group_and_sequences_every_batch() {
        let config = demo(&["train.micro_batch=2", "train.batch=12"]);
        let table = ParameterTable::new(&config.architecture());
        let found = on_ranks(3, |group| {
            let replica = Replica::new(group, &config, &table, true).unwrap();
            let own: Vec<_> = (0..table.groups.len()).map(|group| replica.own(group)).collect();
            (own, replica.sequences(12), replica.kept(0) == replica.own(0))
        });
        for (index, group) in table.groups.iter().enumerate() {
            let parts: Vec<_> = found.iter().map(|(own, ..)| own[index].clone()).collect();
            assert_eq!((parts[0].start, parts[2].end), (0, group.len));
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(parts.iter().all(|part| part.start % ALIGN == 0 && part.len().abs_diff(group.len / 3) <= ALIGN));
        }
        let sequences: Vec<_> = found.iter().map(|(_, sequences, _)| sequences.clone()).collect();
        assert_eq!(sequences, [0..4, 4..8, 8..12]);
        assert!(found.iter().all(|(.., sharded)| *sharded));
    }

    #[test]
    fn what_does_not_divide_is_refused() {
        let message = check_batch(&demo(&["train.micro_batch=8"]), 3).unwrap_err().to_string();
        assert!(message.contains("16 is not a multiple of train.micro_batch 8 x 3 ranks"), "{message}");
        assert!(message.contains("must divide 16, or train.batch 24"), "{message}");
        let message = check_batch(&demo(&[]), 2).unwrap_err().to_string();
        assert!(message.contains("choose train.micro_batch 8"), "{message}");
    }
}
