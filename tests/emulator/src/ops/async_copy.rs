//! cp.async: copies from global to shared memory that the thread waits for (PTX ISA, "cp.async").
//!
//! A copy is done when its thread waits, not before: who reads the target without having waited finds the poison that was
//! there.

use crate::machine::address::Space;
use crate::machine::warp::Warp;
use crate::program::{Inst, LANES, lanes};

#[derive(Clone, Copy)]
struct Copy {
    lane: usize,
    /// Commit groups of its lane before it.
    group: u32,
    from: *const u8,
    to: *mut u8,
    /// Bytes to copy, and bytes in all; the rest is filled with zeros.
    copied: usize,
    bytes: usize,
}

/// The copies that the threads of a warp have begun.
#[derive(Default)]
pub struct Copies {
    pending: Vec<Copy>,
    committed: [u32; LANES],
}

impl Copies {
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Does what `due` says of (lane, commit groups after its own).
    fn settle(&mut self, due: impl Fn(usize, i64) -> bool) {
        let committed = self.committed;
        self.pending.retain(|copy| {
            if !due(copy.lane, i64::from(committed[copy.lane]) - i64::from(copy.group)) {
                return true;
            }
            // SAFETY: both pointers were checked for their sizes when the copy began; the memory outlives the launch.
            unsafe {
                copy.to.copy_from_nonoverlapping(copy.from, copy.copied);
                copy.to.add(copy.copied).write_bytes(0, copy.bytes - copy.copied);
            }
            false
        });
    }

    /// Everything of `lanes`, committed or not.
    pub fn finish(&mut self, lanes: u32) {
        self.settle(|lane, _| lanes >> lane & 1 == 1);
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
}

/// cp.async.wait_all
///
/// # Safety
/// As for `Exec`.
pub unsafe fn wait_all(warp: &mut Warp, _: &Inst) {
    let mask = warp.mask;
    warp.copies.finish(mask);
}
