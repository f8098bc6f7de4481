//! Conversions between binary floating-point formats, exact in every rounding mode.
//!
//! f32 to f16 and bf16 to nearest even have short forms that vectorise; everything else goes through [`narrow`].

/// PTX's .rn, .rz, .rm and .rp (PTX ISA, "Rounding Modifiers").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    Nearest,
    Zero,
    Down,
    Up,
}

/// A binary format: exponent bits and explicit mantissa bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pub exponent: u32,
    pub mantissa: u32,
}

pub const F16: Format = Format { exponent: 5, mantissa: 10 };
pub const BF16: Format = Format { exponent: 8, mantissa: 7 };
pub const TF32: Format = Format { exponent: 8, mantissa: 10 };
pub const F32: Format = Format { exponent: 8, mantissa: 23 };

/// f16 to f32: the shifted bits are the value times 2^-112, subnormals included; infinity and NaN get f32's exponent.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = (u32::from(bits) & 0x8000) << 16;
    let magnitude = u32::from(bits) & 0x7fff;
    let scaled = (f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000)).to_bits();
    let special = if magnitude >= 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(sign | scaled | special)
}

/// f32 to f16, to nearest even; NaN becomes 0x7fff, as on the device.
#[inline(always)]
pub fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Below 2^-14 an ulp is 2^-24, which is the ulp of 0.5 in f32: the addition rounds.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let normal = (magnitude + 0xfff + ((magnitude >> 13) & 1)).wrapping_sub(0x3800_0000) >> 13;
    let finite = if magnitude < 0x3880_0000 { subnormal } else { normal };
    let result = if magnitude >= 0x4780_0000 { 0x7c00 } else { finite };
    if magnitude > 0x7f80_0000 { 0x7fff } else { (sign | result) as u16 }
}

#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// f32 to bf16, to nearest even; NaN becomes 0x7fff, as on the device.
#[inline(always)]
pub fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff } else { rounded }
}

/// `value` rounded to `format`, as that format's bits. Overflow gives infinity or the largest finite value, as IEEE 754
/// says for the mode; NaN is the device's canonical NaN, all ones but the sign.
pub fn narrow(value: f64, format: Format, mode: Rounding) -> u32 {
    let Format { exponent, mantissa } = format;
    let bits = value.to_bits();
    let negative = bits >> 63 == 1;
    let sign = u32::from(negative) << (exponent + mantissa);
    let infinity = ((1u32 << exponent) - 1) << mantissa;
    if value.is_nan() {
        return infinity | ((1 << mantissa) - 1);
    }
    if value.is_infinite() {
        return sign | infinity;
    }
    if value == 0.0 {
        return sign;
    }
    let bias = (1i32 << (exponent - 1)) - 1;
    // |value| = digits * 2^scale, with the leading one at 2^lead.
    let field = ((bits >> 52) & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    let (digits, scale) = if field == 0 { (fraction, -1074) } else { (fraction | 1 << 52, field - 1075) };
    let lead = scale + 63 - digits.leading_zeros() as i32;
    let mut ulp = (lead - mantissa as i32).max(1 - bias - mantissa as i32);
    let drop = ulp - scale;
    let mut kept = if drop <= 0 {
        digits << -drop
    } else {
        let drop = drop.min(60) as u32;
        let rest = digits & ((1 << drop) - 1);
        let half = 1u64 << (drop - 1);
        let quotient = digits >> drop;
        let up = match mode {
            Rounding::Nearest => rest > half || (rest == half && quotient & 1 == 1),
            Rounding::Zero => false,
            Rounding::Down => negative && rest != 0,
            Rounding::Up => !negative && rest != 0,
        };
        quotient + u64::from(up)
    };
    if kept >> (mantissa + 1) != 0 {
        kept >>= 1;
        ulp += 1;
    }
    let stored = if kept >> mantissa == 0 { 0 } else { ulp + mantissa as i32 + bias };
    if stored >= (1 << exponent) - 1 {
        let away = match mode {
            Rounding::Nearest => true,
            Rounding::Zero => false,
            Rounding::Down => negative,
            Rounding::Up => !negative,
        };
        return sign | if away { infinity } else { infinity - 1 };
    }
    sign | (stored as u32) << mantissa | (kept as u32 & ((1 << mantissa) - 1))
}

/// `a + b` and the rounding error of that sum (Knuth's two-sum), exact unless it overflows.
#[inline(always)]
pub fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let from_b = sum - a;
    (sum, (a - (sum - from_b)) + (b - from_b))
}

/// `a + b` rounded to odd, so that rounding again to a narrower format gives what one rounding would have.
#[inline(always)]
pub fn add_to_odd(a: f64, b: f64) -> f64 {
    let (sum, error) = two_sum(a, b);
    if error == 0.0 || !error.is_finite() || sum.to_bits() & 1 == 1 {
        return sum;
    }
    if error > 0.0 { sum.next_up() } else { sum.next_down() }
}

/// `sum + error` rounded to f32, where `error` is at most half an ulp of `sum` in f64.
#[inline(always)]
pub fn to_f32(sum: f64, error: f64, mode: Rounding) -> f32 {
    let nearest = sum as f32;
    if !sum.is_finite() {
        return nearest;
    }
    let difference = sum - f64::from(nearest);
    let rest = if difference == 0.0 { error } else { difference };
    let down = match mode {
        Rounding::Nearest => return nearest,
        Rounding::Down => true,
        Rounding::Up => false,
        Rounding::Zero => sum > 0.0,
    };
    if down && rest < 0.0 {
        nearest.next_down()
    } else if !down && rest > 0.0 {
        nearest.next_up()
    } else {
        nearest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_survives_f32_and_back() {
        for bits in 0..=u16::MAX {
            let value = f16_to_f32(bits);
            if bits & 0x7fff > 0x7c00 {
                assert!(value.is_nan());
                assert_eq!(f32_to_f16(value), 0x7fff);
            } else {
                assert_eq!(f32_to_f16(value), bits, "{bits:#x}");
                assert_eq!(narrow(f64::from(value), F16, Rounding::Nearest), u32::from(bits));
            }
        }
    }

    #[test]
    fn every_bf16_survives_f32_and_back() {
        for bits in 0..=u16::MAX {
            let value = bf16_to_f32(bits);
            if !value.is_nan() {
                assert_eq!(f32_to_bf16(value), bits);
                assert_eq!(narrow(f64::from(value), BF16, Rounding::Nearest), u32::from(bits));
            }
        }
    }

    #[test]
    fn known_values_and_ties() {
        assert_eq!(f16_to_f32(0x3c00), 1.0);
        assert_eq!(f16_to_f32(0x0001), 2f32.powi(-24));
        assert_eq!(f16_to_f32(0x7bff), 65504.0);
        assert_eq!(f16_to_f32(0xfc00), f32::NEG_INFINITY);
        assert_eq!(f32_to_f16(65519.996), 0x7bff);
        assert_eq!(f32_to_f16(65520.0), 0x7c00);
        assert_eq!(f32_to_f16(2f32.powi(-25)), 0);
        assert_eq!(f32_to_f16(2f32.powi(-25) * 1.0001), 1);
        assert_eq!(f32_to_f16(1.0 + 2f32.powi(-11)), 0x3c00);
        assert_eq!(f32_to_f16(1.0 + 3.0 * 2f32.powi(-11)), 0x3c02);
    }

    /// The short forms against the general one, over every exponent and patterns near the ties.
    #[test]
    fn short_forms_agree_with_the_general_one() {
        for high in 0..=0xffffu32 {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xfff, 0x1000, 0x1001, 0x3000, 0xffff] {
                let value = f32::from_bits(high << 16 | low);
                if value.is_nan() {
                    continue;
                }
                let wide = f64::from(value);
                assert_eq!(u32::from(f32_to_f16(value)), narrow(wide, F16, Rounding::Nearest), "{value:e}");
                assert_eq!(u32::from(f32_to_bf16(value)), narrow(wide, BF16, Rounding::Nearest), "{value:e}");
                for mode in [Rounding::Nearest, Rounding::Zero, Rounding::Down, Rounding::Up] {
                    assert_eq!(narrow(wide, F32, mode), value.to_bits());
                }
            }
        }
    }

    #[test]
    fn directed_roundings_bracket_the_value() {
        let third = 1.0 / 3.0;
        let (down, up) = (to_f32(third, 0.0, Rounding::Down), to_f32(third, 0.0, Rounding::Up));
        assert!(f64::from(down) < third && third < f64::from(up) && down.next_up() == up);
        assert_eq!(narrow(third, F32, Rounding::Down), down.to_bits());
        assert_eq!(narrow(-third, F32, Rounding::Zero), (-down).to_bits());
        assert_eq!(to_f32(1.0, -1e-30, Rounding::Down), 1f32.next_down());
        assert_eq!(narrow(1e6, F16, Rounding::Zero), 0x7bff);
    }
}
