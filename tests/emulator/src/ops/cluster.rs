//! Clusters: their barrier, and addresses of each other's shared memory (PTX ISA, "barrier.cluster", "mapa").

use crate::machine::address::{CLUSTER_SHIFT, Space};
use crate::machine::warp::Warp;
use crate::program::{Inst, LANES, lanes};

/// barrier.cluster.arrive
///
/// # Safety
/// As for `Exec`.
pub unsafe fn arrive(warp: &mut Warp, inst: &Inst) {
    if warp.cluster_phase.is_some() {
        warp.fail(inst.line, None, "barrier.cluster.arrive twice without a wait between".to_owned());
    }
    warp.cluster_phase = Some(warp.bulk.borrow_mut().arrive(warp.mask.count_ones()));
}

/// barrier.cluster.wait: ends the warp's turn until all threads of the cluster have come.
///
/// # Safety
/// As for `Exec`.
pub unsafe fn wait(warp: &mut Warp, inst: &Inst) {
    let Some(phase) = warp.cluster_phase else {
        warp.fail(inst.line, None, "barrier.cluster.wait without barrier.cluster.arrive".to_owned())
    };
    if warp.bulk.borrow().has_passed(phase) {
        warp.cluster_phase = None;
        return;
    }
    warp.yields = true;
    if warp.bulk.borrow_mut().waited_in_vain() {
        warp.fail(inst.line, None, "deadlock: every warp waits, this one at the cluster's barrier".to_owned());
    }
}

/// mapa.shared::cluster.u32 d, a, b: the shared address a, in block b of the cluster.
///
/// # Safety
/// As for `Exec`; all are words.
pub unsafe fn map_address(warp: &mut Warp, inst: &Inst) {
    // SAFETY: by this function's contract.
    let (addresses, ranks) = unsafe { (*warp.source::<u32>(inst.a), *warp.source::<u32>(inst.b)) };
    let mut mapped = [0; LANES];
    for lane in lanes(warp.mask) {
        warp.pointer(inst, lane, Space::Shared, addresses[lane].into(), 1, 1);
        if ranks[lane] as usize >= warp.shared.ranks {
            let text = format!("mapa to block {} of a cluster of {}", ranks[lane], warp.shared.ranks);
            warp.fail(inst.line, Some(lane), text);
        }
        mapped[lane] = (ranks[lane] + 1) << CLUSTER_SHIFT | addresses[lane];
    }
    // SAFETY: by this function's contract.
    unsafe { warp.set::<u32>(inst.d, &mapped) }
}
