//! shfl, vote, match, redux: what the lanes of a warp tell each other (PTX ISA, "shfl.sync", "vote.sync", "match.sync",
//! "redux.sync"). The machine has brought the lanes of the member mask together before these run.

use crate::machine::warp::Warp;
use crate::ops::compare::NONE;
use crate::program::{Inst, LANES, lanes};

pub const SHUFFLES: [&str; 4] = ["up", "down", "bfly", "idx"];

/// d|p = a of another lane: b says which, c bounds it. `list` has p (or NONE) first and the member mask last.
///
/// # Safety
/// As for `Exec`; all are words but p.
pub unsafe fn shuffle(warp: &mut Warp, inst: &Inst) {
    // SAFETY: by this function's contract.
    let (a, b, c) = unsafe { (*warp.source::<u32>(inst.a), *warp.source::<u32>(inst.b), *warp.source::<u32>(inst.c)) };
    let (mut result, mut inside) = (a, 0);
    for lane in (0..LANES as u32).filter(|lane| warp.mask >> lane & 1 == 1) {
        let (b, c) = (b[lane as usize] & 31, c[lane as usize]);
        let (clamp, segment) = (c & 31, c >> 8 & 31);
        let last = (lane & segment) | (clamp & !segment);
        let first = lane & segment;
        let (from, valid) = match inst.aux {
            0 => (lane.wrapping_sub(b), lane as i32 - b as i32 >= last as i32),
            1 => (lane + b, lane + b <= last),
            2 => (lane ^ b, lane ^ b <= last),
            _ => (first | (b & !segment), (first | (b & !segment)) <= last),
        };
        let from = if valid { from } else { lane };
        inside |= u32::from(valid) << lane;
        if warp.mask >> from & 1 == 0 {
            warp.fail(inst.line, Some(lane as usize), format!("shfl reads lane {from}, which does not take part"));
        }
        result[lane as usize] = a[from as usize];
    }
    // SAFETY: by this function's contract.
    unsafe { warp.set::<u32>(inst.d, &result) }
    if inst.list[0] != NONE {
        warp.set_predicate(inst.list[0], inside);
    }
}

pub const VOTES: [&str; 4] = ["all", "any", "uni", "ballot"];

/// d = vote of predicate a.
///
/// # Safety
/// As for `Exec`; d is a word for ballot, else a predicate.
pub unsafe fn vote(warp: &mut Warp, inst: &Inst) {
    let mask = warp.mask;
    let holds = warp.predicate(inst.a) & mask;
    let verdict = match inst.aux {
        0 => holds == mask,
        1 => holds != 0,
        2 => holds == 0 || holds == mask,
        _ => {
            // SAFETY: by this function's contract.
            unsafe { warp.set::<u32>(inst.d, &[holds; LANES]) };
            return;
        }
    };
    warp.set_predicate(inst.d, if verdict { u32::MAX } else { 0 });
}

/// activemask
///
/// # Safety
/// As for `Exec`; d is a word.
pub unsafe fn active_mask(warp: &mut Warp, inst: &Inst) {
    let mask = warp.mask;
    // SAFETY: by this function's contract.
    unsafe { warp.set::<u32>(inst.d, &[mask; LANES]) }
}

/// match: d = the lanes whose a is the same as this lane's. `aux` 1: all; then d is 0 unless all agree, and p says so.
///
/// # Safety
/// As for `Exec`; d and a are words, the list has p (or NONE) first.
pub unsafe fn matching(warp: &mut Warp, inst: &Inst) {
    let mask = warp.mask;
    // SAFETY: by this function's contract.
    let a = unsafe { *warp.source::<u32>(inst.a) };
    let mut result = [0u32; LANES];
    for lane in 0..LANES {
        for other in lanes(mask) {
            result[lane] |= u32::from(a[lane] == a[other]) << other;
        }
    }
    if inst.aux == 1 {
        let agree = result[mask.trailing_zeros() as usize] == mask;
        result = [if agree { mask } else { 0 }; LANES];
        if inst.list[0] != NONE {
            warp.set_predicate(inst.list[0], if agree { u32::MAX } else { 0 });
        }
    }
    // SAFETY: by this function's contract.
    unsafe { warp.set::<u32>(inst.d, &result) }
}

pub const REDUCTIONS: [&str; 8] =
    ["add.u32", "add.s32", "min.u32", "max.u32", "min.s32", "max.s32", "and.b32", "or.b32"];

/// redux: d = all lanes' a together; `aux` beyond the list is xor.b32.
///
/// # Safety
/// As for `Exec`; d and a are words.
pub unsafe fn reduce(warp: &mut Warp, inst: &Inst) {
    let mask = warp.mask;
    // SAFETY: by this function's contract.
    let a = unsafe { *warp.source::<u32>(inst.a) };
    let values = lanes(mask).map(|lane| a[lane]);
    let result = values.reduce(|x, y| match inst.aux {
        0 | 1 => x.wrapping_add(y),
        2 => x.min(y),
        3 => x.max(y),
        4 => (x as i32).min(y as i32) as u32,
        5 => (x as i32).max(y as i32) as u32,
        6 => x & y,
        7 => x | y,
        _ => x ^ y,
    });
    // SAFETY: by this function's contract.
    unsafe { warp.set::<u32>(inst.d, &[result.unwrap_or(0); LANES]) }
}

/// elect: one lane of the member mask is the leader; d = which, p = whether it is this one.
///
/// # Safety
/// As for `Exec`; d is a word or NONE, the list has p first.
pub unsafe fn elect(warp: &mut Warp, inst: &Inst) {
    let leader = warp.mask.trailing_zeros();
    if inst.d != NONE {
        // SAFETY: by this function's contract.
        unsafe { warp.set::<u32>(inst.d, &[leader; LANES]) }
    }
    warp.set_predicate(inst.list[0], 1 << leader);
}
