//! f32 and f64 arithmetic (PTX ISA, "Floating Point Instructions").
//!
//! The approximations (.approx, .full) are computed exactly and rounded: closer than the device, within its bounds.

use crate::half::{Rounding, to_f32, two_sum};
use crate::ops::{map1, map2, map3, table};

macro_rules! directed {
    (add, $mode:ident) => {
        |a: f32, b: f32| sum(f64::from(a), f64::from(b), Rounding::$mode)
    };
    (sub, $mode:ident) => {
        |a: f32, b: f32| sum(f64::from(a), -f64::from(b), Rounding::$mode)
    };
    (mul, $mode:ident) => {
        |a: f32, b: f32| to_f32(f64::from(a) * f64::from(b), 0.0, Rounding::$mode)
    };
    (fma, $mode:ident) => {
        |a: f32, b: f32, c: f32| sum(f64::from(a) * f64::from(b), f64::from(c), Rounding::$mode)
    };
}

table! {
    "add.f32" | "add.rn.f32" => map2::<f32, f32, f32>(|a, b| a + b);
    "add.rz.f32" => map2::<f32, f32, f32>(directed!(add, Zero));
    "add.rm.f32" => map2::<f32, f32, f32>(directed!(add, Down));
    "add.rp.f32" => map2::<f32, f32, f32>(directed!(add, Up));
    "add.f64" | "add.rn.f64" => map2::<f64, f64, f64>(|a, b| a + b);
    "sub.f32" | "sub.rn.f32" => map2::<f32, f32, f32>(|a, b| a - b);
    "sub.rz.f32" => map2::<f32, f32, f32>(directed!(sub, Zero));
    "sub.rm.f32" => map2::<f32, f32, f32>(directed!(sub, Down));
    "sub.rp.f32" => map2::<f32, f32, f32>(directed!(sub, Up));
    "sub.f64" | "sub.rn.f64" => map2::<f64, f64, f64>(|a, b| a - b);
    "mul.f32" | "mul.rn.f32" => map2::<f32, f32, f32>(|a, b| a * b);
    "mul.rz.f32" => map2::<f32, f32, f32>(directed!(mul, Zero));
    "mul.rm.f32" => map2::<f32, f32, f32>(directed!(mul, Down));
    "mul.rp.f32" => map2::<f32, f32, f32>(directed!(mul, Up));
    "mul.f64" | "mul.rn.f64" => map2::<f64, f64, f64>(|a, b| a * b);
    "fma.rn.f32" | "mad.rn.f32" => map3::<f32, f32, f32, f32>(|a: f32, b: f32, c: f32| a.mul_add(b, c));
    "fma.rz.f32" => map3::<f32, f32, f32, f32>(directed!(fma, Zero));
    "fma.rm.f32" => map3::<f32, f32, f32, f32>(directed!(fma, Down));
    "fma.rp.f32" => map3::<f32, f32, f32, f32>(directed!(fma, Up));
    "fma.rn.f64" | "mad.rn.f64" => map3::<f64, f64, f64, f64>(|a: f64, b: f64, c: f64| a.mul_add(b, c));
    "div.rn.f32" | "div.full.f32" | "div.approx.f32" => map2::<f32, f32, f32>(|a, b| a / b);
    "div.rn.f64" => map2::<f64, f64, f64>(|a, b| a / b);
    "rcp.rn.f32" | "rcp.approx.f32" => map1::<f32, f32>(|a: f32| 1.0 / a);
    "rcp.rn.f64" | "rcp.approx.ftz.f64" => map1::<f64, f64>(|a: f64| 1.0 / a);
    "sqrt.rn.f32" | "sqrt.approx.f32" => map1::<f32, f32>(|a: f32| a.sqrt());
    "sqrt.rn.f64" => map1::<f64, f64>(|a: f64| a.sqrt());
    "rsqrt.approx.f32" => map1::<f32, f32>(|a: f32| (1.0 / f64::from(a).sqrt()) as f32);
    "rsqrt.approx.f64" | "rsqrt.approx.ftz.f64" => map1::<f64, f64>(|a: f64| 1.0 / a.sqrt());
    "ex2.approx.f32" => map1::<f32, f32>(|a: f32| a.exp2());
    "lg2.approx.f32" => map1::<f32, f32>(|a: f32| a.log2());
    "sin.approx.f32" => map1::<f32, f32>(|a: f32| a.sin());
    "cos.approx.f32" => map1::<f32, f32>(|a: f32| a.cos());
    "tanh.approx.f32" => map1::<f32, f32>(|a: f32| a.tanh());
    "neg.f32" => map1::<u32, u32>(|a| a ^ 0x8000_0000);
    "neg.f64" => map1::<u64, u64>(|a| a ^ 1 << 63);
    "abs.f32" => map1::<u32, u32>(|a| a & 0x7fff_ffff);
    "abs.f64" => map1::<u64, u64>(|a| a & !(1 << 63));
    "min.f32" => map2::<f32, f32, f32>(|a, b| less(a, b, false));
    "max.f32" => map2::<f32, f32, f32>(|a: f32, b: f32| -less(-a, -b, false));
    "min.NaN.f32" => map2::<f32, f32, f32>(|a, b| less(a, b, true));
    "max.NaN.f32" => map2::<f32, f32, f32>(|a: f32, b: f32| -less(-a, -b, true));
    "min.f64" => map2::<f64, f64, f64>(|a: f64, b: f64| a.min(b));
    "max.f64" => map2::<f64, f64, f64>(|a: f64, b: f64| a.max(b));
    "copysign.f32" => map2::<u32, u32, u32>(|a, b| a & 0x8000_0000 | b & 0x7fff_ffff);
    "copysign.f64" => map2::<u64, u64, u64>(|a, b| a & 1 << 63 | b & !(1 << 63));
    // Not PTX: what the modifiers .ftz and .sat do before and after an instruction.
    "flush.f32" => map1::<f32, f32>(flush);
    "saturate.f32" => map1::<f32, f32>(saturate);
}

#[inline(always)]
fn sum(a: f64, b: f64, mode: Rounding) -> f32 {
    let (sum, error) = two_sum(a, b);
    // Down, an exact zero that two operands make is negative (IEEE 754, 6.3).
    if sum == 0.0 && mode == Rounding::Down && a.is_sign_negative() != b.is_sign_negative() {
        return -0.0;
    }
    to_f32(sum, error, mode)
}

/// The smaller one, -0 below +0; of a number and NaN the number, unless `nan` propagates.
#[inline(always)]
pub fn less(a: f32, b: f32, nan: bool) -> f32 {
    let canonical = f32::from_bits(0x7fff_ffff);
    if a.is_nan() {
        return if nan || b.is_nan() { canonical } else { b };
    }
    if b.is_nan() {
        return if nan { canonical } else { a };
    }
    if a < b || (a == b && a.is_sign_negative()) { a } else { b }
}

#[inline(always)]
pub fn flush(a: f32) -> f32 {
    if a.is_subnormal() { f32::from_bits(a.to_bits() & 0x8000_0000) } else { a }
}

/// To [0, 1]; NaN and -0 become +0.
#[inline(always)]
pub fn saturate(a: f32) -> f32 {
    if a > 0.0 { a.min(1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directed_fma() {
        let down = directed!(fma, Down);
        // 1 + 2^-60 is 1 below, and -1 - 2^-60 is the number before -1.
        let tiny = 2f32.powi(-30);
        assert_eq!(down(tiny, tiny, 1.0), 1.0);
        assert_eq!(down(-tiny, tiny, -1.0), (-1f32).next_down());
        // expf adds 1.5 * 2^23 + 127 rounding down, which takes the floor.
        assert_eq!(down(252.0, 0.5, f32::from_bits(0x4b40_0001)) - f32::from_bits(0x4b40_0000), 127.0);
        assert_eq!(down(1.0, 1.0, -1.0).to_bits(), 0x8000_0000);
    }

    #[test]
    fn minima_and_saturation() {
        assert_eq!(less(f32::NAN, 1.0, false), 1.0);
        assert!(less(f32::NAN, 1.0, true).is_nan());
        assert_eq!(less(0.0, -0.0, false).to_bits(), 0x8000_0000);
        assert_eq!((saturate(f32::NAN), saturate(2.0), saturate(-1.0)), (0.0, 1.0, 0.0));
        assert_eq!(flush(-1e-40).to_bits(), 0x8000_0000);
    }
}
