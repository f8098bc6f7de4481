//! cvt (PTX ISA, "Data Movement and Conversion Instructions: cvt"): rows for the frequent pairs of types, and one general
//! function for all others.

use crate::half::{BF16, F16, F32, Format, Rounding, TF32, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, narrow};
use crate::machine::warp::Warp;
use crate::ops::float::saturate;
use crate::ops::{map1, map2, table};
use crate::program::{Exec, Inst, LANES};

table! {
    "cvt.u64.u32" => map1::<u64, u32>(|a: u32| u64::from(a));
    "cvt.s64.s32" => map1::<i64, i32>(|a: i32| i64::from(a));
    "cvt.u32.u64" | "cvt.s32.s64" => map1::<u32, u64>(|a: u64| a as u32);
    "cvt.u32.u16" => map1::<u32, u16>(|a: u16| u32::from(a));
    "cvt.s32.s16" => map1::<i32, i16>(|a: i16| i32::from(a));
    "cvt.u16.u32" | "cvt.s16.s32" => map1::<u16, u32>(|a: u32| a as u16);
    "cvt.rn.f32.s32" => map1::<f32, i32>(|a: i32| a as f32);
    "cvt.rn.f32.u32" => map1::<f32, u32>(|a: u32| a as f32);
    "cvt.f32.f16" => map1::<f32, u16>(f16_to_f32);
    "cvt.f32.bf16" => map1::<f32, u16>(bf16_to_f32);
    "cvt.rn.f16.f32" => map1::<u16, f32>(f32_to_f16);
    "cvt.rn.bf16.f32" => map1::<u16, f32>(f32_to_bf16);
    "cvt.f64.f32" => map1::<f64, f32>(|a: f32| f64::from(a));
    "cvt.rn.f32.f64" => map1::<f32, f64>(|a: f64| a as f32);
    "cvt.sat.f32.f32" => map1::<f32, f32>(saturate);
    // The first operand goes to the upper half.
    "cvt.rn.f16x2.f32" => map2::<u32, f32, f32>(|a, b| u32::from(f32_to_f16(a)) << 16 | u32::from(f32_to_f16(b)));
    "cvt.rn.bf16x2.f32" => map2::<u32, f32, f32>(|a, b| u32::from(f32_to_bf16(a)) << 16 | u32::from(f32_to_bf16(b)));
    "cvt.rn.relu.f16x2.f32" => map2::<u32, f32, f32>(|a: f32, b: f32| {
        u32::from(f32_to_f16(positive(a))) << 16 | u32::from(f32_to_f16(positive(b)))
    });
    "cvt.rn.relu.bf16x2.f32" => map2::<u32, f32, f32>(|a: f32, b: f32| {
        u32::from(f32_to_bf16(positive(a))) << 16 | u32::from(f32_to_bf16(positive(b)))
    });
    "cvt.rz.f16x2.f32" => map2::<u32, f32, f32>(|a, b| toward_zero(a, F16) << 16 | toward_zero(b, F16));
    "cvt.rz.bf16x2.f32" => map2::<u32, f32, f32>(|a, b| toward_zero(a, BF16) << 16 | toward_zero(b, BF16));
    // To nearest, ties away from zero.
    "cvt.rna.tf32.f32" => map1::<u32, f32>(|a: f32| {
        let bits = a.to_bits();
        if a.is_nan() { 0x7fff_ffff } else if a.is_infinite() { bits } else { (bits + 0x1000) & !0x1fff }
    });
    "cvt.rn.tf32.f32" => map1::<u32, f32>(|a: f32| narrow(f64::from(a), TF32, Rounding::Nearest) << 13);
}

fn positive(a: f32) -> f32 {
    if a < 0.0 { 0.0 } else { a }
}

fn toward_zero(a: f32, format: Format) -> u32 {
    narrow(f64::from(a), format, Rounding::Zero)
}

/// A scalar type of cvt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Unsigned(u32),
    Signed(u32),
    Float(Format),
    F64,
}

const NUMBERS: [(&str, Number); 12] = [
    ("u8", Number::Unsigned(8)),
    ("u16", Number::Unsigned(16)),
    ("u32", Number::Unsigned(32)),
    ("u64", Number::Unsigned(64)),
    ("s8", Number::Signed(8)),
    ("s16", Number::Signed(16)),
    ("s32", Number::Signed(32)),
    ("s64", Number::Signed(64)),
    ("f16", Number::Float(F16)),
    ("bf16", Number::Float(BF16)),
    ("f32", Number::Float(F32)),
    ("f64", Number::F64),
];

/// How to round, saturate and flush; the two types are indices into NUMBERS, 4 bits each, below the flags.
const ROUNDINGS: [&str; 9] = ["", "rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi"];
const SATURATE: u32 = 1 << 16;
const FLUSH: u32 = 1 << 17;
const WIDE_TO: u32 = 1 << 18;
const WIDE_FROM: u32 = 1 << 19;

/// The function and the `aux` of any scalar cvt; the flags say which registers are doubles.
pub fn general(mnemonic: &str, wide_to: bool, wide_from: bool) -> Option<(Exec, u32)> {
    let mut parts: Vec<&str> = mnemonic.split('.').skip(1).collect();
    let number = |name: Option<&str>| NUMBERS.iter().position(|(known, _)| Some(*known) == name);
    let from = number(parts.pop())?;
    let to = number(parts.pop())?;
    let mut aux = (to | from << 4) as u32;
    for part in parts {
        match part {
            "sat" => aux |= SATURATE,
            "ftz" => aux |= FLUSH,
            part => aux |= (ROUNDINGS.iter().position(|known| *known == part)? as u32) << 8,
        }
    }
    aux |= if wide_to { WIDE_TO } else { 0 } | if wide_from { WIDE_FROM } else { 0 };
    Some((convert, aux))
}

/// # Safety
/// As for `Exec`.
unsafe fn convert(warp: &mut Warp, inst: &Inst) {
    let mut source = [0u64; LANES];
    // SAFETY: lowering set the flags by the operands' widths.
    unsafe {
        if inst.aux & WIDE_FROM != 0 {
            source = *warp.source::<u64>(inst.a);
        } else {
            let words = &*warp.source::<u32>(inst.a);
            for lane in 0..LANES {
                source[lane] = u64::from(words[lane]);
            }
        }
    }
    let result = source.map(|value| one(value, inst.aux));
    // SAFETY: as above.
    unsafe {
        if inst.aux & WIDE_TO != 0 {
            warp.set::<u64>(inst.d, &result);
        } else {
            warp.set::<u32>(inst.d, &result.map(|value| value as u32));
        }
    }
}

enum Value {
    Integer(i128),
    Real(f64),
}

fn one(raw: u64, aux: u32) -> u64 {
    let (to, from) = (NUMBERS[(aux & 15) as usize].1, NUMBERS[(aux >> 4 & 15) as usize].1);
    let name = ROUNDINGS[(aux >> 8 & 15) as usize];
    let mode = match name.as_bytes().get(1) {
        Some(b'z') => Rounding::Zero,
        Some(b'm') => Rounding::Down,
        Some(b'p') => Rounding::Up,
        _ => Rounding::Nearest,
    };
    let mut value = match from {
        Number::Unsigned(bits) => Value::Integer(i128::from(raw & (u64::MAX >> (64 - bits)))),
        Number::Signed(bits) => Value::Integer(i128::from((raw << (64 - bits)) as i64 >> (64 - bits))),
        Number::Float(F16) => Value::Real(f64::from(f16_to_f32(raw as u16))),
        Number::Float(BF16) => Value::Real(f64::from(bf16_to_f32(raw as u16))),
        Number::Float(_) => {
            let single = f32::from_bits(raw as u32);
            Value::Real(f64::from(if aux & FLUSH != 0 { crate::ops::float::flush(single) } else { single }))
        }
        Number::F64 => Value::Real(f64::from_bits(raw)),
    };
    // To an integer, or to an integral value of the same type.
    let integral = name.ends_with('i') || matches!(to, Number::Unsigned(_) | Number::Signed(_));
    if let Value::Real(real) = value
        && integral
    {
        value = Value::Real(match mode {
            Rounding::Nearest => real.round_ties_even(),
            Rounding::Zero => real.trunc(),
            Rounding::Down => real.floor(),
            Rounding::Up => real.ceil(),
        });
    }
    let saturates = aux & SATURATE != 0;
    match to {
        Number::Unsigned(bits) => integer(value, 0, (1 << bits) - 1, saturates) as u64 & (u64::MAX >> (64 - bits)),
        Number::Signed(bits) => {
            let wrapped = integer(value, -(1 << (bits - 1)), (1 << (bits - 1)) - 1, saturates) as u64;
            ((wrapped << (64 - bits)) as i64 >> (64 - bits)) as u64
        }
        Number::Float(format) => {
            let real = clamp(real_to_odd(value), saturates);
            let bits = narrow(real, format, mode);
            if format == F32 && aux & FLUSH != 0 {
                crate::ops::float::flush(f32::from_bits(bits)).to_bits().into()
            } else {
                bits.into()
            }
        }
        Number::F64 => match value {
            Value::Integer(integer) => (integer as f64).to_bits(),
            Value::Real(real) => clamp(real, saturates).to_bits(),
        },
    }
}

fn clamp(real: f64, saturates: bool) -> f64 {
    match saturates {
        true if real > 0.0 => real.min(1.0),
        true => 0.0,
        false => real,
    }
}

/// Reals are always clamped, integers on demand; NaN becomes 0.
fn integer(value: Value, low: i128, high: i128, saturates: bool) -> i128 {
    match value {
        Value::Real(real) => (real as i128).clamp(low, high),
        Value::Integer(integer) if saturates => integer.clamp(low, high),
        Value::Integer(integer) => integer,
    }
}

/// An integer of more than 53 bits, rounded to odd, so that the rounding to the target's format is the only one.
fn real_to_odd(value: Value) -> f64 {
    match value {
        Value::Real(real) => real,
        Value::Integer(integer) => {
            let nearest = integer as f64;
            let rest = integer - nearest as i128;
            if rest == 0 || nearest.to_bits() & 1 == 1 {
                nearest
            } else if rest > 0 {
                nearest.next_up()
            } else {
                nearest.next_down()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cvt(mnemonic: &str, raw: u64) -> u64 {
        one(raw, general(mnemonic, false, false).unwrap().1)
    }

    #[test]
    fn reals_to_integers_are_rounded_and_clamped() {
        let bits = |value: f32| u64::from(value.to_bits());
        assert_eq!(cvt("cvt.rzi.s32.f32", bits(-2.7)) as i32, -2);
        assert_eq!(cvt("cvt.rmi.s32.f32", bits(-2.1)) as i32, -3);
        assert_eq!(cvt("cvt.rni.s32.f32", bits(2.5)), 2);
        assert_eq!(cvt("cvt.rpi.u32.f32", bits(-5.0)), 0);
        assert_eq!(cvt("cvt.rzi.u32.f32", bits(1e20)), u64::from(u32::MAX));
        assert_eq!(cvt("cvt.rzi.s32.f32", bits(f32::NAN)), 0);
        assert_eq!(cvt("cvt.rmi.f32.f32", bits(2.7)), bits(2.0));
    }

    #[test]
    fn integers() {
        assert_eq!(cvt("cvt.s32.s8", 0x1ff) as i32, -1);
        assert_eq!(cvt("cvt.u8.u32", 0x1ff), 0xff);
        assert_eq!(cvt("cvt.sat.u8.s32", (-5i32) as u32 as u64), 0);
        assert_eq!(cvt("cvt.sat.s8.s32", 300), 127);
    }

    #[test]
    fn integers_to_reals_round_once() {
        assert_eq!(cvt("cvt.rn.f16.s32", 2049), 0x6800);
        assert_eq!(cvt("cvt.rp.f32.s32", 0x0100_0001) as u32, 16_777_218f32.to_bits());
        assert_eq!(cvt("cvt.rz.f32.s32", 0x0100_0003) as u32, 16_777_218f32.to_bits());
        // 2^62 + 2^38 + 1 lies just above a tie of f32.
        let large = (1u64 << 62) + (1 << 38) + 1;
        assert_eq!(f32::from_bits(cvt("cvt.rn.f32.u64", large) as u32), 2f32.powi(62) + 2f32.powi(39));
    }
}
