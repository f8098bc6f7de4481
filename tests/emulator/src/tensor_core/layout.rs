//! Where each lane's registers lie in the matrices.
//!
//! For mma.sync the ISA draws the layouts ("Matrix Fragments for mma.m16n8k8", "... m16n8k16"); for wmma it leaves them
//! unspecified, and only loads, stores and multiplications of the same shape agree on them.

use super::{Element, Fragment, Plan};
use crate::program::LANES;

fn fragment(
    element: Element,
    (rows, columns): (usize, usize),
    per_lane: usize,
    place: impl Fn(usize, usize) -> (usize, usize),
) -> Fragment {
    let mut places = Vec::with_capacity(per_lane * LANES);
    for i in 0..per_lane {
        for lane in 0..LANES {
            let (row, column) = place(lane, i);
            places.push((row * columns + column) as u16);
        }
    }
    Fragment { element, registers: per_lane / element.per_register(), rows, columns, place: places }
}

/// m, n and k of a part like "m16n8k16".
pub fn shape(part: &str) -> Option<(usize, usize, usize)> {
    let (m, rest) = part.strip_prefix('m')?.split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    Some((m.parse().ok()?, n.parse().ok()?, k.parse().ok()?))
}

/// The plan of `mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32` and its like.
pub fn mma(mnemonic: &str) -> Option<Plan> {
    let parts: Vec<&str> = mnemonic.split('.').collect();
    let (m, n, k) = shape(parts.get(3)?)?;
    if (m, n) != (16, 8) || parts.get(4..6)? != ["row", "col"] {
        return None;
    }
    let kinds: Option<Vec<Element>> = parts.get(6..)?.iter().map(|part| Element::named(part)).collect();
    let &[d, a, b, c] = kinds?.as_slice() else { return None };
    if a != b || !matches!((a, k), (Element::F16 | Element::Bf16, 8 | 16) | (Element::Tf32, 4 | 8)) {
        return None;
    }
    // group = lane / 4, member = lane % 4. Sixteen-bit elements come in pairs of neighbouring columns of a (rows of b).
    let of_a = |lane: usize, i: usize| match a {
        Element::Tf32 => (lane / 4 + 8 * (i & 1), lane % 4 + 4 * (i >> 1)),
        _ => (lane / 4 + 8 * (i >> 1 & 1), lane % 4 * 2 + (i & 1) + 8 * (i >> 2)),
    };
    let of_b = |lane: usize, i: usize| match b {
        Element::Tf32 => (lane % 4 + 4 * i, lane / 4),
        _ => (lane % 4 * 2 + (i & 1) + 8 * (i >> 1), lane / 4),
    };
    let of_c = |lane: usize, i: usize| (lane / 4 + 8 * (i >> 1), lane % 4 * 2 + (i & 1));
    Some(Plan {
        a: fragment(a, (m, k), m * k / LANES, of_a),
        b: fragment(b, (k, n), k * n / LANES, of_b),
        c: fragment(c, (m, n), m * n / LANES, of_c),
        d: fragment(d, (m, n), m * n / LANES, of_c),
    })
}

/// A wmma fragment of `registers` a lane: elements in the order in which memory has them, `row` or column first, repeated
/// where the registers hold more. A fragment that is multiplied with another layout than it was loaded with is garbage, as
/// it may be on a device.
pub fn wmma(element: Element, rows: usize, columns: usize, registers: usize, row_major: bool) -> Option<Fragment> {
    let (per_lane, count) = (registers * element.per_register(), rows * columns);
    if per_lane == 0 || !(per_lane * LANES).is_multiple_of(count) {
        return None;
    }
    Some(fragment(element, (rows, columns), per_lane, |lane, i| {
        let at = (lane * per_lane + i) % count;
        if row_major { (at / columns, at % columns) } else { (at % rows, at / rows) }
    }))
}

/// The plan of `wmma.mma.sync.aligned.row.col.m16n16k16.f32.f16` and its like, for registers of d, a, b and c.
pub fn wmma_plan(mnemonic: &str, registers: [usize; 4]) -> Option<Plan> {
    let parts: Vec<&str> = mnemonic.split('.').collect();
    let (row_a, row_b) = (parts.get(4)? == &"row", parts.get(5)? == &"row");
    let (m, n, k) = shape(parts.get(6)?)?;
    let kinds: Option<Vec<Element>> = parts.get(7..)?.iter().map(|part| Element::named(part)).collect();
    let (d, a, b, c) = match *kinds?.as_slice() {
        [d, c] => (d, Element::F16, Element::F16, c),
        [d, a, b, c] => (d, a, b, c),
        _ => return None,
    };
    Some(Plan {
        a: wmma(a, m, k, registers[1], row_a)?,
        b: wmma(b, k, n, registers[2], row_b)?,
        c: wmma(c, m, n, registers[3], true)?,
        d: wmma(d, m, n, registers[0], true)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Corners of the ISA's figures, by hand.
    #[test]
    fn corners_of_the_documented_layouts() {
        let plan = mma("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32").unwrap();
        let place = |fragment: &Fragment, lane: usize, i: usize| {
            let at = usize::from(fragment.place[i * LANES + lane]);
            (at / fragment.columns, at % fragment.columns)
        };
        assert_eq!(place(&plan.a, 0, 1), (0, 1));
        assert_eq!(place(&plan.a, 5, 2), (9, 2));
        assert_eq!(place(&plan.a, 31, 4), (7, 14));
        assert_eq!(place(&plan.a, 31, 7), (15, 15));
        assert_eq!(place(&plan.b, 6, 3), (13, 1));
        assert_eq!(place(&plan.c, 31, 2), (15, 6));
        let plan = mma("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32").unwrap();
        assert_eq!(place(&plan.a, 7, 1), (9, 3));
        assert_eq!(place(&plan.a, 7, 2), (1, 7));
        assert_eq!(place(&plan.b, 7, 1), (7, 1));
        assert_eq!((plan.a.registers, plan.b.registers, plan.c.registers), (4, 2, 4));
    }

    /// Every element of every operand belongs to exactly one lane.
    #[test]
    fn mma_layouts_cover_their_matrices_once() {
        for mnemonic in [
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
            "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16",
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
            "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32",
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
            "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32",
        ] {
            let plan = mma(mnemonic).unwrap();
            for fragment in [plan.a, plan.b, plan.c, plan.d] {
                let mut places = fragment.place;
                places.sort_unstable();
                assert!(places.iter().enumerate().all(|(at, &place)| at == usize::from(place)), "{mnemonic}");
            }
        }
        assert!(mma("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64").is_none());
    }
}
