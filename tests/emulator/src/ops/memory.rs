//! ld and st (PTX ISA, "Data Movement and Conversion Instructions: ld, st").

use crate::machine::address::Space;
use crate::machine::warp::Warp;
use crate::ops::compare::NONE;
use crate::ops::{Lane, exec};
use crate::program::{ALL, Exec, Inst, LANES};

/// `T` as memory holds it, to and from the raw register of a lane.
trait Stored: Copy {
    fn load(self) -> u64;
    fn store(raw: u64) -> Self;
}

macro_rules! stored {
    ($($type:ty),*) => {
        $(impl Stored for $type {
            #[inline(always)]
            fn load(self) -> u64 {
                self as i64 as u64
            }
            #[inline(always)]
            fn store(raw: u64) -> Self {
                raw as Self
            }
        })*
    };
}
stored!(u8, i8, u16, i16, u32, i32, u64);

/// A word or double register.
trait Cell: Lane {
    fn of(value: u64) -> Self::Raw;
    fn to(raw: Self::Raw) -> u64;
}
impl Cell for u32 {
    #[inline(always)]
    fn of(value: u64) -> u32 {
        value as u32
    }
    #[inline(always)]
    fn to(raw: u32) -> u64 {
        raw.into()
    }
}
impl Cell for u64 {
    #[inline(always)]
    fn of(value: u64) -> u64 {
        value
    }
    #[inline(always)]
    fn to(raw: u64) -> u64 {
        raw
    }
}

/// Host pointers of `list.len()` values of `T` at [a + imm].
///
/// # Safety
/// As for `Exec`; a is a double.
#[inline(always)]
unsafe fn pointers<T>(warp: &mut Warp, inst: &Inst, space: Space) -> [*mut u8; LANES] {
    // SAFETY: by this function's contract.
    let mut addresses = unsafe { *warp.source::<u64>(inst.a) };
    for address in &mut addresses {
        *address = address.wrapping_add(inst.imm as u64);
    }
    let bytes = (inst.list.len() * size_of::<T>()) as u64;
    warp.pointers(inst, space, &addresses, bytes, bytes)
}

/// # Safety
/// As for `Exec`; a is a double, the list has registers of `D`'s width.
#[inline(always)]
unsafe fn load<T: Stored, D: Cell>(warp: &mut Warp, inst: &Inst, space: Space) {
    // SAFETY: by this function's contract.
    let from = unsafe { pointers::<T>(warp, inst, space) };
    let mask = warp.mask;
    for (at, &to) in inst.list.iter().enumerate() {
        if to == NONE {
            continue;
        }
        let mut values = [D::Raw::default(); LANES];
        for lane in 0..LANES {
            if mask == ALL || mask >> lane & 1 == 1 {
                // SAFETY: the pointer was checked for all of the list's values; a race is the kernel's own.
                values[lane] = D::of(unsafe { from[lane].cast::<T>().add(at).read() }.load());
            }
        }
        // SAFETY: by this function's contract.
        unsafe { warp.set::<D>(to, &values) }
    }
}

/// # Safety
/// As for `load`.
#[inline(always)]
unsafe fn store<T: Stored, D: Cell>(warp: &mut Warp, inst: &Inst, space: Space) {
    // SAFETY: by this function's contract.
    let to = unsafe { pointers::<T>(warp, inst, space) };
    let mask = warp.mask;
    for (at, &from) in inst.list.iter().enumerate() {
        // SAFETY: by this function's contract.
        let values = unsafe { &*warp.source::<D>(from) };
        for lane in 0..LANES {
            if mask == ALL || mask >> lane & 1 == 1 {
                // SAFETY: as in `load`.
                unsafe { to[lane].cast::<T>().add(at).write(T::store(D::to(values[lane]))) }
            }
        }
    }
}

macro_rules! spaces {
    ($function:ident, $t:ty, $d:ty, $space:expr) => {
        match $space {
            Space::Generic => exec!(|w, i| $function::<$t, $d>(w, i, Space::Generic)),
            Space::Global => exec!(|w, i| $function::<$t, $d>(w, i, Space::Global)),
            Space::Shared => exec!(|w, i| $function::<$t, $d>(w, i, Space::Shared)),
            Space::Local => exec!(|w, i| $function::<$t, $d>(w, i, Space::Local)),
            Space::Param => exec!(|w, i| $function::<$t, $d>(w, i, Space::Param)),
        }
    };
}

/// The load of a type into words or doubles. Narrow signed types are extended (PTX ISA, "Operand Size Exceeding
/// Instruction-Type Size").
pub fn loading(space: Space, kind: &str, wide: bool) -> Option<Exec> {
    Some(match (kind, wide) {
        ("b8" | "u8", false) => spaces!(load, u8, u32, space),
        ("b8" | "u8", true) => spaces!(load, u8, u64, space),
        ("s8", false) => spaces!(load, i8, u32, space),
        ("s8", true) => spaces!(load, i8, u64, space),
        ("b16" | "u16", false) => spaces!(load, u16, u32, space),
        ("b16" | "u16", true) => spaces!(load, u16, u64, space),
        ("s16", false) => spaces!(load, i16, u32, space),
        ("s16", true) => spaces!(load, i16, u64, space),
        ("b32" | "u32" | "s32" | "f32", false) => spaces!(load, u32, u32, space),
        ("b32" | "u32", true) => spaces!(load, u32, u64, space),
        ("s32", true) => spaces!(load, i32, u64, space),
        ("b64" | "u64" | "s64" | "f64", true) => spaces!(load, u64, u64, space),
        _ => return None,
    })
}

pub fn storing(space: Space, kind: &str, wide: bool) -> Option<Exec> {
    Some(match (kind, wide) {
        ("b8" | "u8" | "s8", false) => spaces!(store, u8, u32, space),
        ("b8" | "u8" | "s8", true) => spaces!(store, u8, u64, space),
        ("b16" | "u16" | "s16", false) => spaces!(store, u16, u32, space),
        ("b16" | "u16" | "s16", true) => spaces!(store, u16, u64, space),
        ("b32" | "u32" | "s32" | "f32", false) => spaces!(store, u32, u32, space),
        ("b32" | "u32" | "s32", true) => spaces!(store, u32, u64, space),
        ("b64" | "u64" | "s64" | "f64", true) => spaces!(store, u64, u64, space),
        _ => return None,
    })
}
