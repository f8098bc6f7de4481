//! cp.async.bulk.tensor from global to shared memory (PTX ISA, "cp.async.bulk.tensor").
//!
//! A copy lands at some time between its instruction and the end of the phase that waits for it: at once or, as often,
//! when somebody looks at its barrier. So who reads without having waited finds poison or what was there before, and
//! who has not freed the target finds it overwritten.

use super::async_copy::{self, Batch};
use super::mbarrier;
use crate::machine::address::{CLUSTER_SHIFT, Space};
use crate::machine::warp::Warp;
use crate::program::{Inst, lanes};
use crate::tensor_map::{ALIGN, BYTES, TensorMap};

/// Shared memory that a tensor copy writes is aligned to 128 bytes.
const TARGET_ALIGN: u64 = 128;

/// Turns in a row that ended in vain at an mbarrier, before that is a deadlock.
const PATIENCE: u32 = 1 << 20;

struct Copy {
    map: TensorMap,
    at: Vec<i32>,
    /// Offset of the target in the shared memory at `shared`.
    target: u64,
    shared: *mut u8,
    barrier: *mut u64,
}

impl Copy {
    fn perform(&self) {
        let row_bytes = self.map.row_bytes();
        for (number, row) in self.map.rows(&self.at).into_iter().enumerate() {
            let start = self.target + number as u64 * row_bytes;
            for chunk in (0..row_bytes).step_by(16) {
                let mut bytes = [0u8; 16];
                for (byte, value) in bytes.iter_mut().enumerate() {
                    let place = (chunk + byte as u64).wrapping_sub(row.skipped);
                    *value = if place < row.bytes {
                        // SAFETY: `fetch` checked the row within its allocation, which outlives the launch.
                        unsafe { ((row.address + place) as *const u8).read() }
                    } else if self.map.fills_nan {
                        0xff
                    } else {
                        0
                    };
                }
                let place = self.map.swizzle.place(start + chunk) as usize;
                // SAFETY: `fetch` checked the whole target, and a swizzle stays within each 128 bytes of it.
                unsafe { self.shared.add(place).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
            }
        }
    }
}

/// What the blocks of a cluster have in common: copies that are on their way, and the barrier of all their threads.
#[derive(Default)]
pub struct Bulk {
    copies: Vec<Copy>,
    /// Copies of single threads, and the barriers that hear of them.
    announced: Vec<(*mut u64, Batch)>,
    random: u64,
    in_vain: u32,
    /// Threads of each block that have not ended, and those of all that have come to the cluster's barrier in its current
    /// phase.
    threads: Vec<u32>,
    arrived: u32,
    phase: u64,
}

impl Bulk {
    pub fn start(&mut self, seed: u64, threads: u32, blocks: usize) {
        self.copies.clear();
        self.announced.clear();
        (self.random, self.in_vain) = (seed | 1, 0);
        self.threads = vec![threads; blocks];
        (self.arrived, self.phase) = (0, 0);
    }

    /// barrier.cluster.arrive by so many threads; the phase that they may wait for.
    pub fn arrive(&mut self, threads: u32) -> u64 {
        let phase = self.phase;
        self.arrived += threads;
        self.turn();
        phase
    }

    /// Threads of block `rank` end.
    pub fn end(&mut self, rank: usize, threads: u32) {
        self.threads[rank] -= threads;
        self.turn();
    }

    /// Whether block `rank` is there no more, nor its memory.
    pub fn has_ended(&self, rank: usize) -> bool {
        self.threads[rank] == 0
    }

    fn turn(&mut self) {
        if self.arrived > 0 && self.arrived >= self.threads.iter().sum() {
            (self.arrived, self.phase) = (0, self.phase + 1);
        }
        self.progress();
    }

    pub fn has_passed(&self, phase: u64) -> bool {
        self.phase > phase
    }

    pub fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// An arrival at `barrier` once `batch` is done.
    pub fn arrive_after(&mut self, barrier: *mut u64, batch: Batch) {
        self.announced.push((barrier, batch));
    }

    /// Xorshift.
    pub fn chance(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 32 & 1 == 1
    }

    /// Some of the copies that `barrier` waits for land now: their bytes and arrivals.
    pub fn land(&mut self, barrier: *mut u64) -> (i64, u64) {
        let (mut bytes, mut arrivals) = (0, 0);
        for at in (0..self.copies.len()).rev() {
            if self.copies[at].barrier == barrier && self.chance() {
                let copy = self.copies.swap_remove(at);
                copy.perform();
                bytes += copy.map.box_bytes() as i64;
            }
        }
        for at in (0..self.announced.len()).rev() {
            if self.announced[at].0 == barrier && self.chance() {
                async_copy::perform(&self.announced.swap_remove(at).1);
                arrivals += 1;
            }
        }
        if bytes > 0 || arrivals > 0 {
            self.progress();
        }
        (bytes, arrivals)
    }

    pub fn progress(&mut self) {
        self.in_vain = 0;
    }

    /// Whether nothing has moved for so long that nothing will.
    pub fn waited_in_vain(&mut self) -> bool {
        self.in_vain += 1;
        self.in_vain > PATIENCE
    }
}

/// cp.async.bulk.tensor.Nd.shared::cluster.global [a], [b, {coordinates}], [barrier]: the list has the barrier's
/// address, then the coordinates, innermost first; with .multicast::cluster (`aux` 1) then the mask of the blocks that
/// get it, each at the same places in its own memory.
///
/// # Safety
/// As for `Exec`; a, b and the first of the list are doubles, the rest of the list words.
pub unsafe fn fetch(warp: &mut Warp, inst: &Inst) {
    // SAFETY: by this function's contract.
    let (targets, maps, barriers) =
        unsafe { (*warp.source::<u64>(inst.a), *warp.source::<u64>(inst.b), *warp.source::<u64>(inst.list[0])) };
    for lane in lanes(warp.mask) {
        // SAFETY: as above.
        let numbers = inst.list[1..].iter().map(|&operand| unsafe { (*warp.source::<u32>(operand))[lane] } as i32);
        let mut at: Vec<i32> = numbers.collect();
        let blocks = if inst.aux == 1 { at.pop().unwrap_or(0) as u32 & 0xffff } else { 1 << warp.shared.rank };
        if blocks == 0 || blocks >> warp.shared.ranks != 0 {
            let text = format!("a copy to the blocks {blocks:#b} of a cluster of {}", warp.shared.ranks);
            warp.fail(inst.line, Some(lane), text);
        }
        let words = warp.pointer(inst, lane, Space::Generic, maps[lane], BYTES as u64, ALIGN);
        // SAFETY: the pointer was checked for the map's size; it need not be aligned on the host.
        let Some(map) = TensorMap::from_words(&unsafe { words.cast::<[u64; BYTES / 8]>().read_unaligned() }) else {
            warp.fail(inst.line, Some(lane), format!("no tensor map lies at {:#x}", maps[lane]))
        };
        if map.dims.len() != at.len() {
            let text = format!("{} coordinates for a tensor of {} dimensions", at.len(), map.dims.len());
            warp.fail(inst.line, Some(lane), text);
        }
        let window = Space::Shared.window();
        let (target, barrier) = (targets[lane] & !window, barriers[lane] & !window);
        if (target | barrier) >> CLUSTER_SHIFT != 0 {
            warp.fail(inst.line, Some(lane), "a tensor copy to another block's memory alone".to_owned());
        }
        warp.pointer(inst, lane, Space::Shared, target, map.box_bytes(), TARGET_ALIGN);
        warp.pointer(inst, lane, Space::Shared, barrier, 8, 8);
        for row in map.rows(&at).iter().filter(|row| row.bytes > 0) {
            warp.pointer(inst, lane, Space::Global, row.address, row.bytes, 1);
        }
        for rank in (0..warp.shared.ranks).filter(|rank| blocks >> rank & 1 == 1) {
            if warp.bulk.borrow().has_ended(rank) {
                warp.fail(inst.line, Some(lane), format!("a copy to block {rank} of the cluster, which has ended"));
            }
            let shared = warp.shared.of(rank);
            let word = shared.wrapping_add(barrier as usize).cast();
            let copy = Copy { map: map.clone(), at: at.clone(), target, barrier: word, shared };
            let now = warp.bulk.borrow_mut().chance();
            if now {
                copy.perform();
                // SAFETY: the barrier's offset was checked, and the memory of all blocks is as large.
                unsafe { mbarrier::deliver(warp, inst, lane, word, copy.map.box_bytes() as i64, 0) };
            } else {
                warp.bulk.borrow_mut().copies.push(copy);
            }
        }
        warp.bulk.borrow_mut().progress();
    }
}
