//! wgmma: products of a warpgroup over matrices in shared memory (PTX ISA, "Asynchronous Warpgroup Level Matrix
//! Instructions").
//!
//! The sums are in the registers after the wait, not before; until then those hold NaN. An operand that changes between
//! the instruction and the wait is a fault, since the device reads it at some time between the two.

use super::{Element, whole_warp};
use crate::half::{bf16_to_f32, f16_to_f32};
use crate::machine::address::Space;
use crate::machine::warp::Warp;
use crate::ops::exec;
use crate::program::{Exec, Inst, LANES};

/// k of a product of 16-bit elements; a warp has 16 of its 64 rows.
const K: usize = 16;
const OWN_ROWS: usize = 16;
const WARPS: usize = 4;

/// What a wgmma.mma_async instruction says: 64 x n x 16, fp32 sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub n: usize,
    pub element: Element,
    /// a and b with the other dimension than k contiguous ("MN-major").
    pub mn_major: [bool; 2],
    /// imm-scale-a and imm-scale-b multiplied: 1 or -1.
    pub negated: bool,
    pub a_in_registers: bool,
}

impl Plan {
    /// "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16"; `None` for what is not implemented.
    pub fn named(mnemonic: &str) -> Option<(usize, Element)> {
        let rest = mnemonic.strip_prefix("wgmma.mma_async.sync.aligned.m64n")?;
        let (n, kinds) = rest.split_once("k16.f32.")?;
        let n = n.parse().ok().filter(|n: &usize| n.is_multiple_of(8) && (8..=256).contains(n))?;
        let (a, b) = kinds.split_once('.')?;
        let element = Element::named(a).filter(|element| matches!(element, Element::F16 | Element::Bf16))?;
        (a == b).then_some((n, element))
    }
}

/// A matrix descriptor (PTX ISA, "Matrix Descriptor Format"): byte offsets in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Descriptor {
    start: u64,
    leading: u64,
    stride: u64,
    /// Bytes of the swizzle, or 16: none.
    width: u64,
}

impl Descriptor {
    fn of(bits: u64) -> Result<Self, String> {
        let field = |at: u32| (bits >> at & 0x3fff) << 4;
        if bits >> 49 & 7 != 0 {
            return Err(format!("the descriptor {bits:#x} has a base offset, which is not implemented"));
        }
        let width = [16, 128, 64, 32][(bits >> 62) as usize];
        Ok(Self { start: field(0), leading: field(16), stride: field(32), width })
    }

    /// Where the element (`mn`, `k`) of two bytes lies (PTX ISA, "Shared Memory Matrix Layout" and "Strides"). In
    /// elements of 16 bytes, a swizzle atom is width / 16 along the contiguous dimension by 8 along the other.
    fn place(&self, mn: usize, k: usize, mn_major: bool) -> u64 {
        let (mn, k) = (mn as u64, k as u64);
        let along = self.width / 2;
        let dense = match (mn_major, self.width) {
            // Without a swizzle: 8 rows of 16 bytes; the leading offset leads to the next 8 of k, the stride to the
            // next 8 of m or n, in both orders.
            (false, 16) => mn / 8 * self.stride + k / 8 * self.leading + mn % 8 * 16 + k % 8 * 2,
            (true, 16) => mn / 8 * self.stride + k / 8 * self.leading + k % 8 * 16 + mn % 8 * 2,
            // 8 rows of m or n, each with its k contiguous; the stride leads to the next 8, the leading offset is
            // unused.
            (false, width) => mn / 8 * self.stride + mn % 8 * width + k * 2,
            // 8 rows of k, each with its m or n contiguous; the stride leads to the next 8 of k, the leading offset to
            // the next atom along m or n.
            (true, width) => mn / along * self.leading + k / 8 * self.stride + k % 8 * width + mn % along * 2,
        };
        let address = self.start + dense;
        // The chunks of 16 bytes of a 128-byte line are permuted by the line's number.
        address ^ ((address / 128 % (self.width / 16)) * 16)
    }
}

/// Reads the matrix `[rows, K]` from `first` on; also a checksum of its bits.
///
/// # Safety
/// None of its own: every access is checked.
fn gather(
    warp: &mut Warp,
    inst: &Inst,
    bits: u64,
    (first, rows): (usize, usize),
    mn_major: bool,
    element: Element,
) -> (Vec<f32>, u64) {
    let descriptor = match Descriptor::of(bits) {
        Ok(descriptor) => descriptor,
        Err(text) => warp.fail(inst.line, None, text),
    };
    let (mut values, mut sum) = (Vec::with_capacity(rows * K), 0u64);
    for row in first..first + rows {
        for k in 0..K {
            let from = warp.pointer(inst, 0, Space::Shared, descriptor.place(row, k, mn_major), 2, 2);
            // SAFETY: the pointer was checked.
            let bits = unsafe { from.cast::<u16>().read() };
            sum = (sum ^ u64::from(bits)).wrapping_mul(0x0000_0100_0000_01b3);
            values.push(if element == Element::F16 { f16_to_f32(bits) } else { bf16_to_f32(bits) });
        }
    }
    (values, sum)
}

/// A product that the warp has not waited for.
struct Product {
    /// Commit groups before it.
    group: u32,
    /// The instruction, which lives as long as the kernel.
    inst: *const Inst,
    descriptors: [u64; 2],
    sums: [u64; 2],
    /// What the registers will hold; empty where a later product goes on with it.
    values: Vec<[u32; LANES]>,
}

/// What a warp has begun.
#[derive(Default)]
pub struct Products {
    pending: Vec<Product>,
    committed: u32,
    /// Whether registers are fenced against products that come.
    fenced: bool,
    /// A checksum of all products so far: instructions and descriptors.
    history: u64,
}

impl Products {
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The same for the four warps of a warpgroup, which execute every product together.
    pub fn history(&self) -> u64 {
        self.history
    }
}

fn registers(inst: &Inst, plan: &Plan) -> Vec<u32> {
    inst.list[..plan.n / 2].to_vec()
}

/// # Safety
/// `imm` is the address of a `Plan` that lives forever.
unsafe fn plan(inst: &Inst) -> &'static Plan {
    // SAFETY: by this function's contract.
    unsafe { &*(inst.imm as *const Plan) }
}

/// A descriptor, which all lanes must give alike.
///
/// # Safety
/// The operand is a double.
unsafe fn descriptor(warp: &Warp, inst: &Inst, operand: u32) -> u64 {
    // SAFETY: by this function's contract.
    let bits = unsafe { *warp.source::<u64>(operand) };
    if bits != [bits[0]; LANES] {
        warp.fail(inst.line, None, "the lanes give different descriptors".to_owned());
    }
    bits[0]
}

/// This warp's 16 rows of the product; lane l has of rows l / 4 and l / 4 + 8 the columns 2 (l % 4) and the next of
/// every eight (PTX ISA, "Register Fragments and Shared Memory Matrix Layouts" of m64nNk16, the figure of D).
///
/// # Safety
/// As for `Exec`; `imm` is a plan; the list has its n / 2 sums, read and written; then a's four words where it is in
/// registers; a and b are doubles, c a predicate.
#[inline(always)]
unsafe fn multiply(warp: &mut Warp, inst: &Inst) {
    whole_warp(warp, inst);
    // SAFETY: by this function's contract.
    let plan = unsafe { plan(inst) };
    if !warp.products.fenced {
        warp.fail(inst.line, None, "wgmma.mma_async after an access to registers without wgmma.fence".to_owned());
    }
    if !warp.launch.threads().is_multiple_of(WARPS * LANES) {
        warp.fail(inst.line, None, "wgmma.mma_async in a block that is not made of whole warpgroups".to_owned());
    }
    let adds = warp.predicate(inst.c);
    if adds != 0 && adds != u32::MAX {
        warp.fail(inst.line, None, "the lanes differ in scale-d".to_owned());
    }
    let own = warp.index % WARPS * OWN_ROWS;
    let (a, b_bits) = if plan.a_in_registers {
        // SAFETY: as above.
        (0, unsafe { descriptor(warp, inst, inst.b) })
    } else {
        // SAFETY: as above.
        unsafe { (descriptor(warp, inst, inst.a), descriptor(warp, inst, inst.b)) }
    };
    let (left, left_sum) = if plan.a_in_registers {
        // SAFETY: as above.
        (unsafe { left_registers(warp, &inst.list[plan.n..], plan.element) }, 0)
    } else {
        gather(warp, inst, a, (own, OWN_ROWS), plan.mn_major[0], plan.element)
    };
    let (right, right_sum) = gather(warp, inst, b_bits, (0, plan.n), plan.mn_major[1], plan.element);
    // k by n, so that the inner loop runs along a row.
    let mut by_k = vec![0f32; K * plan.n];
    for column in 0..plan.n {
        for k in 0..K {
            by_k[k * plan.n + column] = right[column * K + k];
        }
    }
    let registers = registers(inst, plan);
    let mut values = earlier(warp, &registers);
    let sign = if plan.negated { -1.0 } else { 1.0 };
    let mut row_sums = vec![0f32; plan.n];
    for row in 0..OWN_ROWS {
        for (at, sum) in row_sums.iter_mut().enumerate() {
            let (register, lane) = home(row, at);
            *sum = if adds != 0 { f32::from_bits(values[register][lane]) } else { 0.0 };
        }
        for k in 0..K {
            let factor = sign * left[row * K + k];
            for (sum, right) in row_sums.iter_mut().zip(&by_k[k * plan.n..]) {
                *sum = factor.mul_add(*right, *sum);
            }
        }
        for (at, sum) in row_sums.iter().enumerate() {
            let (register, lane) = home(row, at);
            values[register][lane] = sum.to_bits();
        }
    }
    for &register in &registers {
        // SAFETY: by this function's contract.
        unsafe { warp.set::<u32>(register, &[u32::MAX; LANES]) }
    }
    for part in [u64::from(inst.line), a, b_bits] {
        warp.products.history = (warp.products.history ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    let group = warp.products.committed;
    let (descriptors, sums) = ([a, b_bits], [left_sum, right_sum]);
    warp.products.pending.push(Product { group, inst, descriptors, sums, values });
}

/// The register, and its lane, with the sum at (`row`, `column`) of a warp's part.
fn home(row: usize, column: usize) -> (usize, usize) {
    (column / 8 * 4 + row / 8 * 2 + column % 2, row % 8 * 4 + column % 8 / 2)
}

/// What the registers would hold once all that was begun is done.
fn earlier(warp: &mut Warp, registers: &[u32]) -> Vec<[u32; LANES]> {
    let before = warp.products.pending.iter_mut().rev().find(|product| {
        // SAFETY: the kernel's instructions outlive its warps.
        !product.values.is_empty() && unsafe { &*product.inst }.list[0] == registers[0]
    });
    match before {
        Some(product) => std::mem::take(&mut product.values),
        // SAFETY: lowering made the registers words.
        None => registers.iter().map(|&register| unsafe { *warp.source::<u32>(register) }).collect(),
    }
}

/// a from registers: 16 rows a warp, in mma.m16n8k16's layout (PTX ISA, the figure of A of m64k16).
///
/// # Safety
/// The registers are words.
unsafe fn left_registers(warp: &Warp, registers: &[u32], element: Element) -> Vec<f32> {
    let mut values = vec![0f32; OWN_ROWS * K];
    for (at, &register) in registers.iter().take(4).enumerate() {
        // SAFETY: by this function's contract.
        let words = unsafe { *warp.source::<u32>(register) };
        for (lane, word) in words.iter().enumerate() {
            for half in 0..2 {
                let (row, k) = (lane / 4 + at % 2 * 8, lane % 4 * 2 + at / 2 * 8 + half);
                let bits = (word >> (16 * half)) as u16;
                values[row * K + k] = if element == Element::F16 { f16_to_f32(bits) } else { bf16_to_f32(bits) };
            }
        }
    }
    values
}

pub fn multiplication() -> Exec {
    exec!(|w, i| multiply(w, i))
}

/// wgmma.fence. The device wants one before the first product and after any access to the registers of one; here,
/// before the first and after every wait that leaves none.
///
/// # Safety
/// As for `Exec`.
pub unsafe fn fence(warp: &mut Warp, inst: &Inst) {
    whole_warp(warp, inst);
    warp.products.fenced = true;
}

/// wgmma.commit_group
///
/// # Safety
/// As for `Exec`.
pub unsafe fn commit(warp: &mut Warp, inst: &Inst) {
    whole_warp(warp, inst);
    warp.products.committed += 1;
}

/// wgmma.wait_group imm: until at most that many of the latest groups are pending.
///
/// # Safety
/// As for `Exec`.
pub unsafe fn wait(warp: &mut Warp, inst: &Inst) {
    whole_warp(warp, inst);
    let committed = i64::from(warp.products.committed);
    let due = |product: &Product| committed - i64::from(product.group) > inst.imm.max(0);
    let (done, rest): (Vec<Product>, Vec<Product>) =
        std::mem::take(&mut warp.products.pending).into_iter().partition(due);
    for product in done {
        // SAFETY: the kernel's instructions outlive its warps; lowering made this one a product.
        let (of, plan) = unsafe { (&*product.inst, plan(&*product.inst)) };
        let own = warp.index % WARPS * OWN_ROWS;
        let [a, b] = product.descriptors;
        let unchanged = (plan.a_in_registers
            || gather(warp, of, a, (own, OWN_ROWS), plan.mn_major[0], plan.element).1 == product.sums[0])
            && gather(warp, of, b, (0, plan.n), plan.mn_major[1], plan.element).1 == product.sums[1];
        if !unchanged {
            let text = "shared memory that wgmma.mma_async reads was overwritten before wgmma.wait_group".to_owned();
            warp.fail(of.line, None, text);
        }
        for (register, values) in registers(of, plan).into_iter().zip(&product.values) {
            // SAFETY: lowering made the registers words.
            unsafe { warp.set::<u32>(register, values) }
        }
    }
    if rest.is_empty() {
        warp.products.fenced = false;
    }
    warp.products.pending = rest;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sum_has_one_home() {
        let mut homes: Vec<_> = (0..OWN_ROWS).flat_map(|row| (0..64).map(move |column| home(row, column))).collect();
        homes.sort_unstable();
        homes.dedup();
        assert_eq!(homes.len(), OWN_ROWS * 64);
        assert_eq!(homes.last(), Some(&(31, 31)));
        assert_eq!((home(0, 1), home(9, 0), home(3, 13)), ((1, 0), (2, 4), (5, 14)));
    }

    #[test]
    fn mnemonics() {
        assert_eq!(Plan::named("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16"), Some((256, Element::Bf16)));
        assert_eq!(Plan::named("wgmma.mma_async.sync.aligned.m64n12k16.f32.f16.f16"), None);
        assert_eq!(Plan::named("wgmma.mma_async.sync.aligned.m64n64k8.f32.tf32.tf32"), None);
    }
}
