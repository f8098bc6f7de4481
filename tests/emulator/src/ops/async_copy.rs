//! cp.async: copies from global to shared memory that the thread waits for (PTX ISA, "cp.async").
//!
//! A copy is done when its thread waits, not before: who reads the target without having waited finds the poison that was
//! there.

use std::cell::RefCell;
use std::rc::Rc;

use super::mbarrier;
use crate::machine::address::Space;
use crate::machine::warp::Warp;
use crate::program::{Inst, LANES, lanes};

#[derive(Clone, Copy)]
pub struct Copy {
    lane: usize,
    /// Commit groups of its lane before it.
    group: u32,
    from: *const u8,
    to: *mut u8,
    /// Bytes to copy, and bytes in all; the rest is filled with zeros.
    copied: usize,
    bytes: usize,
}

impl Copy {
    fn perform(&self) {
        // SAFETY: both pointers were checked for their sizes when the copy began; the memory outlives the launch.
        unsafe {
            self.to.copy_from_nonoverlapping(self.from, self.copied);
            self.to.add(self.copied).write_bytes(0, self.bytes - self.copied);
        }
    }
}

/// Copies of one thread that an mbarrier hears of; empty once they are done.
pub type Batch = Rc<RefCell<Vec<Copy>>>;

pub fn perform(batch: &Batch) {
    batch.take().iter().for_each(Copy::perform);
}

/// The copies that the threads of a warp have begun.
#[derive(Default)]
pub struct Copies {
    pending: Vec<Copy>,
    committed: [u32; LANES],
    /// Those of which mbarriers hear, by lane.
    announced: Vec<(usize, Batch)>,
}

impl Copies {
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.announced.is_empty()
    }

    /// Everything of `lane` that nobody has announced yet.
    fn announce(&mut self, lane: usize) -> Batch {
        let (of_lane, others) = self.pending.iter().partition(|copy| copy.lane == lane);
        self.pending = others;
        let batch = Rc::new(RefCell::new(of_lane));
        self.announced.retain(|(_, batch)| !batch.borrow().is_empty());
        self.announced.push((lane, Rc::clone(&batch)));
        batch
    }

    /// Does what `due` says of (lane, commit groups after its own).
    fn settle(&mut self, due: impl Fn(usize, i64) -> bool) {
        let committed = self.committed;
        self.pending.retain(|copy| {
            if !due(copy.lane, i64::from(committed[copy.lane]) - i64::from(copy.group)) {
                return true;
            }
            copy.perform();
            false
        });
    }

    /// What `lanes` have announced: a copy may be done at any time, so also before a wait for others.
    fn settle_announced(&mut self, lanes: u32) {
        self.announced.retain(|(lane, batch)| {
            let due = lanes >> lane & 1 == 1;
            if due {
                perform(batch);
            }
            !due
        });
    }

    /// Everything of `lanes`, committed or not.
    pub fn finish(&mut self, lanes: u32) {
        self.settle(|lane, _| lanes >> lane & 1 == 1);
        self.settle_announced(lanes);
    }
}

/// cp.async.{ca,cg}.shared.global [a], [b], imm{, c}: `list` has the source size where there is one.
///
/// # Safety
/// As for `Exec`; a and b are doubles, the list has words.
pub unsafe fn copy(warp: &mut Warp, inst: &Inst) {
    let bytes = inst.aux as u64;
    // SAFETY: by this function's contract.
    let (to, from) = unsafe { (*warp.source::<u64>(inst.a), *warp.source::<u64>(inst.b)) };
    // SAFETY: as above.
    let sizes = inst.list.first().map(|&size| unsafe { *warp.source::<u32>(size) });
    for lane in lanes(warp.mask) {
        let copied = sizes.map_or(bytes, |sizes| u64::from(sizes[lane]));
        if copied > bytes {
            warp.fail(inst.line, Some(lane), format!("cp.async of {copied} bytes into {bytes}"));
        }
        let to = warp.pointer(inst, lane, Space::Shared, to[lane].wrapping_add(inst.imm as u64), bytes, bytes);
        // Nothing is read where the source size is 0, so that its address may be anything.
        let from = match copied {
            0 => std::ptr::dangling_mut(),
            _ => {
                let address = from[lane].wrapping_add(inst.c as i32 as u64);
                warp.pointer(inst, lane, Space::Generic, address, copied, bytes)
            }
        };
        let group = warp.copies.committed[lane];
        let copy = Copy { lane, group, from, to, copied: copied as usize, bytes: bytes as usize };
        warp.copies.pending.push(copy);
    }
}

/// cp.async.commit_group
///
/// # Safety
/// As for `Exec`.
pub unsafe fn commit(warp: &mut Warp, _: &Inst) {
    for lane in lanes(warp.mask) {
        warp.copies.committed[lane] += 1;
    }
}

/// cp.async.wait_group imm: until at most that many of the latest groups are pending; copies that are not committed stay.
///
/// # Safety
/// As for `Exec`.
pub unsafe fn wait(warp: &mut Warp, inst: &Inst) {
    let mask = warp.mask;
    let allowed = inst.imm;
    warp.copies.settle(|lane, after| mask >> lane & 1 == 1 && after > 0 && after > allowed);
    warp.copies.settle_announced(mask);
}

/// cp.async.wait_all
///
/// # Safety
/// As for `Exec`.
pub unsafe fn wait_all(warp: &mut Warp, _: &Inst) {
    let mask = warp.mask;
    warp.copies.finish(mask);
}

/// cp.async.mbarrier.arrive{.noinc} [a + imm]: an arrival once all copies that the thread has begun are done, at once or, as
/// often, when somebody looks at the barrier. Without .noinc (`aux` 0) the phase waits for one arrival more.
///
/// # Safety
/// As for `Exec`; a is a double.
pub unsafe fn arrive(warp: &mut Warp, inst: &Inst) {
    // SAFETY: by this function's contract.
    let addresses = unsafe { *warp.source::<u64>(inst.a) };
    for lane in lanes(warp.mask) {
        let word = mbarrier::place(warp, inst, lane, addresses[lane].wrapping_add(inst.imm as u64));
        if inst.aux == 0 {
            // SAFETY: `place` checked the pointer.
            unsafe { mbarrier::expect_one_more(warp, inst, lane, word) };
        }
        let batch = warp.copies.announce(lane);
        let now = warp.bulk.borrow_mut().chance();
        if now {
            perform(&batch);
            // SAFETY: as above.
            unsafe { mbarrier::deliver(warp, inst, lane, word, 0, 1) };
        } else {
            warp.bulk.borrow_mut().arrive_after(word, batch);
        }
    }
    warp.bulk.borrow_mut().progress();
}
