//! mbarrier: barriers in shared memory that count arrivals and bytes (PTX ISA, "Parallel Synchronization and
//! Communication Instructions: mbarrier").
//!
//! The object is opaque; here its 64 bits are pending arrivals (20), expected ones (20), pending bytes (22, signed),
//! the phase's parity, and a zero, which memory that nobody initialised does not have.

use crate::machine::address::{CLUSTER_SHIFT, Space};
use crate::machine::warp::Warp;
use crate::ops::compare::NONE;
use crate::program::{Inst, LANES, lanes};

const COUNT: u64 = (1 << 20) - 1;
const BYTES: u64 = (1 << 22) - 1;
/// Transactions that a phase may count (PTX ISA, "tx-count").
const MOST_BYTES: i64 = (1 << 20) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    pending: u64,
    expected: u64,
    bytes: i64,
    parity: u64,
}

impl Barrier {
    fn of(word: u64) -> Option<Self> {
        let barrier = Self {
            pending: word & COUNT,
            expected: word >> 20 & COUNT,
            bytes: ((word >> 40 & BYTES) as i64) << 42 >> 42,
            parity: word >> 62 & 1,
        };
        (word >> 63 == 0 && barrier.expected > 0).then_some(barrier)
    }

    fn word(self) -> u64 {
        self.pending | self.expected << 20 | (self.bytes as u64 & BYTES) << 40 | self.parity << 62
    }

    fn arrive(&mut self, warp: &Warp, inst: &Inst, lane: usize, arrivals: u64) {
        if arrivals > self.pending {
            let text = format!("{arrivals} arrivals at an mbarrier that waits for {}", self.pending);
            warp.fail(inst.line, Some(lane), text);
        }
        self.pending -= arrivals;
    }

    /// To the next phase, if this one is complete.
    fn turned(mut self) -> Self {
        if self.pending == 0 && self.bytes == 0 {
            self.parity ^= 1;
            self.pending = self.expected;
        }
        self
    }
}

/// The barrier's word in host memory.
pub fn place(warp: &mut Warp, inst: &Inst, lane: usize, address: u64) -> *mut u64 {
    let address = address & !Space::Shared.window();
    warp.pointer(inst, lane, Space::Shared, address, 8, 8).cast()
}

fn read(warp: &Warp, inst: &Inst, lane: usize, word: *mut u64) -> Barrier {
    // SAFETY: `place` checked the pointer.
    match Barrier::of(unsafe { word.read() }) {
        Some(barrier) => barrier,
        None => warp.fail(inst.line, Some(lane), "an mbarrier that is not initialised".to_owned()),
    }
}

/// mbarrier.init [a + imm], b
///
/// # Safety
/// As for `Exec`; a is a double, b a word.
pub unsafe fn init(warp: &mut Warp, inst: &Inst) {
    // SAFETY: by this function's contract.
    let (addresses, counts) = unsafe { (*warp.source::<u64>(inst.a), *warp.source::<u32>(inst.b)) };
    for lane in lanes(warp.mask) {
        let count = u64::from(counts[lane]);
        if count == 0 || count > COUNT {
            warp.fail(inst.line, Some(lane), format!("mbarrier.init with {count} arrivals"));
        }
        let word = place(warp, inst, lane, addresses[lane].wrapping_add(inst.imm as u64));
        let barrier = Barrier { pending: count, expected: count, bytes: 0, parity: 0 };
        // SAFETY: `place` checked the pointer.
        unsafe { word.write(barrier.word()) }
    }
}

/// mbarrier.inval [a + imm]
///
/// # Safety
/// As for `init`.
pub unsafe fn invalidate(warp: &mut Warp, inst: &Inst) {
    // SAFETY: by this function's contract.
    let addresses = unsafe { *warp.source::<u64>(inst.a) };
    for lane in lanes(warp.mask) {
        let word = place(warp, inst, lane, addresses[lane].wrapping_add(inst.imm as u64));
        read(warp, inst, lane, word);
        // SAFETY: `place` checked the pointer.
        unsafe { word.write(u64::MAX) }
    }
}

/// Flags of `aux`: what comes before the arrival, and whether there is one.
pub const EXPECTS: u32 = 1;
pub const ARRIVES: u32 = 2;

/// mbarrier.arrive{.expect_tx} d, [a + imm]{, b}, and mbarrier.expect_tx: the list has d (or NONE), b is the count of
/// arrivals, or of bytes.
///
/// # Safety
/// As for `init`; d is a double.
pub unsafe fn arrive(warp: &mut Warp, inst: &Inst) {
    // SAFETY: by this function's contract.
    let (addresses, counts) = unsafe { (*warp.source::<u64>(inst.a), *warp.source::<u32>(inst.b)) };
    let mut states = [0; LANES];
    for lane in lanes(warp.mask) {
        let word = place(warp, inst, lane, addresses[lane].wrapping_add(inst.imm as u64));
        let mut barrier = read(warp, inst, lane, word);
        states[lane] = barrier.word();
        let mut arrivals = u64::from(counts[lane]);
        if inst.aux & EXPECTS != 0 {
            barrier.bytes += i64::from(counts[lane]);
            arrivals = u64::from(inst.aux & ARRIVES != 0);
            if barrier.bytes > MOST_BYTES {
                warp.fail(inst.line, Some(lane), format!("an mbarrier that expects {} bytes", barrier.bytes));
            }
        }
        barrier.arrive(warp, inst, lane, arrivals);
        if inst.aux & ARRIVES != 0 {
            barrier = barrier.turned();
        }
        // SAFETY: `place` checked the pointer.
        unsafe { word.write(barrier.word()) }
    }
    warp.bulk.borrow_mut().progress();
    if inst.list[0] != NONE {
        // SAFETY: by this function's contract.
        unsafe { warp.set::<u64>(inst.list[0], &states) }
    }
}

/// Flags of `aux` for `wait`.
pub const BY_PARITY: u32 = 1;

/// mbarrier.{test,try}_wait{.parity} d, [a + imm], b: whether the phase is complete. try_wait may suspend the thread
/// for a while; here the other warps have their turn.
///
/// # Safety
/// As for `init`; d is a predicate, b a word (the parity) or a double (a state).
pub unsafe fn wait(warp: &mut Warp, inst: &Inst) {
    // SAFETY: by this function's contract.
    let addresses = unsafe { *warp.source::<u64>(inst.a) };
    let parities: [u64; LANES] = if inst.aux & BY_PARITY != 0 {
        // SAFETY: as above.
        unsafe { *warp.source::<u32>(inst.b) }.map(u64::from)
    } else {
        // SAFETY: as above.
        unsafe { *warp.source::<u64>(inst.b) }.map(|state| state >> 62 & 1)
    };
    let mut complete = 0;
    for lane in lanes(warp.mask) {
        let address = addresses[lane].wrapping_add(inst.imm as u64) & !Space::Shared.window();
        if address >> CLUSTER_SHIFT != 0 {
            warp.fail(inst.line, Some(lane), "a wait at another block's mbarrier".to_owned());
        }
        let word = place(warp, inst, lane, address);
        if parities[lane] > 1 {
            warp.fail(inst.line, Some(lane), format!("a phase's parity of {}", parities[lane]));
        }
        // Copies may end at any time, this one included.
        let (bytes, arrivals) = warp.bulk.borrow_mut().land(word);
        let barrier = match (bytes, arrivals) {
            (0, 0) => read(warp, inst, lane, word),
            // SAFETY: `place` checked the pointer.
            _ => unsafe { deliver(warp, inst, lane, word, bytes, arrivals) },
        };
        complete |= u32::from(barrier.parity != parities[lane]) << lane;
    }
    warp.set_predicate(inst.d, complete);
    if complete == warp.mask {
        return;
    }
    warp.yields = true;
    if warp.bulk.borrow_mut().waited_in_vain() {
        let lane = (warp.mask & !complete).trailing_zeros() as usize;
        let word = place(warp, inst, lane, addresses[lane].wrapping_add(inst.imm as u64));
        let Barrier { pending, bytes, .. } = read(warp, inst, lane, word);
        let text = format!(
            "deadlock: every warp waits, this one at the mbarrier {:#x}, which lacks {pending} arrivals and {bytes} bytes",
            addresses[lane]
        );
        warp.fail(inst.line, Some(lane), text);
    }
}

/// Copies have brought `bytes` and `arrivals` to the barrier at `word`.
///
/// # Safety
/// `word` is in the cluster's shared memory.
pub unsafe fn deliver(warp: &Warp, inst: &Inst, lane: usize, word: *mut u64, bytes: i64, arrivals: u64) -> Barrier {
    let mut barrier = read(warp, inst, lane, word);
    barrier.bytes -= bytes;
    barrier.arrive(warp, inst, lane, arrivals);
    let barrier = barrier.turned();
    // SAFETY: by this function's contract.
    unsafe { word.write(barrier.word()) }
    barrier
}

/// The current phase waits for one arrival more.
///
/// # Safety
/// As for `deliver`.
pub unsafe fn expect_one_more(warp: &Warp, inst: &Inst, lane: usize, word: *mut u64) {
    let mut barrier = read(warp, inst, lane, word);
    if barrier.pending == COUNT {
        warp.fail(inst.line, Some(lane), format!("an mbarrier that waits for more than {COUNT} arrivals"));
    }
    barrier.pending += 1;
    // SAFETY: by this function's contract.
    unsafe { word.write(barrier.word()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_ends_with_the_last_arrival_and_the_last_byte() {
        let barrier = Barrier { pending: 1, expected: 2, bytes: -48, parity: 1 };
        assert_eq!(Barrier::of(barrier.word()), Some(barrier));
        assert_eq!(barrier.turned(), barrier);
        let arrived = Barrier { pending: 0, ..barrier };
        assert_eq!(arrived.turned(), arrived);
        let complete = Barrier { pending: 0, bytes: 0, ..barrier };
        assert_eq!(complete.turned(), Barrier { pending: 2, expected: 2, bytes: 0, parity: 0 });
        assert_eq!(Barrier::of(u64::MAX), None);
    }
}
