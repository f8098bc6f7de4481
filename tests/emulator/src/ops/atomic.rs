//! atom and red (PTX ISA, "Parallel Synchronization and Communication Instructions: atom, red"), lane after lane, atomic on
//! the host too, since blocks run on several threads.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::machine::address::Space;
use crate::machine::warp::Warp;
use crate::ops::compare::NONE;
use crate::ops::float::less;
use crate::program::{Exec, Inst, LANES, lanes};

/// What a bit pattern becomes with operands b and c.
type Update = fn(u64, u64, u64) -> u64;

fn pairs(f: fn(u64, u64, u64) -> u64, old: u64, b: u64) -> u64 {
    f(old & 0xffff, b & 0xffff, 0) | f(old >> 16, b >> 16, 0) << 16
}

fn add_f16(old: u64, b: u64, _: u64) -> u64 {
    f32_to_f16(f16_to_f32(old as u16) + f16_to_f32(b as u16)).into()
}

fn add_bf16(old: u64, b: u64, _: u64) -> u64 {
    f32_to_bf16(bf16_to_f32(old as u16) + bf16_to_f32(b as u16)).into()
}

fn f32s(f: impl Fn(f32, f32) -> f32, old: u64, b: u64) -> u64 {
    f(f32::from_bits(old as u32), f32::from_bits(b as u32)).to_bits().into()
}

fn update(name: &str) -> Option<Update> {
    Some(match name {
        "add.u32" | "add.s32" => |old, b, _| (old as u32).wrapping_add(b as u32).into(),
        "add.u64" | "add.s64" => |old, b, _| old.wrapping_add(b),
        "add.f32" => |old, b, _| f32s(|a, b| a + b, old, b),
        "add.f64" => |old, b, _| (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        "add.f16" => add_f16,
        "add.bf16" => add_bf16,
        "add.f16x2" => |old, b, _| pairs(add_f16, old, b),
        "add.bf16x2" => |old, b, _| pairs(add_bf16, old, b),
        "min.u32" => |old, b, _| (old as u32).min(b as u32).into(),
        "min.s32" => |old, b, _| ((old as i32).min(b as i32) as u32).into(),
        "min.u64" => |old, b, _| old.min(b),
        "min.s64" => |old, b, _| (old as i64).min(b as i64) as u64,
        "min.f32" => |old, b, _| f32s(|a, b| less(a, b, false), old, b),
        "max.u32" => |old, b, _| (old as u32).max(b as u32).into(),
        "max.s32" => |old, b, _| ((old as i32).max(b as i32) as u32).into(),
        "max.u64" => |old, b, _| old.max(b),
        "max.s64" => |old, b, _| (old as i64).max(b as i64) as u64,
        "max.f32" => |old, b, _| f32s(|a, b| -less(-a, -b, false), old, b),
        "inc.u32" => |old, b, _| if old >= b { 0 } else { old + 1 },
        "dec.u32" => |old, b, _| if old == 0 || old > b { b } else { old - 1 },
        "and.b32" | "and.b64" => |old, b, _| old & b,
        "or.b32" | "or.b64" => |old, b, _| old | b,
        "xor.b32" | "xor.b64" => |old, b, _| old ^ b,
        "exch.b32" | "exch.b64" => |_, b, _| b,
        "cas.b16" | "cas.b32" | "cas.b64" => |old, b, c| if old == b { c } else { old },
        _ => return None,
    })
}

const NAMES: [&str; 36] = [
    "add.u32",
    "add.s32",
    "add.u64",
    "add.s64",
    "add.f32",
    "add.f64",
    "add.f16",
    "add.bf16",
    "add.f16x2",
    "add.bf16x2",
    "min.u32",
    "min.s32",
    "min.u64",
    "min.s64",
    "min.f32",
    "max.u32",
    "max.s32",
    "max.u64",
    "max.s64",
    "max.f32",
    "inc.u32",
    "dec.u32",
    "and.b32",
    "and.b64",
    "or.b32",
    "or.b64",
    "xor.b32",
    "xor.b64",
    "exch.b32",
    "exch.b64",
    "cas.b16",
    "cas.b32",
    "cas.b64",
    "",
    "",
    "",
];

/// The function and `aux` of an operation and type ("add.f32"), in a space.
pub fn find(name: &str, space: Space) -> Option<(Exec, u32)> {
    let at = NAMES.iter().position(|known| *known == name && !known.is_empty())?;
    Some((atomic, at as u32 | (space as u32) << 8))
}

/// d, if there is one, = [a + imm]; [a + imm] = f([a + imm], b, c). `list` is d, b and, for cas, c.
///
/// # Safety
/// As for `Exec`; a is a double, the list of the type's width.
unsafe fn atomic(warp: &mut Warp, inst: &Inst) {
    let name = NAMES[(inst.aux & 255) as usize];
    let update = update(name).expect("find() knew it");
    let bytes = crate::parse::type_bytes(name.rsplit('.').next().unwrap_or("")).unwrap_or(4);
    let space = match inst.aux >> 8 {
        1 => Space::Global,
        2 => Space::Shared,
        _ => Space::Generic,
    };
    let wide = bytes == 8;
    let operand = |warp: &Warp, at: usize, lane: usize| -> u64 {
        // SAFETY: by this function's contract.
        inst.list.get(at).map_or(0, |&operand| unsafe {
            if wide { (*warp.source::<u64>(operand))[lane] } else { (*warp.source::<u32>(operand))[lane].into() }
        })
    };
    // SAFETY: as above.
    let addresses = unsafe { *warp.source::<u64>(inst.a) };
    let mut results = [0u64; LANES];
    for lane in lanes(warp.mask) {
        let address = addresses[lane].wrapping_add(inst.imm as u64);
        let pointer = warp.pointer(inst, lane, space, address, bytes as u64, bytes as u64);
        let mask = if wide { u64::MAX } else { (1 << (8 * bytes)) - 1 };
        let (b, c) = (operand(warp, 1, lane) & mask, operand(warp, 2, lane) & mask);
        // SAFETY: the pointer was checked for size and alignment, and the memory is only used as plain words meanwhile.
        results[lane] = unsafe {
            match bytes {
                2 => AtomicU16::from_ptr(pointer.cast())
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some(update(old.into(), b, c) as u16))
                    .map_or(0, u64::from),
                4 => AtomicU32::from_ptr(pointer.cast())
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some(update(old.into(), b, c) as u32))
                    .map_or(0, u64::from),
                _ => AtomicU64::from_ptr(pointer.cast())
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some(update(old, b, c)))
                    .unwrap_or(0),
            }
        };
    }
    if inst.list[0] != NONE {
        // SAFETY: by this function's contract.
        unsafe {
            if wide {
                warp.set::<u64>(inst.list[0], &results);
            } else {
                warp.set::<u32>(inst.list[0], &results.map(|value| value as u32));
            }
        }
    }
}
