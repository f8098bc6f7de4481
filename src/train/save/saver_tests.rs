use std::sync::Arc;

use burn_tensor::DType;

use super::super::snapshot::HostMemory;
use super::*;
use crate::checkpoint::{latest, layout, verify};
use crate::config::Config;
use crate::data::dataset::Dataset;
use crate::model::ParameterTable;
use crate::parallel::Collective;
use crate::parallel::hosted::tests::on_ranks;

/// Large enough that nobody writes and syncs it within a step's bookkeeping: 40 MB.
fn config() -> Config {
    let sets = ["model.vocab=4096", "model.hidden=256", "train.micro_batch=1", "train.batch=12"].map(str::to_owned);
    Config::resolve(Some("demo"), None, &sets).unwrap()
}

struct Rank {
    replica: Replica,
    table: ParameterTable,
    saver: Saver,
}

impl Rank {
    fn new(run: &Path, group: Arc<dyn Collective>) -> Self {
        let config = config();
        let arch = config.architecture();
        let table = ParameterTable::new(&arch);
        let replica = Replica::new(group, &config, &table, true).unwrap();
        let description = Description::new(&config, &arch, &table, None);
        let retention = Retention { last: 2, every: 0, hours: 0.0 };
        let saver = Saver::new(run, description, Share::new(&replica, &table), retention, 0);
        Self { replica, table, saver }
    }

    fn begin(&mut self, step: u64, broken: bool) -> Result<()> {
        // A broken one has half of what it should.
        let data = |len: usize| {
            let len = if broken { len / 2 } else { len };
            HostMemory::default().keep(bytemuck::cast_slice(&vec![step as f32; len]), DType::F32)
        };
        let whole = self.table.groups.iter().map(|group| data(group.len)).collect();
        let kept = || (0..self.table.groups.len()).map(|group| data(self.replica.kept(group).len())).collect();
        let snapshot = Snapshot { step, weights: whole, optimizer: vec![("m.", kept()), ("v.", kept())] };
        let state = LoopState { step, ..LoopState::new(&Dataset::from_tokens(vec![0; 1000], None).unwrap()) };
        self.saver.begin(snapshot, state, &self.replica)
    }

    /// As a step does: what every rank tells the others.
    fn told(&self) -> Signs {
        let mut counts = Signs::of(self.saver.sign()).counts();
        self.replica.group.sums(&mut counts);
        Signs::from_counts(&counts)
    }

    /// Makes steps until nothing is outstanding on any rank.
    fn steps(&mut self) -> Result<usize> {
        let mut steps = 0;
        loop {
            let signs = self.told();
            self.saver.poll(&signs, &self.replica)?;
            let mut outstanding = [f64::from(u8::from(self.saver.outstanding.is_some()))];
            self.replica.group.sums(&mut outstanding);
            if outstanding == [0.0] {
                return Ok(steps);
            }
            steps += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn steps_go_on_while_a_checkpoint_is_written() {
    for ranks in [1, 3] {
        let run = tempfile::tempdir().unwrap();
        let dir = run.path();
        let found = on_ranks(ranks, |group| {
            let mut rank = Rank::new(dir, group);
            rank.begin(1, false).unwrap();
            let before = (latest(dir).unwrap(), rank.saver.newest());
            let steps = rank.steps().unwrap();
            // The next one may be settled at once, as at the end of a run.
            rank.begin(2, false).unwrap();
            rank.saver.settle(&rank.replica).unwrap();
            (before, steps, rank.saver.newest())
        });
        for (before, steps, newest) in found {
            assert_eq!((before, newest), ((None, 1), 2), "{ranks} ranks");
            assert!(steps > 0, "it was written while nobody looked");
        }
        assert_eq!(layout::list_steps(dir).unwrap(), [1, 2]);
        [1, 2].into_iter().for_each(|step| verify(&layout::step_dir(dir, step)).unwrap());
    }
}

/// One rank cannot write its part: every rank hears of it, nothing of it is left, and the next checkpoint succeeds.
#[test]
fn one_rank_that_fails_leaves_the_checkpoint_before() {
    let run = tempfile::tempdir().unwrap();
    let dir = run.path();
    let messages = on_ranks(3, |group| {
        let rank_index = group.rank();
        let mut rank = Rank::new(dir, group);
        rank.begin(1, false).unwrap();
        rank.saver.settle(&rank.replica).unwrap();
        rank.begin(2, rank_index == 1).unwrap();
        let polled = rank.steps().unwrap_err().to_string();
        assert_eq!(rank.saver.newest(), 1);
        rank.begin(3, rank_index == 2).unwrap();
        let settled = rank.saver.settle(&rank.replica).unwrap_err().to_string();
        let left = layout::entry_names(dir).unwrap();
        rank.begin(4, false).unwrap();
        rank.saver.settle(&rank.replica).unwrap();
        crate::parallel::session::overcome();
        (polled, settled, left)
    });
    for (polled, settled, left) in messages {
        assert!(polled.contains("rank 1 ") && polled.contains("step 2 broke down"), "{polled}");
        assert!(settled.contains("rank 2 ") && settled.contains("step 3 broke down"), "{settled}");
        assert!(!left.iter().any(|name| name == "step-00000003"), "{left:?}");
    }
    assert_eq!(layout::list_steps(dir).unwrap(), [1, 4]);
    assert!(layout::entry_names(dir).unwrap().iter().all(|name| !name.starts_with('.')));
}

/// What cannot be removed afterwards makes a checkpoint that is in place no failed one.
#[test]
fn a_checkpoint_is_saved_though_an_earlier_one_stays() {
    for ranks in [1, 2] {
        let run = tempfile::tempdir().unwrap();
        let dir = run.path();
        let found = on_ranks(ranks, |group| {
            let mut rank = Rank::new(dir, group);
            let mut told = Vec::new();
            for step in 1..=3 {
                if step == 3 && rank.replica.is_first() {
                    // Removing goes by way of this name.
                    let in_the_way = layout::checkpoints_dir(dir).join(".trash-step-00000001");
                    std::fs::write(in_the_way, b"").unwrap();
                }
                rank.begin(step, false).unwrap();
                told.push(rank.saver.settle(&rank.replica).unwrap());
            }
            (told, rank.saver.newest())
        });
        for (rank, (told, newest)) in found.iter().enumerate() {
            assert_eq!(*newest, 3);
            let tidied: Vec<_> = told.iter().flatten().map(|saved| saved.tidying.is_ok()).collect();
            assert_eq!(tidied, if rank == 0 { vec![true, true, false] } else { vec![] }, "{ranks} ranks");
        }
        assert_eq!(layout::list_steps(dir).unwrap(), [1, 2, 3]);
        assert_eq!(latest(dir).unwrap(), Some(layout::step_dir(dir, 3)));
    }
}
