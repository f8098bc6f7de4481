//! Tensor cores: mma.sync, wmma and the instructions that move their fragments (PTX ISA, "Warp Level Matrix
//! Multiply-Accumulate Instructions").
//!
//! A fragment is a map from (register, half, lane) to a place in its matrix. With the maps of a, b, c and d an instruction is:
//! gather a and b, multiply in f32, scatter. The order of the sums is unspecified on the device and ascending in k here.

pub mod layout;
pub mod move_matrix;
pub mod wgmma;
pub mod wmma;

use crate::half::{bf16_to_f32, f16_to_f32, f32_to_f16};
use crate::machine::warp::Warp;
use crate::ops::exec;
use crate::program::{ALL, Exec, Inst, LANES};

/// What a fragment's registers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// Two in a register.
    F16,
    Bf16,
    /// One in a register; the low 13 bits are ignored.
    Tf32,
    F32,
}

impl Element {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "tf32" => Self::Tf32,
            "f32" => Self::F32,
            _ => return None,
        })
    }

    pub fn per_register(self) -> usize {
        if matches!(self, Self::F16 | Self::Bf16) { 2 } else { 1 }
    }

    pub fn bytes(self) -> usize {
        4 / self.per_register()
    }
}

/// One operand: `place[i * 32 + lane]` is where the lane's i-th element lies in the row-major matrix.
#[derive(Clone, Debug)]
pub struct Fragment {
    pub element: Element,
    pub registers: usize,
    pub rows: usize,
    pub columns: usize,
    pub place: Vec<u16>,
}

/// The largest operand: 32 x 16.
const LARGEST: usize = 512;
type Matrix = [f32; LARGEST];

/// A whole multiplication, d = a b + c; the instruction's list has the registers of d, a, b and c.
#[derive(Clone, Debug)]
pub struct Plan {
    pub a: Fragment,
    pub b: Fragment,
    pub c: Fragment,
    pub d: Fragment,
}

/// # Safety
/// The registers are words.
#[inline(always)]
unsafe fn gather(warp: &Warp, fragment: &Fragment, registers: &[u32], to: &mut Matrix) {
    for (at, &register) in registers.iter().enumerate() {
        // SAFETY: by this function's contract.
        let words = unsafe { &*warp.source::<u32>(register) };
        let per = fragment.element.per_register();
        for half in 0..per {
            let place = &fragment.place[(at * per + half) * LANES..][..LANES];
            let mut values = [0f32; LANES];
            for lane in 0..LANES {
                let bits = (words[lane] >> (16 * half)) as u16;
                values[lane] = match fragment.element {
                    Element::F16 => f16_to_f32(bits),
                    Element::Bf16 => bf16_to_f32(bits),
                    Element::Tf32 => f32::from_bits(words[lane] & !0x1fff),
                    Element::F32 => f32::from_bits(words[lane]),
                };
            }
            for lane in 0..LANES {
                to[usize::from(place[lane])] = values[lane];
            }
        }
    }
}

/// # Safety
/// The registers are words.
#[inline(always)]
unsafe fn scatter(warp: &mut Warp, fragment: &Fragment, registers: &[u32], from: &Matrix) {
    let per = fragment.element.per_register();
    for (at, &register) in registers.iter().enumerate() {
        let mut words = [0u32; LANES];
        for half in 0..per {
            let place = &fragment.place[(at * per + half) * LANES..][..LANES];
            for lane in 0..LANES {
                let value = from[usize::from(place[lane])];
                words[lane] |= match fragment.element {
                    Element::F16 => u32::from(f32_to_f16(value)) << (16 * half),
                    _ => value.to_bits(),
                };
            }
        }
        // SAFETY: by this function's contract.
        unsafe { warp.set::<u32>(register, &words) }
    }
}

/// The instructions need the whole warp ("all threads in the warp must execute the same instruction").
pub fn whole_warp(warp: &Warp, inst: &Inst) {
    if warp.mask != ALL {
        warp.fail(inst.line, None, format!("a matrix instruction by part of a warp: lanes {:#010x}", warp.mask));
    }
}

/// # Safety
/// As for `Exec`; `imm` is the address of a `Plan` that lives forever, the list its registers.
#[inline(always)]
unsafe fn multiply(warp: &mut Warp, inst: &Inst) {
    whole_warp(warp, inst);
    // SAFETY: by this function's contract.
    let plan = unsafe { &*(inst.imm as *const Plan) };
    let Plan { a, b, c, d } = plan;
    let (to, rest) = inst.list.split_at(d.registers);
    let (from_a, rest) = rest.split_at(a.registers);
    let (from_b, from_c) = rest.split_at(b.registers);
    let (mut left, mut right, mut sum) = ([0f32; LARGEST], [0f32; LARGEST], [0f32; LARGEST]);
    // SAFETY: by this function's contract.
    unsafe {
        gather(warp, a, from_a, &mut left);
        gather(warp, b, from_b, &mut right);
        gather(warp, c, from_c, &mut sum);
    }
    let (k, n) = (b.rows, b.columns);
    for row in 0..a.rows {
        let sum = &mut sum[row * n..][..n];
        for inner in 0..k {
            let factor = left[row * k + inner];
            let right = &right[inner * n..][..n];
            for column in 0..n {
                sum[column] = factor.mul_add(right[column], sum[column]);
            }
        }
    }
    // SAFETY: by this function's contract.
    unsafe { scatter(warp, d, to, &sum) }
}

pub fn multiplication() -> Exec {
    exec!(|w, i| multiply(w, i))
}
