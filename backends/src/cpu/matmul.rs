//! Matrix products over strided fp32 memory, by the `gemm` crate.

use gemm::Parallelism;

/// A strided matrix operand that is read.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    data: &'a [f32],
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Operand<'a> {
    /// A row-major matrix whose rows are `row_stride` elements apart.
    pub fn rows(data: &'a [f32], row_stride: usize) -> Self {
        Self { data, row_stride, col_stride: 1 }
    }

    /// The same memory read as the transpose.
    pub fn transposed(self) -> Self {
        Self { row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    fn holds(&self, rows: usize, cols: usize) -> bool {
        rows == 0 || cols == 0 || (rows - 1) * self.row_stride + (cols - 1) * self.col_stride < self.data.len()
    }
}

/// A row-major destination whose rows are `row_stride` elements apart.
#[derive(Clone, Copy)]
pub struct Destination {
    pub data: *mut f32,
    pub row_stride: usize,
}

// SAFETY: only a pointer; whoever writes through it from several threads writes disjoint elements (see `matmul_raw`).
unsafe impl Send for Destination {}
// SAFETY: as above.
unsafe impl Sync for Destination {}

impl Destination {
    /// `offset` elements further on.
    ///
    /// # Safety
    /// `offset` must stay within the allocation.
    pub unsafe fn at(self, offset: usize) -> Self {
        // SAFETY: promised by the caller.
        Self { data: unsafe { self.data.add(offset) }, ..self }
    }
}

/// out `[m, n]` = lhs `[m, k]` x rhs `[k, n]`, or out += that; on all cores.
pub fn matmul(sizes: [usize; 3], lhs: Operand, rhs: Operand, out: &mut [f32], row_stride: usize, accumulate: bool) {
    let [m, n, _] = sizes;
    assert!(m == 0 || n == 0 || (m - 1) * row_stride + n <= out.len(), "matmul output is too small");
    let out = Destination { data: out.as_mut_ptr(), row_stride };
    // Below this many multiplications waking the other threads costs more than they save.
    let parallelism = if sizes.iter().product::<usize>() > 1 << 19 { Parallelism::Rayon(0) } else { Parallelism::None };
    // SAFETY: `out` is exclusively borrowed and large enough.
    unsafe { matmul_raw(sizes, lhs, rhs, out, accumulate, parallelism) }
}

/// As `matmul`, through a raw destination.
///
/// # Safety
/// Rows `0..m` of `out`, `n` elements each, must be valid for writes and not accessed by anyone else meanwhile.
pub unsafe fn matmul_raw(
    [m, n, k]: [usize; 3],
    lhs: Operand,
    rhs: Operand,
    out: Destination,
    accumulate: bool,
    parallelism: Parallelism,
) {
    assert!(lhs.holds(m, k) && rhs.holds(k, n), "matmul operand is too small");
    // SAFETY: the operands hold their shapes (asserted); the destination is promised by the caller.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.data,
            1,
            out.row_stride as isize,
            accumulate,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
