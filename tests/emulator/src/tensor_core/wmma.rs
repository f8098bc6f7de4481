//! wmma.load and wmma.store (PTX ISA, "wmma.load", "wmma.store").

use super::{Fragment, whole_warp};
use crate::machine::address::Space;
use crate::machine::warp::Warp;
use crate::program::{Inst, LANES};

/// Where a fragment lies in memory.
#[derive(Clone, Debug)]
pub struct Tile {
    pub fragment: Fragment,
    pub row_major: bool,
    pub space: Space,
}

/// Rows of a tile (columns of a column-major one) start on 16 bytes, the width of the accesses that load them.
const ROW_ALIGN: u64 = 16;

/// Host pointers of the tile's rows, or columns where those are contiguous.
///
/// # Safety
/// As for `load`.
unsafe fn lines(warp: &mut Warp, inst: &Inst, tile: &Tile) -> Vec<*mut u8> {
    whole_warp(warp, inst);
    let Fragment { element, rows, columns, .. } = tile.fragment;
    let (count, length) = if tile.row_major { (rows, columns) } else { (columns, rows) };
    // SAFETY: by this function's contract.
    let (address, stride) = unsafe { (*warp.source::<u64>(inst.a), *warp.source::<u32>(inst.b)) };
    if address != [address[0]; LANES] || stride != [stride[0]; LANES] {
        warp.fail(inst.line, None, "the lanes give different addresses or strides".to_owned());
    }
    let start = address[0].wrapping_add(inst.imm as u64);
    let bytes = element.bytes() as u64;
    (0..count as u64)
        .map(|line| {
            let address = start + line * u64::from(stride[0]) * bytes;
            warp.pointer(inst, 0, tile.space, address, length as u64 * bytes, ROW_ALIGN)
        })
        .collect()
}

impl Tile {
    /// Line and position within it of a lane's element.
    #[inline(always)]
    fn place(&self, at: usize) -> (usize, usize) {
        let place = usize::from(self.fragment.place[at]);
        let (row, column) = (place / self.fragment.columns, place % self.fragment.columns);
        if self.row_major { (row, column) } else { (column, row) }
    }
}

/// wmma.load: the list's registers = the tile at [a + imm] with leading dimension b.
///
/// # Safety
/// As for `Exec`; a is a double, b and the list are words; the tile at `plan(inst)` lives forever.
pub unsafe fn load(warp: &mut Warp, inst: &Inst) {
    // SAFETY: by this function's contract.
    let tile = unsafe { &*(plan(inst)) };
    // SAFETY: as above.
    let lines = unsafe { lines(warp, inst, tile) };
    let per = tile.fragment.element.per_register();
    for (at, &register) in inst.list.iter().enumerate() {
        let mut words = [0u32; LANES];
        for half in 0..per {
            for lane in 0..LANES {
                let (line, position) = tile.place((at * per + half) * LANES + lane);
                // SAFETY: `lines` checked the whole line.
                words[lane] |= unsafe {
                    match per {
                        1 => lines[line].cast::<u32>().add(position).read(),
                        _ => u32::from(lines[line].cast::<u16>().add(position).read()) << (16 * half),
                    }
                };
            }
        }
        // SAFETY: by this function's contract.
        unsafe { warp.set::<u32>(register, &words) }
    }
}

/// wmma.store: the tile at [a + imm] = the list's registers.
///
/// # Safety
/// As for `load`.
pub unsafe fn store(warp: &mut Warp, inst: &Inst) {
    // SAFETY: by this function's contract.
    let tile = unsafe { &*(plan(inst)) };
    // SAFETY: as above.
    let lines = unsafe { lines(warp, inst, tile) };
    let per = tile.fragment.element.per_register();
    for (at, &register) in inst.list.iter().enumerate() {
        // SAFETY: by this function's contract.
        let words = unsafe { *warp.source::<u32>(register) };
        for half in 0..per {
            for lane in 0..LANES {
                let (line, position) = tile.place((at * per + half) * LANES + lane);
                // SAFETY: `lines` checked the whole line.
                unsafe {
                    match per {
                        1 => lines[line].cast::<u32>().add(position).write(words[lane]),
                        _ => lines[line].cast::<u16>().add(position).write((words[lane] >> (16 * half)) as u16),
                    }
                }
            }
        }
    }
}

/// The address of the tile is in the instruction's two spare words.
fn plan(inst: &Inst) -> *const Tile {
    (u64::from(inst.c) | u64::from(inst.aux) << 32) as *const Tile
}
