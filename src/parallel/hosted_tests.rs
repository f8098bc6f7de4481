//! Collectives over threads of one process: the same code as over MPI, but for the transport.

use std::sync::{Arc, Barrier, Mutex};

use super::*;

/// Ranks that are threads.
struct Threads {
    rank: usize,
    table: Arc<(Barrier, Mutex<Vec<Vec<u32>>>)>,
}

impl Threads {
    /// What each rank lays on the table.
    fn exchange(&self, words: &[u32]) -> Vec<Vec<u32>> {
        let (barrier, table) = &*self.table;
        table.lock().unwrap()[self.rank] = words.to_vec();
        barrier.wait();
        let all = table.lock().unwrap().clone();
        barrier.wait();
        all
    }
}

impl Transport for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.table.1.lock().unwrap().len()
    }

    fn all_to_all(&self, words: &[u32], parts: &[Range<usize>]) -> Vec<u32> {
        self.exchange(words).iter().flat_map(|words| words[parts[self.rank].clone()].to_vec()).collect()
    }

    fn all_gather(&self, own: &[u32], parts: &[Range<usize>]) -> Vec<u32> {
        let all = self.exchange(own);
        assert!(all.iter().zip(parts).all(|(words, part)| words.len() == part.len()));
        all.concat()
    }

    fn broadcast(&self, words: &mut [u32], root: usize) {
        words.copy_from_slice(&self.exchange(words)[root]);
    }

    fn barrier(&self) {
        self.exchange(&[]);
    }
}

/// Runs `work` on each of `size` ranks, and returns what they return, by rank.
pub(crate) fn on_ranks<R: Send>(size: usize, work: impl Fn(Arc<dyn Collective>) -> R + Sync) -> Vec<R> {
    let table = Arc::new((Barrier::new(size), Mutex::new(vec![Vec::new(); size])));
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..size)
            .map(|rank| {
                let (table, work) = (table.clone(), &work);
                scope.spawn(move || work(Arc::new(Hosted::new(Threads { rank, table }, Watchdog::idle()))))
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Parts of unequal length, one of them empty.
const PARTS: [Range<usize>; 4] = [0..5, 5..5, 5..40_000, 40_000..40_007];

fn values(rank: usize) -> Vec<f32> {
    (0..40_007).map(|i| ((i * 31 + rank * 17) as f32).sin() * 10f32.powi(i as i32 % 9 - 4)).collect()
}

#[test]
fn sums_are_exact_to_a_rounding_and_the_same_bits_everywhere() {
    let brought: Vec<_> = (0..4).map(values).collect();
    let expected: Vec<f32> =
        (0..40_007).map(|i| brought.iter().map(|values| f64::from(values[i])).sum::<f64>() as f32).collect();
    let found = on_ranks(4, |group| {
        let own = group.reduce_scatter(&values(group.rank()), &PARTS);
        let mut all = values(group.rank());
        group.all_reduce(&mut all, &PARTS);
        assert_eq!(own, all[PARTS[group.rank()].clone()]);
        let gathered = group.all_gather(bytemuck::cast_slice(&own), &PARTS);
        assert_eq!(bytemuck::cast_slice::<u32, f32>(&gathered), all);
        (all, group.traffic())
    });
    for (rank, (all, traffic)) in found.into_iter().enumerate() {
        assert_eq!(all, expected);
        let (bytes, own) = (40_007 * 4, PARTS[rank].len() as u64 * 4);
        assert_eq!((traffic.reduce_scatter, traffic.all_gather), (bytes - own, 3 * own));
        assert_eq!((traffic.all_reduce, traffic.calls), (bytes - own + 3 * own, 3));
    }
}

#[test]
fn scalars_and_texts() {
    let found = on_ranks(3, |group| {
        let mine = group.rank() as f64 + 0.25;
        let (mut sums, mut maxima) = ([mine, 1.0], [mine, -mine]);
        group.sums(&mut sums);
        group.maxima(&mut maxima);
        group.barrier();
        let texts = group.gather(&b"abcdefg"[..group.rank() * 3]);
        (sums, maxima, texts, group.broadcast(["one", "", "three"][group.rank()].as_bytes(), 2))
    });
    for (sums, maxima, texts, said) in found {
        assert_eq!((sums, maxima), ([3.75, 3.0], [2.25, -0.25]));
        assert_eq!(texts, [&b""[..], b"abc", b"abcdef"]);
        assert_eq!(said, b"three");
    }
}
