//! ldmatrix, stmatrix and movmatrix: 8 x 8 matrices of 16-bit elements (PTX ISA, "ldmatrix", "stmatrix", "movmatrix").
//!
//! Lane 8 j + i gives the address of row i of matrix j. Lane l holds the elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4;
//! with .trans, of column l / 4.

use super::whole_warp;
use crate::machine::address::Space;
use crate::machine::warp::Warp;
use crate::program::{Inst, LANES};

const ROW_BYTES: u64 = 16;
/// Flags of `aux`.
pub const TRANSPOSED: u32 = 1;
pub const GENERIC: u32 = 2;

/// Host pointers of the rows of the j-th matrix.
///
/// # Safety
/// As for `load`.
unsafe fn rows(warp: &mut Warp, inst: &Inst, matrix: usize) -> [*mut u16; 8] {
    // SAFETY: by this function's contract.
    let addresses = unsafe { *warp.source::<u64>(inst.a) };
    std::array::from_fn(|row| {
        let lane = 8 * matrix + row;
        let address = addresses[lane].wrapping_add(inst.imm as u64);
        let space = if inst.aux & GENERIC == 0 { Space::Shared } else { Space::Generic };
        warp.pointer(inst, lane, space, address, ROW_BYTES, ROW_BYTES).cast()
    })
}

/// Row and column of a lane's element.
fn place(lane: usize, half: usize, transposed: bool) -> (usize, usize) {
    let (major, minor) = (lane / 4, lane % 4 * 2 + half);
    if transposed { (minor, major) } else { (major, minor) }
}

/// # Safety
/// As for `Exec`; a is a double, the list are 1, 2 or 4 words; `aux` holds the flags.
pub unsafe fn load(warp: &mut Warp, inst: &Inst) {
    whole_warp(warp, inst);
    for (matrix, &register) in inst.list.iter().enumerate() {
        // SAFETY: by this function's contract.
        let rows = unsafe { rows(warp, inst, matrix) };
        let mut words = [0u32; LANES];
        for lane in 0..LANES {
            for half in 0..2 {
                let (row, column) = place(lane, half, inst.aux & TRANSPOSED != 0);
                // SAFETY: `rows` checked 16 bytes.
                words[lane] |= u32::from(unsafe { rows[row].add(column).read() }) << (16 * half);
            }
        }
        // SAFETY: by this function's contract.
        unsafe { warp.set::<u32>(register, &words) }
    }
}

/// # Safety
/// As for `load`.
pub unsafe fn store(warp: &mut Warp, inst: &Inst) {
    whole_warp(warp, inst);
    for (matrix, &register) in inst.list.iter().enumerate() {
        // SAFETY: by this function's contract.
        let (rows, words) = unsafe { (rows(warp, inst, matrix), *warp.source::<u32>(register)) };
        for lane in 0..LANES {
            for half in 0..2 {
                let (row, column) = place(lane, half, inst.aux & TRANSPOSED != 0);
                // SAFETY: `rows` checked 16 bytes.
                unsafe { rows[row].add(column).write((words[lane] >> (16 * half)) as u16) }
            }
        }
    }
}

/// movmatrix: d = the transpose of a.
///
/// # Safety
/// As for `Exec`; d and a are words.
pub unsafe fn transpose(warp: &mut Warp, inst: &Inst) {
    whole_warp(warp, inst);
    // SAFETY: by this function's contract.
    let from = unsafe { *warp.source::<u32>(inst.a) };
    let mut words = [0u32; LANES];
    for lane in 0..LANES {
        for half in 0..2 {
            let (row, column) = place(lane, half, true);
            let value = from[row * 4 + column / 2] >> (16 * (column & 1)) & 0xffff;
            words[lane] |= value << (16 * half);
        }
    }
    // SAFETY: by this function's contract.
    unsafe { warp.set::<u32>(inst.d, &words) }
}
