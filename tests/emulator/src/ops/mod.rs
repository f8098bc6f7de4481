//! What instructions do.
//!
//! The arithmetic ones are rows of tables: mnemonics, a shape (how many operands, of which types), and a function of one
//! lane. A row becomes two functions over lane arrays, one for any CPU and one for x86-64-v3, which rustc vectorises.

pub mod async_copy;
pub mod atomic;
pub mod bulk_copy;
pub mod cluster;
pub mod compare;
pub mod convert;
pub mod float;
pub mod integer;
pub mod mbarrier;
pub mod memory;
pub mod moves;
pub mod small_float;
pub mod warp_wide;

use std::sync::OnceLock;

use crate::machine::warp::Warp;
use crate::program::{Exec, Inst, LANES};

/// What a register of one lane may hold.
pub trait Lane: Copy {
    type Raw: Copy + Default;
    /// A double, not a word.
    const WIDE: bool;
    fn get(raw: Self::Raw) -> Self;
    fn put(self) -> Self::Raw;
}

macro_rules! lanes {
    ($($type:ty, $raw:ty, $wide:literal, $get:expr, $put:expr;)*) => {
        $(impl Lane for $type {
            type Raw = $raw;
            const WIDE: bool = $wide;
            #[inline(always)]
            fn get(raw: $raw) -> Self {
                ($get)(raw)
            }
            #[inline(always)]
            fn put(self) -> $raw {
                ($put)(self)
            }
        })*
    };
}

lanes! {
    u8, u32, false, |raw| raw as u8, u32::from;
    i8, u32, false, |raw| raw as i8, |value| value as i32 as u32;
    u16, u32, false, |raw| raw as u16, u32::from;
    i16, u32, false, |raw| raw as i16, |value| value as u16 as u32;
    u32, u32, false, |raw| raw, |value| value;
    i32, u32, false, |raw| raw as i32, |value| value as u32;
    f32, u32, false, f32::from_bits, f32::to_bits;
    u64, u64, true, |raw| raw, |value| value;
    i64, u64, true, |raw| raw as i64, |value| value as u64;
    f64, u64, true, f64::from_bits, f64::to_bits;
}

/// A row of a table: the function, and which of the operands (destination first) are doubles.
#[derive(Clone, Copy)]
pub struct Entry {
    pub exec: Exec,
    pub wide: &'static [bool],
}

/// The faster of two functions that this CPU has the features for.
pub fn pick(plain: Exec, fast: Exec) -> Exec {
    static FAST: OnceLock<bool> = OnceLock::new();
    let fast_here = *FAST.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            ["avx2", "fma", "bmi1", "bmi2", "f16c", "lzcnt", "popcnt"].len() == 7
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("popcnt")
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    });
    if fast_here { fast } else { plain }
}

/// The function that does `$body` with the warp and the instruction, compiled twice.
macro_rules! exec {
    (|$warp:ident, $inst:ident| $body:expr) => {{
        unsafe fn plain($warp: &mut $crate::machine::warp::Warp, $inst: &$crate::program::Inst) {
            // SAFETY: the caller keeps the contract of `Exec`.
            unsafe { $body }
        }
        #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt"))]
        unsafe fn fast($warp: &mut $crate::machine::warp::Warp, $inst: &$crate::program::Inst) {
            // SAFETY: as above, and `pick` looked at the CPU.
            unsafe { $body }
        }
        $crate::ops::pick(plain, fast)
    }};
}
pub(crate) use exec;

macro_rules! table {
    ($($($name:literal)|+ => $shape:ident::<$($type:ty),+>($function:expr);)*) => {
        /// The row for a mnemonic.
        pub fn find(name: &str) -> Option<$crate::ops::Entry> {
            match name {
                $($($name)|+ => Some($crate::ops::Entry {
                    exec: $crate::ops::exec!(|warp, inst| $shape::<$($type),+>(warp, inst, $function)),
                    wide: &[$(<$type as $crate::ops::Lane>::WIDE),+],
                }),)*
                _ => None,
            }
        }
    };
}
pub(crate) use table;

/// d = f(a)
///
/// # Safety
/// As for `Exec`; the same holds for the other shapes.
#[inline(always)]
pub unsafe fn map1<D: Lane, A: Lane>(warp: &mut Warp, inst: &Inst, f: impl Fn(A) -> D) {
    let mut result = [D::Raw::default(); LANES];
    // SAFETY: by this function's contract.
    let a = unsafe { &*warp.source::<A>(inst.a) };
    for lane in 0..LANES {
        result[lane] = f(A::get(a[lane])).put();
    }
    // SAFETY: by this function's contract.
    unsafe { warp.set::<D>(inst.d, &result) }
}

/// d = f(a, b)
///
/// # Safety
/// As for `map1`.
#[inline(always)]
pub unsafe fn map2<D: Lane, A: Lane, B: Lane>(warp: &mut Warp, inst: &Inst, f: impl Fn(A, B) -> D) {
    let mut result = [D::Raw::default(); LANES];
    // SAFETY: by this function's contract.
    let (a, b) = unsafe { (&*warp.source::<A>(inst.a), &*warp.source::<B>(inst.b)) };
    for lane in 0..LANES {
        result[lane] = f(A::get(a[lane]), B::get(b[lane])).put();
    }
    // SAFETY: by this function's contract.
    unsafe { warp.set::<D>(inst.d, &result) }
}

/// d = f(a, b, c)
///
/// # Safety
/// As for `map1`.
#[inline(always)]
pub unsafe fn map3<D: Lane, A: Lane, B: Lane, C: Lane>(warp: &mut Warp, inst: &Inst, f: impl Fn(A, B, C) -> D) {
    let mut result = [D::Raw::default(); LANES];
    // SAFETY: by this function's contract.
    let (a, b, c) = unsafe { (&*warp.source::<A>(inst.a), &*warp.source::<B>(inst.b), &*warp.source::<C>(inst.c)) };
    for lane in 0..LANES {
        result[lane] = f(A::get(a[lane]), B::get(b[lane]), C::get(c[lane])).put();
    }
    // SAFETY: by this function's contract.
    unsafe { warp.set::<D>(inst.d, &result) }
}

/// d = f(a, b, c, e), with e the first of the list: bfi.
///
/// # Safety
/// As for `map1`.
#[inline(always)]
pub unsafe fn map4<D: Lane, A: Lane, B: Lane, C: Lane, E: Lane>(
    warp: &mut Warp,
    inst: &Inst,
    f: impl Fn(A, B, C, E) -> D,
) {
    let mut result = [D::Raw::default(); LANES];
    // SAFETY: by this function's contract.
    let (a, b, c, e) = unsafe {
        (
            &*warp.source::<A>(inst.a),
            &*warp.source::<B>(inst.b),
            &*warp.source::<C>(inst.c),
            &*warp.source::<E>(inst.list[0]),
        )
    };
    for lane in 0..LANES {
        result[lane] = f(A::get(a[lane]), B::get(b[lane]), C::get(c[lane]), E::get(e[lane])).put();
    }
    // SAFETY: by this function's contract.
    unsafe { warp.set::<D>(inst.d, &result) }
}

/// The row for an arithmetic mnemonic.
pub fn find(name: &str) -> Option<Entry> {
    integer::find(name)
        .or_else(|| float::find(name))
        .or_else(|| small_float::find(name))
        .or_else(|| convert::find(name))
}
