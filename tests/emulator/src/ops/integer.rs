//! Integer arithmetic, logic and shifts (PTX ISA, "Integer Arithmetic Instructions", "Logic and Shift Instructions").

use crate::ops::{map1, map2, map3, map4, table};

/// Division by zero gives an unspecified value; on the device all bits are set.
macro_rules! divide {
    ($type:ty, $method:ident) => {
        |a: $type, b: $type| if b == 0 { !0 } else { a.$method(b) }
    };
}

/// Shifts of the register's width or more: clamped.
macro_rules! left {
    ($type:ty) => {
        |a: $type, b: u32| if b < <$type>::BITS { a << b } else { 0 }
    };
}
macro_rules! right {
    ($type:ty) => {
        |a: $type, b: u32| if b < <$type>::BITS { a >> b } else { 0 }
    };
}
macro_rules! right_signed {
    ($type:ty) => {
        |a: $type, b: u32| a >> b.min(<$type>::BITS - 1)
    };
}

table! {
    "add.s16" | "add.u16" => map2::<u16, u16, u16>(|a: u16, b: u16| a.wrapping_add(b));
    "add.s32" | "add.u32" => map2::<u32, u32, u32>(|a: u32, b: u32| a.wrapping_add(b));
    "add.s64" | "add.u64" => map2::<u64, u64, u64>(|a: u64, b: u64| a.wrapping_add(b));
    "add.sat.s32" => map2::<i32, i32, i32>(|a: i32, b: i32| a.saturating_add(b));
    "add.u16x2" | "add.s16x2" => map2::<u32, u32, u32>(|a, b| pairs(a, b, u16::wrapping_add));
    "sub.s16" | "sub.u16" => map2::<u16, u16, u16>(|a: u16, b: u16| a.wrapping_sub(b));
    "sub.s32" | "sub.u32" => map2::<u32, u32, u32>(|a: u32, b: u32| a.wrapping_sub(b));
    "sub.s64" | "sub.u64" => map2::<u64, u64, u64>(|a: u64, b: u64| a.wrapping_sub(b));
    "sub.sat.s32" => map2::<i32, i32, i32>(|a: i32, b: i32| a.saturating_sub(b));
    "mul.lo.s16" | "mul.lo.u16" => map2::<u16, u16, u16>(|a: u16, b: u16| a.wrapping_mul(b));
    "mul.lo.s32" | "mul.lo.u32" => map2::<u32, u32, u32>(|a: u32, b: u32| a.wrapping_mul(b));
    "mul.lo.s64" | "mul.lo.u64" => map2::<u64, u64, u64>(|a: u64, b: u64| a.wrapping_mul(b));
    "mul.hi.s16" => map2::<i16, i16, i16>(|a: i16, b: i16| ((i32::from(a) * i32::from(b)) >> 16) as i16);
    "mul.hi.u16" => map2::<u16, u16, u16>(|a: u16, b: u16| ((u32::from(a) * u32::from(b)) >> 16) as u16);
    "mul.hi.s32" => map2::<i32, i32, i32>(|a: i32, b: i32| ((i64::from(a) * i64::from(b)) >> 32) as i32);
    "mul.hi.u32" => map2::<u32, u32, u32>(|a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32);
    "mul.hi.s64" => map2::<i64, i64, i64>(|a: i64, b: i64| ((i128::from(a) * i128::from(b)) >> 64) as i64);
    "mul.hi.u64" => map2::<u64, u64, u64>(|a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64);
    "mul.wide.s16" => map2::<i32, i16, i16>(|a: i16, b: i16| i32::from(a) * i32::from(b));
    "mul.wide.u16" => map2::<u32, u16, u16>(|a: u16, b: u16| u32::from(a) * u32::from(b));
    "mul.wide.s32" => map2::<i64, i32, i32>(|a: i32, b: i32| i64::from(a) * i64::from(b));
    "mul.wide.u32" => map2::<u64, u32, u32>(|a: u32, b: u32| u64::from(a) * u64::from(b));
    "mul24.lo.s32" => map2::<u32, u32, u32>(|a, b| (((a << 8) as i32 >> 8).wrapping_mul((b << 8) as i32 >> 8)) as u32);
    "mul24.lo.u32" => map2::<u32, u32, u32>(|a: u32, b: u32| (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff));
    "mad.lo.s16" | "mad.lo.u16" =>
        map3::<u16, u16, u16, u16>(|a: u16, b: u16, c: u16| a.wrapping_mul(b).wrapping_add(c));
    "mad.lo.s32" | "mad.lo.u32" =>
        map3::<u32, u32, u32, u32>(|a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c));
    "mad.lo.s64" | "mad.lo.u64" =>
        map3::<u64, u64, u64, u64>(|a: u64, b: u64, c: u64| a.wrapping_mul(b).wrapping_add(c));
    "mad.hi.s32" => map3::<i32, i32, i32, i32>(|a, b, c: i32| c.wrapping_add(((i64::from(a) * i64::from(b)) >> 32) as i32));
    "mad.hi.u32" => map3::<u32, u32, u32, u32>(|a, b, c: u32| c.wrapping_add(((u64::from(a) * u64::from(b)) >> 32) as u32));
    "mad.wide.s16" => map3::<i32, i16, i16, i32>(|a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c));
    "mad.wide.u16" => map3::<u32, u16, u16, u32>(|a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c));
    "mad.wide.s32" => map3::<i64, i32, i32, i64>(|a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c));
    "mad.wide.u32" => map3::<u64, u32, u32, u64>(|a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c));
    "sad.s32" => map3::<u32, i32, i32, u32>(|a: i32, b: i32, c: u32| c.wrapping_add(a.abs_diff(b)));
    "sad.u32" => map3::<u32, u32, u32, u32>(|a: u32, b: u32, c: u32| c.wrapping_add(a.abs_diff(b)));
    "div.s16" => map2::<i16, i16, i16>(divide!(i16, wrapping_div));
    "div.u16" => map2::<u16, u16, u16>(divide!(u16, wrapping_div));
    "div.s32" => map2::<i32, i32, i32>(divide!(i32, wrapping_div));
    "div.u32" => map2::<u32, u32, u32>(divide!(u32, wrapping_div));
    "div.s64" => map2::<i64, i64, i64>(divide!(i64, wrapping_div));
    "div.u64" => map2::<u64, u64, u64>(divide!(u64, wrapping_div));
    "rem.s16" => map2::<i16, i16, i16>(divide!(i16, wrapping_rem));
    "rem.u16" => map2::<u16, u16, u16>(divide!(u16, wrapping_rem));
    "rem.s32" => map2::<i32, i32, i32>(divide!(i32, wrapping_rem));
    "rem.u32" => map2::<u32, u32, u32>(divide!(u32, wrapping_rem));
    "rem.s64" => map2::<i64, i64, i64>(divide!(i64, wrapping_rem));
    "rem.u64" => map2::<u64, u64, u64>(divide!(u64, wrapping_rem));
    "neg.s16" => map1::<i16, i16>(|a: i16| a.wrapping_neg());
    "neg.s32" => map1::<i32, i32>(|a: i32| a.wrapping_neg());
    "neg.s64" => map1::<i64, i64>(|a: i64| a.wrapping_neg());
    "abs.s16" => map1::<i16, i16>(|a: i16| a.wrapping_abs());
    "abs.s32" => map1::<i32, i32>(|a: i32| a.wrapping_abs());
    "abs.s64" => map1::<i64, i64>(|a: i64| a.wrapping_abs());
    "min.s16" => map2::<i16, i16, i16>(|a: i16, b: i16| a.min(b));
    "min.u16" => map2::<u16, u16, u16>(|a: u16, b: u16| a.min(b));
    "min.s32" => map2::<i32, i32, i32>(|a: i32, b: i32| a.min(b));
    "min.u32" => map2::<u32, u32, u32>(|a: u32, b: u32| a.min(b));
    "min.s64" => map2::<i64, i64, i64>(|a: i64, b: i64| a.min(b));
    "min.u64" => map2::<u64, u64, u64>(|a: u64, b: u64| a.min(b));
    "max.s16" => map2::<i16, i16, i16>(|a: i16, b: i16| a.max(b));
    "max.u16" => map2::<u16, u16, u16>(|a: u16, b: u16| a.max(b));
    "max.s32" => map2::<i32, i32, i32>(|a: i32, b: i32| a.max(b));
    "max.u32" => map2::<u32, u32, u32>(|a: u32, b: u32| a.max(b));
    "max.s64" => map2::<i64, i64, i64>(|a: i64, b: i64| a.max(b));
    "max.u64" => map2::<u64, u64, u64>(|a: u64, b: u64| a.max(b));
    "and.b16" | "and.b32" => map2::<u32, u32, u32>(|a, b| a & b);
    "and.b64" => map2::<u64, u64, u64>(|a, b| a & b);
    "or.b16" | "or.b32" => map2::<u32, u32, u32>(|a, b| a | b);
    "or.b64" => map2::<u64, u64, u64>(|a, b| a | b);
    "xor.b16" | "xor.b32" => map2::<u32, u32, u32>(|a, b| a ^ b);
    "xor.b64" => map2::<u64, u64, u64>(|a, b| a ^ b);
    "not.b16" => map1::<u16, u16>(|a: u16| !a);
    "not.b32" => map1::<u32, u32>(|a: u32| !a);
    "not.b64" => map1::<u64, u64>(|a: u64| !a);
    "cnot.b32" => map1::<u32, u32>(|a: u32| u32::from(a == 0));
    "shl.b16" => map2::<u16, u16, u32>(left!(u16));
    "shl.b32" => map2::<u32, u32, u32>(left!(u32));
    "shl.b64" => map2::<u64, u64, u32>(left!(u64));
    "shr.b16" | "shr.u16" => map2::<u16, u16, u32>(right!(u16));
    "shr.b32" | "shr.u32" => map2::<u32, u32, u32>(right!(u32));
    "shr.b64" | "shr.u64" => map2::<u64, u64, u32>(right!(u64));
    "shr.s16" => map2::<i16, i16, u32>(right_signed!(i16));
    "shr.s32" => map2::<i32, i32, u32>(right_signed!(i32));
    "shr.s64" => map2::<i64, i64, u32>(right_signed!(i64));
    "shf.l.wrap.b32" => map3::<u32, u32, u32, u32>(|a, b, c| funnel_left(a, b, c & 31));
    "shf.l.clamp.b32" => map3::<u32, u32, u32, u32>(|a, b, c: u32| funnel_left(a, b, c.min(32)));
    "shf.r.wrap.b32" => map3::<u32, u32, u32, u32>(|a, b, c| funnel_right(a, b, c & 31));
    "shf.r.clamp.b32" => map3::<u32, u32, u32, u32>(|a, b, c: u32| funnel_right(a, b, c.min(32)));
    "popc.b32" => map1::<u32, u32>(|a: u32| a.count_ones());
    "popc.b64" => map1::<u32, u64>(|a: u64| a.count_ones());
    "clz.b32" => map1::<u32, u32>(|a: u32| a.leading_zeros());
    "clz.b64" => map1::<u32, u64>(|a: u64| a.leading_zeros());
    "brev.b32" => map1::<u32, u32>(|a: u32| a.reverse_bits());
    "brev.b64" => map1::<u64, u64>(|a: u64| a.reverse_bits());
    "bfind.u32" => map1::<u32, u32>(|a: u32| 31u32.wrapping_sub(a.leading_zeros()));
    "bfind.s32" => map1::<u32, i32>(|a: i32| 31u32.wrapping_sub((a ^ (a >> 31)).leading_zeros()));
    "bfind.u64" => map1::<u32, u64>(|a: u64| 63u32.wrapping_sub(a.leading_zeros()));
    "bfind.shiftamt.u32" => map1::<u32, u32>(|a: u32| if a == 0 { u32::MAX } else { a.leading_zeros() });
    "bfe.u32" => map3::<u32, u32, u32, u32>(|a, b, c| extract(a.into(), b, c, 32, false) as u32);
    "bfe.s32" => map3::<u32, u32, u32, u32>(|a, b, c| extract(a.into(), b, c, 32, true) as u32);
    "bfe.u64" => map3::<u64, u64, u32, u32>(|a, b, c| extract(a, b, c, 64, false));
    "bfe.s64" => map3::<u64, u64, u32, u32>(|a, b, c| extract(a, b, c, 64, true));
    "bfi.b32" => map4::<u32, u32, u32, u32, u32>(|a: u32, b: u32, c, e| insert(a.into(), b.into(), c, e, 32) as u32);
    "bfi.b64" => map4::<u64, u64, u64, u32, u32>(|a, b, c, e| insert(a, b, c, e, 64));
    "bmsk.clamp.b32" => map2::<u32, u32, u32>(|a, b| insert(u64::MAX, 0, a, b, 32) as u32);
    "fns.b32" => map3::<u32, u32, u32, i32>(nth_set);
    "prmt.b32" => map3::<u32, u32, u32, u32>(permute);
    "dp4a.u32.u32" => map3::<u32, u32, u32, u32>(|a: u32, b: u32, c: u32| {
        a.to_le_bytes().iter().zip(b.to_le_bytes()).fold(c, |c, (&a, b)| c.wrapping_add(u32::from(a) * u32::from(b)))
    });
    "dp4a.s32.s32" => map3::<i32, u32, u32, i32>(|a: u32, b: u32, c: i32| {
        let bytes = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
        bytes.fold(c, |c, (a, b)| c.wrapping_add(i32::from(a as i8) * i32::from(b as i8)))
    });
}

#[inline(always)]
fn pairs(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
    u32::from(f(a as u16, b as u16)) | u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
}

/// The upper word of (b:a) shifted left.
#[inline(always)]
fn funnel_left(a: u32, b: u32, shift: u32) -> u32 {
    (((u64::from(b) << 32 | u64::from(a)) << shift) >> 32) as u32
}

/// The lower word of (b:a) shifted right.
#[inline(always)]
fn funnel_right(a: u32, b: u32, shift: u32) -> u32 {
    ((u64::from(b) << 32 | u64::from(a)) >> shift) as u32
}

/// `bfe`: the field's sign, or the value's where the field reaches past it, fills the rest.
#[inline(always)]
fn extract(a: u64, position: u32, length: u32, bits: u32, signed: bool) -> u64 {
    let (position, length) = (position & 255, length & 255);
    let top = (position + length).saturating_sub(1).min(bits - 1);
    let fill = signed && length > 0 && a >> top & 1 == 1;
    let available = bits.saturating_sub(position).min(length);
    let field = if position < bits { a >> position } else { 0 };
    let mask = if available >= 64 { u64::MAX } else { (1 << available) - 1 };
    if fill { field & mask | !mask } else { field & mask }
}

/// `bfi`: the low bits of a, placed into b.
#[inline(always)]
fn insert(a: u64, b: u64, position: u32, length: u32, bits: u32) -> u64 {
    let (position, length) = (position & 255, length & 255);
    if position >= bits {
        return b;
    }
    let field = if length >= 64 { u64::MAX } else { (1 << length) - 1 };
    let mask = field << position;
    (a << position) & mask | b & !mask
}

/// `fns`: the n-th set bit from a base, up or down.
fn nth_set(mask: u32, base: u32, offset: i32) -> u32 {
    if offset == 0 {
        return if mask >> (base & 31) & 1 == 1 { base } else { u32::MAX };
    }
    let (mut position, mut left, step) = (base as i32, offset.abs(), offset.signum());
    while (0..32).contains(&position) {
        if mask >> position & 1 == 1 {
            left -= 1;
            if left == 0 {
                return position as u32;
            }
        }
        position += step;
    }
    u32::MAX
}

/// `prmt` in its default mode: a selector's bit 3 replicates the byte's sign.
#[inline(always)]
fn permute(a: u32, b: u32, selectors: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let mut result = 0;
    for at in 0..4 {
        let selector = selectors >> (4 * at);
        let byte = (bytes >> (8 * (selector & 7))) as u8;
        let byte = if selector & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 };
        result |= u32::from(byte) << (8 * at);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_fields() {
        assert_eq!(extract(0xabcd, 4, 8, 32, false), 0xbc);
        assert_eq!(extract(0xabcd, 4, 8, 32, true) as u32, 0xffff_ffbc);
        assert_eq!(extract(0x8000_0000, 28, 16, 32, true) as u32, 0xffff_fff8);
        assert_eq!(extract(5, 0, 0, 32, true), 0);
        assert_eq!(insert(0xff, 0x1234_5678, 8, 4, 32), 0x1234_5f78);
        assert_eq!(insert(1, 7, 40, 4, 32), 7);
    }

    #[test]
    fn permutations_and_funnels() {
        assert_eq!(permute(0x4433_2211, 0x8877_6655, 0x7531), 0x8866_4422);
        assert_eq!(permute(0x0000_0080, 0, 0x8888), 0xffff_ffff);
        assert_eq!(funnel_left(0x8000_0000, 1, 1), 3);
        assert_eq!(funnel_right(0, 3, 1), 0x8000_0000);
        assert_eq!(funnel_right(7, 9, 32), 9);
        assert_eq!(nth_set(0b1010, 0, 2), 3);
    }
}
