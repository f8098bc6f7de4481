//! mov in its forms: copies, special registers, packing and unpacking (PTX ISA, "mov", "Special Registers").

use crate::machine::warp::Warp;
use crate::ops::compare::NONE;
use crate::ops::{Lane, exec};
use crate::program::{ALL, Exec, Inst, LANES};

/// # Safety
/// As for `Exec`.
#[inline(always)]
unsafe fn copy<T: Lane>(warp: &mut Warp, inst: &Inst) {
    // SAFETY: by this function's contract.
    unsafe {
        let value = *warp.source::<T>(inst.a);
        warp.set::<T>(inst.d, &value);
    }
}

pub fn copying(wide: bool) -> Exec {
    if wide { exec!(|w, i| copy::<u64>(w, i)) } else { exec!(|w, i| copy::<u32>(w, i)) }
}

/// The special registers that `aux` counts.
pub const SPECIAL: [&str; 36] = [
    "%tid.x",
    "%tid.y",
    "%tid.z",
    "%ntid.x",
    "%ntid.y",
    "%ntid.z",
    "%ctaid.x",
    "%ctaid.y",
    "%ctaid.z",
    "%nctaid.x",
    "%nctaid.y",
    "%nctaid.z",
    "%laneid",
    "%warpid",
    "%nwarpid",
    "%smid",
    "%nsmid",
    "%gridid",
    "%lanemask_eq",
    "%lanemask_le",
    "%lanemask_lt",
    "%lanemask_ge",
    "%lanemask_gt",
    "%clock",
    "%clock_hi",
    "%clock64",
    "%globaltimer",
    "%dynamic_smem_size",
    "%total_smem_size",
    "%activemask",
    "%cluster_ctarank",
    "%cluster_nctarank",
    "%cluster_ctaid.x",
    "%cluster_nctaid.x",
    "%clusterid.x",
    "%nclusterid.x",
];

/// Whether the special register has 64 bits.
pub fn is_wide(name: &str) -> bool {
    matches!(name, "%clock64" | "%globaltimer" | "%gridid")
}

/// # Safety
/// As for `Exec`.
pub unsafe fn special(warp: &mut Warp, inst: &Inst) {
    let kind = inst.aux as usize;
    let launch = &warp.launch;
    let uniform = match kind {
        3..=5 => launch.block[kind - 3].into(),
        6..=8 => warp.block[kind - 6].into(),
        9..=11 => launch.grid[kind - 9].into(),
        13 => warp.index as u64,
        14 => launch.threads().div_ceil(LANES) as u64,
        16 => 1,
        23..=26 => {
            warp.clock += 16;
            if kind == 24 { warp.clock >> 32 } else { warp.clock }
        }
        27 => launch.dynamic_shared as u64,
        28 => warp.shared.bytes as u64,
        29 => warp.mask.into(),
        30 | 32 => warp.shared.rank as u64,
        31 | 33 => warp.kernel.cluster as u64,
        34 => u64::from(warp.block[0]) / warp.kernel.cluster as u64,
        35 => u64::from(launch.grid[0]) / warp.kernel.cluster as u64,
        _ => 0,
    };
    let mut values = [uniform; LANES];
    for (lane, value) in values.iter_mut().enumerate() {
        match kind {
            0..=2 => *value = warp.thread(lane)[kind].into(),
            12 => *value = lane as u64,
            18 => *value = 1 << lane,
            19 => *value = (2 << lane) - 1,
            20 => *value = (1 << lane) - 1,
            21 => *value = u64::from(ALL << lane),
            22 => *value = u64::from(ALL << lane << 1),
            _ => {}
        }
    }
    // SAFETY: lowering made `d` a double where is_wide() says so.
    unsafe {
        if is_wide(SPECIAL[kind]) {
            warp.set::<u64>(inst.d, &values);
        } else {
            warp.set::<u32>(inst.d, &values.map(|value| value as u32));
        }
    }
}

/// `mov.b64 d, {a, b}`: the list has the parts, the low ones first; `aux` the bits of each.
///
/// # Safety
/// As for `Exec`.
#[inline(always)]
unsafe fn pack<D: Lane>(warp: &mut Warp, inst: &Inst, of: impl Fn(u64) -> D::Raw) {
    let mut packed = [0u64; LANES];
    let mask = u64::MAX >> (64 - inst.aux);
    for (at, &part) in inst.list.iter().enumerate() {
        // SAFETY: parts have 32 bits at most.
        let part = unsafe { &*warp.source::<u32>(part) };
        for lane in 0..LANES {
            packed[lane] |= (u64::from(part[lane]) & mask) << (at as u32 * inst.aux);
        }
    }
    // SAFETY: by this function's contract.
    unsafe { warp.set::<D>(inst.d, &packed.map(of)) }
}

pub fn packing(wide: bool) -> Exec {
    if wide {
        exec!(|w, i| pack::<u64>(w, i, |value| value))
    } else {
        exec!(|w, i| pack::<u32>(w, i, |value| value as u32))
    }
}

/// `mov.b64 {a, b}, d`
///
/// # Safety
/// As for `Exec`.
#[inline(always)]
unsafe fn unpack<A: Lane>(warp: &mut Warp, inst: &Inst, of: impl Fn(A::Raw) -> u64) {
    // SAFETY: by this function's contract.
    let value = unsafe { *warp.source::<A>(inst.a) }.map(of);
    let mask = u64::MAX >> (64 - inst.aux);
    for (at, &part) in inst.list.iter().enumerate().filter(|(_, part)| **part != NONE) {
        let mut result = [0u32; LANES];
        for lane in 0..LANES {
            result[lane] = (value[lane] >> (at as u32 * inst.aux) & mask) as u32;
        }
        // SAFETY: parts have 32 bits at most.
        unsafe { warp.set::<u32>(part, &result) }
    }
}

pub fn unpacking(wide: bool) -> Exec {
    if wide { exec!(|w, i| unpack::<u64>(w, i, |value| value)) } else { exec!(|w, i| unpack::<u32>(w, i, u64::from)) }
}

/// isspacep: d = whether the generic address a lies in the window `imm`; 0 stands for global memory.
///
/// # Safety
/// As for `Exec`; d is a predicate, a a double.
pub unsafe fn is_space(warp: &mut Warp, inst: &Inst) {
    // SAFETY: by this function's contract.
    let address = unsafe { *warp.source::<u64>(inst.a) };
    let mut holds = 0;
    for lane in 0..LANES {
        let window = crate::machine::address::Space::of(address[lane]).window();
        holds |= u32::from(window == inst.imm as u64) << lane;
    }
    warp.set_predicate(inst.d, holds);
}

/// # Safety
/// None is needed: it does nothing.
pub unsafe fn nothing(_: &mut Warp, _: &Inst) {}

/// trap
///
/// # Safety
/// As for `Exec`.
pub unsafe fn trap(warp: &mut Warp, inst: &Inst) {
    let lane = warp.mask.trailing_zeros() as usize;
    warp.fail(inst.line, Some(lane), "the kernel executed trap".to_owned());
}
