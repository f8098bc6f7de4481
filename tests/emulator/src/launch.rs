//! A grid: its blocks, spread over the host's cores.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::fault::Fault;
use crate::machine::block::Block;
use crate::program::Kernel;

/// What all blocks of a launch share.
pub struct Launch {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: usize,
    pub parameters: Vec<u8>,
    /// The live allocations, in order; never empty.
    pub ranges: Vec<(u64, u64)>,
    pub seed: u64,
}

impl Launch {
    pub fn new(grid: [u32; 3], block: [u32; 3], dynamic_shared: usize, parameters: Vec<u8>) -> Self {
        Self { grid, block, dynamic_shared, parameters, ranges: vec![(0, 0)], seed: 0 }
    }

    /// `ranges` are the allocations that the kernel may touch.
    #[must_use]
    pub fn with_memory(mut self, mut ranges: Vec<(u64, u64)>) -> Self {
        if ranges.is_empty() {
            ranges.push((0, 0));
        }
        self.ranges = ranges;
        self
    }

    pub fn threads(&self) -> usize {
        self.block.iter().map(|&n| n as usize).product()
    }

    pub fn blocks(&self) -> u64 {
        self.grid.iter().map(|&n| u64::from(n)).product()
    }
}

/// Blocks that a worker takes at a time.
const BATCH: u64 = 16;

/// Runs the grid to its end.
///
/// # Errors
/// The first violation that a worker met; the grid is then half done.
pub fn launch(kernel: &Arc<Kernel>, launch: Launch) -> Result<(), Box<Fault>> {
    let launch = Arc::new(launch);
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let payload: Mutex<Option<Box<dyn Any + Send>>> = Mutex::new(None);
    // A cluster's blocks run together.
    let blocks = launch.blocks() / kernel.cluster as u64;
    let work = || {
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut block = Block::new(kernel, &launch);
            while !failed.load(Ordering::Relaxed) {
                let first = next.fetch_add(BATCH, Ordering::Relaxed);
                if first >= blocks {
                    break;
                }
                for index in first..(first + BATCH).min(blocks) {
                    block.run(index);
                }
            }
        }));
        if let Err(reason) = result {
            failed.store(true, Ordering::Relaxed);
            payload.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(reason);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let workers = cores.min(blocks.div_ceil(BATCH));
    if workers <= 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(work);
            }
        });
    }
    match payload.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        None => Ok(()),
        Some(reason) => match reason.downcast::<Fault>() {
            Ok(fault) => Err(fault),
            Err(other) => resume_unwind(other),
        },
    }
}
