//! f16, f16x2, bf16 and bf16x2 arithmetic (PTX ISA, "Half Precision Floating Point Instructions").
//!
//! Sums and products are exact in f32 or f64 before the one rounding; fma goes through round-to-odd.

use crate::half::{BF16, F16, Rounding, add_to_odd, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, narrow};
use crate::ops::float::less;
use crate::ops::{map1, map2, map3, table};

/// Two roundings, through f32, are one for +, -, *, / and sqrt: f32 has more than twice the bits of either format.
macro_rules! f16_2 {
    ($f:expr) => {
        |a: u16, b: u16| f32_to_f16($f(f16_to_f32(a), f16_to_f32(b)))
    };
}
macro_rules! bf16_2 {
    ($f:expr) => {
        |a: u16, b: u16| f32_to_bf16($f(bf16_to_f32(a), bf16_to_f32(b)))
    };
}
macro_rules! both_2 {
    ($f:expr) => {
        |a: u32, b: u32| u32::from($f(a as u16, b as u16)) | u32::from($f((a >> 16) as u16, (b >> 16) as u16)) << 16
    };
}
macro_rules! both_1 {
    ($f:expr) => {
        |a: u32| u32::from($f(a as u16)) | u32::from($f((a >> 16) as u16)) << 16
    };
}

fn fma_f16(a: u16, b: u16, c: u16) -> u16 {
    let product = f64::from(f16_to_f32(a)) * f64::from(f16_to_f32(b));
    narrow(add_to_odd(product, f64::from(f16_to_f32(c))), F16, Rounding::Nearest) as u16
}

fn fma_bf16(a: u16, b: u16, c: u16) -> u16 {
    let product = f64::from(bf16_to_f32(a)) * f64::from(bf16_to_f32(b));
    narrow(add_to_odd(product, f64::from(bf16_to_f32(c))), BF16, Rounding::Nearest) as u16
}

fn both_3(f: impl Fn(u16, u16, u16) -> u16) -> impl Fn(u32, u32, u32) -> u32 {
    move |a, b, c| {
        let low = f(a as u16, b as u16, c as u16);
        let high = f((a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16);
        u32::from(low) | u32::from(high) << 16
    }
}

fn relu(f: impl Fn(u16, u16, u16) -> u16, nan: u16) -> impl Fn(u16, u16, u16) -> u16 {
    move |a, b, c| {
        let result = f(a, b, c);
        if result & 0x8000 != 0 && result & 0x7fff <= nan { 0 } else { result }
    }
}

table! {
    "add.f16" | "add.rn.f16" => map2::<u16, u16, u16>(f16_2!(|a, b| a + b));
    "add.f16x2" | "add.rn.f16x2" => map2::<u32, u32, u32>(both_2!(f16_2!(|a, b| a + b)));
    "add.bf16" | "add.rn.bf16" => map2::<u16, u16, u16>(bf16_2!(|a, b| a + b));
    "add.bf16x2" | "add.rn.bf16x2" => map2::<u32, u32, u32>(both_2!(bf16_2!(|a, b| a + b)));
    "sub.f16" | "sub.rn.f16" => map2::<u16, u16, u16>(f16_2!(|a, b| a - b));
    "sub.f16x2" | "sub.rn.f16x2" => map2::<u32, u32, u32>(both_2!(f16_2!(|a, b| a - b)));
    "sub.bf16" | "sub.rn.bf16" => map2::<u16, u16, u16>(bf16_2!(|a, b| a - b));
    "sub.bf16x2" | "sub.rn.bf16x2" => map2::<u32, u32, u32>(both_2!(bf16_2!(|a, b| a - b)));
    "mul.f16" | "mul.rn.f16" => map2::<u16, u16, u16>(f16_2!(|a, b| a * b));
    "mul.f16x2" | "mul.rn.f16x2" => map2::<u32, u32, u32>(both_2!(f16_2!(|a, b| a * b)));
    "mul.bf16" | "mul.rn.bf16" => map2::<u16, u16, u16>(bf16_2!(|a, b| a * b));
    "mul.bf16x2" | "mul.rn.bf16x2" => map2::<u32, u32, u32>(both_2!(bf16_2!(|a, b| a * b)));
    "fma.rn.f16" => map3::<u16, u16, u16, u16>(fma_f16);
    "fma.rn.f16x2" => map3::<u32, u32, u32, u32>(both_3(fma_f16));
    "fma.rn.bf16" => map3::<u16, u16, u16, u16>(fma_bf16);
    "fma.rn.bf16x2" => map3::<u32, u32, u32, u32>(both_3(fma_bf16));
    "fma.rn.relu.f16" => map3::<u16, u16, u16, u16>(relu(fma_f16, 0x7c00));
    "fma.rn.relu.f16x2" => map3::<u32, u32, u32, u32>(both_3(relu(fma_f16, 0x7c00)));
    "fma.rn.relu.bf16" => map3::<u16, u16, u16, u16>(relu(fma_bf16, 0x7f80));
    "fma.rn.relu.bf16x2" => map3::<u32, u32, u32, u32>(both_3(relu(fma_bf16, 0x7f80)));
    "neg.f16" | "neg.bf16" => map1::<u16, u16>(|a| a ^ 0x8000);
    "neg.f16x2" | "neg.bf16x2" => map1::<u32, u32>(|a| a ^ 0x8000_8000);
    "abs.f16" | "abs.bf16" => map1::<u16, u16>(|a| a & 0x7fff);
    "abs.f16x2" | "abs.bf16x2" => map1::<u32, u32>(|a| a & 0x7fff_7fff);
    "min.f16" => map2::<u16, u16, u16>(f16_2!(|a, b| less(a, b, false)));
    "min.f16x2" => map2::<u32, u32, u32>(both_2!(f16_2!(|a, b| less(a, b, false))));
    "min.NaN.f16" => map2::<u16, u16, u16>(f16_2!(|a, b| less(a, b, true)));
    "min.NaN.f16x2" => map2::<u32, u32, u32>(both_2!(f16_2!(|a, b| less(a, b, true))));
    "max.f16" => map2::<u16, u16, u16>(f16_2!(|a: f32, b: f32| -less(-a, -b, false)));
    "max.f16x2" => map2::<u32, u32, u32>(both_2!(f16_2!(|a: f32, b: f32| -less(-a, -b, false))));
    "max.NaN.f16" => map2::<u16, u16, u16>(f16_2!(|a: f32, b: f32| -less(-a, -b, true)));
    "max.NaN.f16x2" => map2::<u32, u32, u32>(both_2!(f16_2!(|a: f32, b: f32| -less(-a, -b, true))));
    "min.bf16" => map2::<u16, u16, u16>(bf16_2!(|a, b| less(a, b, false)));
    "min.bf16x2" => map2::<u32, u32, u32>(both_2!(bf16_2!(|a, b| less(a, b, false))));
    "min.NaN.bf16" => map2::<u16, u16, u16>(bf16_2!(|a, b| less(a, b, true)));
    "min.NaN.bf16x2" => map2::<u32, u32, u32>(both_2!(bf16_2!(|a, b| less(a, b, true))));
    "max.bf16" => map2::<u16, u16, u16>(bf16_2!(|a: f32, b: f32| -less(-a, -b, false)));
    "max.bf16x2" => map2::<u32, u32, u32>(both_2!(bf16_2!(|a: f32, b: f32| -less(-a, -b, false))));
    "max.NaN.bf16" => map2::<u16, u16, u16>(bf16_2!(|a: f32, b: f32| -less(-a, -b, true)));
    "max.NaN.bf16x2" => map2::<u32, u32, u32>(both_2!(bf16_2!(|a: f32, b: f32| -less(-a, -b, true))));
    "ex2.approx.f16" => map1::<u16, u16>(|a| f32_to_f16(f16_to_f32(a).exp2()));
    "ex2.approx.f16x2" => map1::<u32, u32>(both_1!(|a| f32_to_f16(f16_to_f32(a).exp2())));
    "ex2.approx.ftz.bf16" => map1::<u16, u16>(|a| f32_to_bf16(bf16_to_f32(a).exp2()));
    "ex2.approx.ftz.bf16x2" => map1::<u32, u32>(both_1!(|a| f32_to_bf16(bf16_to_f32(a).exp2())));
    "tanh.approx.f16" => map1::<u16, u16>(|a| f32_to_f16(f16_to_f32(a).tanh()));
    "tanh.approx.f16x2" => map1::<u32, u32>(both_1!(|a| f32_to_f16(f16_to_f32(a).tanh())));
    "tanh.approx.bf16" => map1::<u16, u16>(|a| f32_to_bf16(bf16_to_f32(a).tanh()));
    "tanh.approx.bf16x2" => map1::<u32, u32>(both_1!(|a| f32_to_bf16(bf16_to_f32(a).tanh())));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 + 2^-11 + 2^-24 lies above a tie that f32 hides: two roundings would go down.
    #[test]
    fn fma_rounds_once() {
        let tiny = f32_to_f16(2f32.powi(-12));
        let product = fma_f16(f32_to_f16(1.0 + 2f32.powi(-10)), f32_to_f16(0.5), 0);
        assert_eq!(f16_to_f32(product), 0.5 + 2f32.powi(-11));
        // 2^-12 * 2^-12 + (1 + 2^-10) is a little above an exact f16.
        assert_eq!(f16_to_f32(fma_f16(tiny, tiny, 0x3c01)), 1.0 + 2f32.powi(-10));
        // 2^-1 * 2^-10 + (1 + ...): an exact tie goes to even.
        assert_eq!(fma_f16(0x3800, 0x1400, 0x3c01), 0x3c02);
        assert_eq!(fma_bf16(0x3f80, 0x3f80, 0x3f80), f32_to_bf16(2.0));
    }
}
