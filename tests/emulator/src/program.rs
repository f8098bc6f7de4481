//! A lowered kernel: what the machine runs.
//!
//! An instruction is a function pointer with its operands decoded. Registers are lane arrays (32 words or 32 doubles) in a
//! warp's register file; immediates are lane arrays too, in the kernel's constant pool, so that an operand is an offset
//! and one bit that says which of the two.

use crate::machine::warp::Warp;

pub const LANES: usize = 32;
pub const ALL: u32 = u32::MAX;

/// The lanes of a mask, ascending.
pub fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| mask >> lane & 1 == 1)
}

/// # Safety
/// The instruction's operands must be offsets into the warp's register file and its kernel's constants, of the widths that
/// the function reads; the CPU must have the features that it was compiled for.
pub type Exec = unsafe fn(&mut Warp, &Inst);

/// The operand is in the constant pool.
pub const CONSTANT: u32 = 1 << 31;
/// On predicate operands: the negated predicate.
pub const NOT: u32 = 1 << 31;
pub const NO_GUARD: u16 = u16::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs its function with the lanes that its guard leaves.
    Plain,
    /// Goes to instruction `imm`.
    Branch,
    /// Goes to one of `list` by operand a.
    Indexed,
    Return,
    /// Barrier a of b threads (b missing: all of the block); `aux` holds BARRIER_ flags.
    Barrier,
    /// Runs when all of the warp's living lanes have come.
    Whole,
    /// Runs, and may end the warp's turn.
    Yields,
    /// As `Yields`; where it ends the turn, it runs again in the next.
    Polls,
    /// Runs when the lanes of the member mask, the last of `list`, have come.
    Members,
}

pub const BARRIER_COUNTED: u32 = 1;
pub const BARRIER_ALIGNED: u32 = 2;
pub const BARRIER_ARRIVE: u32 = 4;
/// bar.red: popc, and, or, of predicate c.
pub const BARRIER_POPC: u32 = 8;
pub const BARRIER_AND: u32 = 16;
pub const BARRIER_OR: u32 = 32;

pub struct Inst {
    pub exec: Exec,
    pub imm: i64,
    pub d: u32,
    pub a: u32,
    pub b: u32,
    pub c: u32,
    pub aux: u32,
    pub line: u32,
    pub list: Box<[u32]>,
    /// A predicate, or NO_GUARD.
    pub guard: u16,
    pub invert: bool,
    pub kind: Kind,
}

/// Lane arrays start on cache lines.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [u8; 64]);

pub struct Kernel {
    pub name: String,
    pub code: Vec<Inst>,
    pub constants: Vec<Line>,
    /// Bytes of a warp's register file.
    pub register_bytes: usize,
    pub predicates: usize,
    /// Offset and size of each parameter.
    pub parameters: Vec<(usize, usize)>,
    pub parameter_bytes: usize,
    pub static_shared: usize,
    /// Bytes of .local memory a thread.
    pub local: usize,
    /// Blocks of a cluster, along x.
    pub cluster: usize,
}
