//! Comparisons, selections and logic on predicates (PTX ISA, "Comparison and Selection Instructions").
//!
//! A predicate is a word with a bit a lane.

use crate::half::{bf16_to_f32, f16_to_f32};
use crate::machine::warp::Warp;
use crate::ops::{Lane, exec};
use crate::program::{Exec, Inst, LANES};

/// What `aux` says about the predicate c with which a comparison is combined.
pub const COMBINE: [&str; 4] = ["", "and", "or", "xor"];
/// The operand is absent.
pub const NONE: u32 = u32::MAX;

/// setp: d = f(a, b) op c; and, where the list has a second target, !f(a, b) op c.
///
/// # Safety
/// As for `Exec`.
#[inline(always)]
unsafe fn test<A: Lane>(warp: &mut Warp, inst: &Inst, f: impl Fn(A, A) -> bool) {
    // SAFETY: by this function's contract.
    let (a, b) = unsafe { (&*warp.source::<A>(inst.a), &*warp.source::<A>(inst.b)) };
    let mut holds = 0;
    for lane in 0..LANES {
        holds |= u32::from(f(A::get(a[lane]), A::get(b[lane]))) << lane;
    }
    let (other, combine): (u32, fn(u32, u32) -> u32) = match inst.aux {
        0 => (0, |test, _| test),
        1 => (warp.predicate(inst.c), |test, other| test & other),
        2 => (warp.predicate(inst.c), |test, other| test | other),
        _ => (warp.predicate(inst.c), |test, other| test ^ other),
    };
    warp.set_predicate(inst.d, combine(holds, other));
    if let Some(&second) = inst.list.first() {
        warp.set_predicate(second, combine(!holds, other));
    }
}

macro_rules! integers {
    ($name:expr, $($unsigned:literal $signed:literal $bits:literal $u:ty, $s:ty;)*) => {
        match $name {
            $(
                concat_eq if concat_eq == concat!("eq.", $unsigned) || concat_eq == concat!("eq.", $signed)
                    || concat_eq == concat!("eq.", $bits) => Some(exec!(|w, i| test::<$u>(w, i, |a: $u, b: $u| a == b))),
                other if other == concat!("ne.", $unsigned) || other == concat!("ne.", $signed)
                    || other == concat!("ne.", $bits) => Some(exec!(|w, i| test::<$u>(w, i, |a: $u, b: $u| a != b))),
                other if other == concat!("lt.", $signed) => Some(exec!(|w, i| test::<$s>(w, i, |a: $s, b: $s| a < b))),
                other if other == concat!("le.", $signed) => Some(exec!(|w, i| test::<$s>(w, i, |a: $s, b: $s| a <= b))),
                other if other == concat!("gt.", $signed) => Some(exec!(|w, i| test::<$s>(w, i, |a: $s, b: $s| a > b))),
                other if other == concat!("ge.", $signed) => Some(exec!(|w, i| test::<$s>(w, i, |a: $s, b: $s| a >= b))),
                other if other == concat!("lt.", $unsigned) || other == concat!("lo.", $unsigned) =>
                    Some(exec!(|w, i| test::<$u>(w, i, |a: $u, b: $u| a < b))),
                other if other == concat!("le.", $unsigned) || other == concat!("ls.", $unsigned) =>
                    Some(exec!(|w, i| test::<$u>(w, i, |a: $u, b: $u| a <= b))),
                other if other == concat!("gt.", $unsigned) || other == concat!("hi.", $unsigned) =>
                    Some(exec!(|w, i| test::<$u>(w, i, |a: $u, b: $u| a > b))),
                other if other == concat!("ge.", $unsigned) || other == concat!("hs.", $unsigned) =>
                    Some(exec!(|w, i| test::<$u>(w, i, |a: $u, b: $u| a >= b))),
            )*
            _ => None,
        }
    };
}

/// The unordered comparisons hold where either operand is NaN.
macro_rules! floats {
    ($name:expr, $lane:ty, $real:expr) => {
        match $name {
            "eq" => Some(exec!(|w, i| test::<$lane>(w, i, |a, b| $real(a) == $real(b)))),
            "ne" => Some(exec!(|w, i| test::<$lane>(w, i, |a, b| $real(a) < $real(b) || $real(a) > $real(b)))),
            "lt" => Some(exec!(|w, i| test::<$lane>(w, i, |a, b| $real(a) < $real(b)))),
            "le" => Some(exec!(|w, i| test::<$lane>(w, i, |a, b| $real(a) <= $real(b)))),
            "gt" => Some(exec!(|w, i| test::<$lane>(w, i, |a, b| $real(a) > $real(b)))),
            "ge" => Some(exec!(|w, i| test::<$lane>(w, i, |a, b| $real(a) >= $real(b)))),
            "equ" => Some(exec!(|w, i| test::<$lane>(w, i, |a, b| !($real(a) < $real(b) || $real(a) > $real(b))))),
            "neu" => Some(exec!(|w, i| test::<$lane>(w, i, |a, b| $real(a) != $real(b)))),
            "ltu" => Some(exec!(|w, i| test::<$lane>(w, i, |a, b| !($real(a) >= $real(b))))),
            "leu" => Some(exec!(|w, i| test::<$lane>(w, i, |a, b| !($real(a) > $real(b))))),
            "gtu" => Some(exec!(|w, i| test::<$lane>(w, i, |a, b| !($real(a) <= $real(b))))),
            "geu" => Some(exec!(|w, i| test::<$lane>(w, i, |a, b| !($real(a) < $real(b))))),
            "num" => Some(exec!(|w, i| test::<$lane>(w, i, |a, b| !$real(a).is_nan() && !$real(b).is_nan()))),
            "nan" => Some(exec!(|w, i| test::<$lane>(w, i, |a, b| $real(a).is_nan() || $real(b).is_nan()))),
            _ => None,
        }
    };
}

fn same32(value: f32) -> f32 {
    value
}

fn same64(value: f64) -> f64 {
    value
}

/// The function for a comparison ("lt") of a type ("f32").
#[allow(clippy::neg_cmp_op_on_partial_ord)]
pub fn find(comparison: &str, kind: &str) -> Option<Exec> {
    match kind {
        "f16" => floats!(comparison, u16, f16_to_f32),
        "bf16" => floats!(comparison, u16, bf16_to_f32),
        "f32" => floats!(comparison, f32, same32),
        "f64" => floats!(comparison, f64, same64),
        _ => integers!(format!("{comparison}.{kind}").as_str(),
            "u16" "s16" "b16" u16, i16;
            "u32" "s32" "b32" u32, i32;
            "u64" "s64" "b64" u64, i64;
        ),
    }
}

/// selp: d = c ? a : b
///
/// # Safety
/// As for `Exec`.
#[inline(always)]
unsafe fn select<T: Lane>(warp: &mut Warp, inst: &Inst) {
    let chosen = warp.predicate(inst.c);
    let mut result = [T::Raw::default(); LANES];
    // SAFETY: by this function's contract.
    let (a, b) = unsafe { (&*warp.source::<T>(inst.a), &*warp.source::<T>(inst.b)) };
    for lane in 0..LANES {
        result[lane] = if chosen >> lane & 1 == 1 { a[lane] } else { b[lane] };
    }
    // SAFETY: by this function's contract.
    unsafe { warp.set::<T>(inst.d, &result) }
}

pub fn selection(wide: bool) -> Exec {
    if wide { exec!(|w, i| select::<u64>(w, i)) } else { exec!(|w, i| select::<u32>(w, i)) }
}

/// Logic on predicates; `aux` is the index of the operation in this list.
pub const LOGIC: [&str; 5] = ["and", "or", "xor", "not", "mov"];

/// # Safety
/// As for `Exec`; a, b and d are predicates.
pub unsafe fn logic(warp: &mut Warp, inst: &Inst) {
    let (a, b) = (warp.predicate(inst.a), warp.predicate(inst.b));
    let value = match inst.aux {
        0 => a & b,
        1 => a | b,
        2 => a ^ b,
        3 => !a,
        _ => a,
    };
    warp.set_predicate(inst.d, value);
}

/// A predicate that is the same for all lanes: `mov.pred p, 1`.
///
/// # Safety
/// As for `Exec`; d is a predicate.
pub unsafe fn constant(warp: &mut Warp, inst: &Inst) {
    warp.set_predicate(inst.d, if inst.imm != 0 { u32::MAX } else { 0 });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_comparison_of_every_type_exists() {
        for kind in ["u16", "s16", "u32", "s32", "u64", "s64"] {
            for comparison in ["eq", "ne", "lt", "le", "gt", "ge"] {
                assert!(find(comparison, kind).is_some(), "{comparison}.{kind}");
            }
        }
        for kind in ["f16", "bf16", "f32", "f64"] {
            for comparison in
                ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"]
            {
                assert!(find(comparison, kind).is_some(), "{comparison}.{kind}");
            }
        }
        assert!(find("lt", "b32").is_none());
    }
}
