//! Ranks as MPI processes: the transport of [`Hosted`](super::hosted::Hosted) over MPI_COMM_WORLD.
//!
//! MPI's own error handler is left as it is: a failed exchange ends all ranks (MPI_ERRORS_ARE_FATAL).

use std::ops::Range;

use mpi::Threading;
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};

use super::hosted::Transport;
use crate::error::{Error, Result};

/// Starts MPI; dropping the universe ends it, together with the other ranks.
///
/// # Errors
/// An MPI library whose calls cannot come from more than one thread: the watchdog has its own.
pub fn start() -> Result<(Universe, World)> {
    let (universe, threads) = mpi::initialize_with_threading(Threading::Multiple)
        .ok_or_else(|| Error::failed("MPI was started before in this process"))?;
    if threads != Threading::Multiple {
        return Err(Error::failed(
            "this MPI library was built without MPI_THREAD_MULTIPLE, which the watchdog needs: use one that has it",
        ));
    }
    let world = SimpleCommunicator::world();
    Ok((universe, World { rank: world.rank() as usize, size: world.size() as usize }))
}

/// Ends every rank, with this exit code.
pub fn abort(code: u8) -> ! {
    SimpleCommunicator::world().abort(i32::from(code))
}

/// MPI_COMM_WORLD. Rank and size may be asked for after MPI has ended.
pub struct World {
    rank: usize,
    size: usize,
}

/// The lengths and beginnings of parts, as MPI wants them. Parts are checked to fit when a run begins.
fn counts(parts: &[Range<usize>]) -> (Vec<i32>, Vec<i32>) {
    parts.iter().map(|part| (part.len() as i32, part.start as i32)).unzip()
}

impl Transport for World {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_to_all(&self, words: &[u32], parts: &[Range<usize>]) -> Vec<u32> {
        let own = parts[self.rank()].len();
        let arriving: Vec<_> = (0..self.size()).map(|rank| rank * own..(rank + 1) * own).collect();
        let mut received = vec![0u32; own * self.size()];
        let ((lengths, starts), (own_lengths, own_starts)) = (counts(parts), counts(&arriving));
        let send = Partition::new(words, lengths, starts);
        let mut receive = PartitionMut::new(&mut received[..], own_lengths, own_starts);
        SimpleCommunicator::world().all_to_all_varcount_into(&send, &mut receive);
        received
    }

    fn all_gather(&self, own: &[u32], parts: &[Range<usize>]) -> Vec<u32> {
        let mut all = vec![0u32; parts.last().map_or(0, |part| part.end)];
        let (lengths, starts) = counts(parts);
        let mut receive = PartitionMut::new(&mut all[..], lengths, starts);
        SimpleCommunicator::world().all_gather_varcount_into(own, &mut receive);
        all
    }

    fn broadcast(&self, words: &mut [u32], root: usize) {
        SimpleCommunicator::world().process_at_rank(root as i32).broadcast_into(words);
    }

    fn barrier(&self) {
        SimpleCommunicator::world().barrier();
    }
}
