//! Fragments of m16n8k16 products, and rows staged for them (PTX ISA, "Matrix fragments for mma.m16n8k16" and "ldmatrix").
//!
//! In a product's fragment, lane l has rows l / 4 and l / 4 + 8, of each the columns 2 (l % 4) and the next: a pair.

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use super::{COLUMNS, DRAWN, KEYS, ROWS};
use crate::elementwise::within;

/// Two neighbouring columns, which a lane holds together.
pub type Pair = Const<2>;
/// The 16 bytes that ldmatrix reads of a row.
pub type Row = Const<8>;

/// Fragments of one kind, in the order of their use.
pub type Fragments<T> = Sequence<Array<Vector<T, Pair>>>;

/// Sizes of a product of fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extents {
    /// Fragments of 16 rows.
    pub m: usize,
    /// Fragments of 8 columns.
    pub n: usize,
    /// Steps of 16 along k.
    pub steps: usize,
    /// Vectors between neighbouring rows of the stage.
    pub stride: usize,
}

/// The key of a block that is staged in row `row`: lane t of a quad, which has columns 2t and 2t + 1 of each of the block's
/// eight products, gets keys 16t to 16t + 15 in order.
#[cube]
pub fn drawn_key(row: usize) -> usize {
    let (product, column) = (row / COLUMNS, row % COLUMNS);
    column / 2 * DRAWN + product * 2 + column % 2
}

/// How rows are ordered in the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// As they come.
    Plain,
    /// `drawn_key`, in each block of 64.
    Drawn,
    /// Rows g and g + 8 of each 16 are neighbours 2g and 2g + 1: a lane's two keys then share a word of their Philox call.
    Paired,
}

/// Copies rows `first..first + rows` of a matrix to rows `to..` of the stage. The matrix's rows are `width` vectors apart, from
/// `start` on; those past the last of `seq` are read as the last.
#[cube]
#[allow(clippy::too_many_arguments)]
pub fn stage_rows<T: Float>(
    matrix: &Array<Vector<T, Row>>,
    start: usize,
    width: usize,
    first: usize,
    seq: usize,
    stage: &mut SharedMemory<Vector<T, Row>>,
    to: usize,
    #[comptime] rows: usize,
    #[comptime] stride: usize,
    #[comptime] units: usize,
    #[comptime] order: Order,
) {
    let dims = comptime!(stride - 1);
    #[unroll]
    for i in 0..comptime!((rows * dims).div_ceil(units)) {
        let own = UNIT_POS as usize + comptime!(i * units);
        // Units that are left over in the last round copy the last vector again.
        let at = if comptime!((rows * dims).is_multiple_of(units)) { own } else { within(own, comptime!(rows * dims)) };
        let (row, column) = (at / dims, at % dims);
        let own = match comptime!(order) {
            Order::Plain => row,
            Order::Drawn => row / KEYS * KEYS + drawn_key(row % KEYS),
            Order::Paired => row / ROWS * ROWS + row % COLUMNS * 2 + row % ROWS / COLUMNS,
        };
        stage[(to + row) * stride + column] = matrix[start + within(first + own, seq) * width + column];
    }
}

/// Adds 16 staged rows from `first` on as the left side of products: a fragment a step along their elements.
#[cube]
pub fn push_left<T: Float>(
    fragments: &mut Fragments<T>,
    stage: &SharedMemory<Vector<T, Row>>,
    first: usize,
    #[comptime] steps: usize,
    #[comptime] stride: usize,
) {
    let lane = UNIT_POS_PLANE as usize;
    let definition = MmaDefinition::<T, T, f32>::new(16usize, 8usize, 16usize);
    #[unroll]
    for step in 0..steps {
        // Four 8 x 8 matrices: upper and lower rows of the left eight columns, then of the right eight.
        let at = (first + lane % ROWS) * stride + comptime!(step * 2) + lane / ROWS;
        fragments.push(definition.load_matrix::<_, Pair>(&stage.slice(at, at + 1), MatrixIdent::A, 4usize, false));
    }
}

/// Zeros for `count` products.
#[cube]
pub fn zeros(#[comptime] count: usize) -> Fragments<f32> {
    let mut fragments = Fragments::<f32>::new();
    #[unroll]
    for _ in 0..count {
        let mut fragment = Array::<Vector<f32, Pair>>::new(2usize);
        fragment[0] = Vector::new(0.0f32);
        fragment[1] = Vector::new(0.0f32);
        fragments.push(fragment);
    }
    fragments
}

/// The right sides of two neighbouring products out of what one ldmatrix read.
#[cube]
fn halves<T: Float>(read: Array<Vector<T, Pair>>) -> Fragments<T> {
    let mut both = Fragments::<T>::new();
    #[unroll]
    for half in 0..2usize {
        let mut fragment = Array::<Vector<T, Pair>>::new(2usize);
        fragment[0] = read[comptime!(2 * half)];
        fragment[1] = read[comptime!(2 * half + 1)];
        both.push(fragment);
    }
    both
}

/// One step of the products `pair * 2` and the next, for all rows of a.
#[cube]
fn multiply<T: Float>(
    definition: &MmaDefinition<T, T, f32>,
    a: &Fragments<T>,
    b: &Fragments<T>,
    sums: &mut Fragments<f32>,
    #[comptime] step: usize,
    #[comptime] pair: usize,
    #[comptime] extents: Extents,
) {
    #[unroll]
    for m in 0..comptime!(extents.m) {
        #[unroll]
        for half in 0..2usize {
            definition.execute_inplace(
                a.index(comptime!(m * extents.steps + step)),
                b.index(half),
                sums.index_mut(comptime!(m * extents.n + pair * 2 + half)),
            );
        }
    }
}

/// `sums[m][n] += a[m] b^T`, where b's rows are the staged ones from `first` on: scores, whose k runs along the rows.
#[cube]
pub fn add_times_rows<T: Float>(
    a: &Fragments<T>,
    stage: &SharedMemory<Vector<T, Row>>,
    sums: &mut Fragments<f32>,
    first: usize,
    #[comptime] extents: Extents,
) {
    let lane = UNIT_POS_PLANE as usize;
    let definition = MmaDefinition::<T, T, f32>::new(16usize, 8usize, 16usize);
    // Both halves of the first eight rows, then of the second.
    let own = (first + lane / ROWS * COLUMNS + lane % COLUMNS) * comptime!(extents.stride) + lane / COLUMNS % 2;
    #[unroll]
    for pair in 0..comptime!(extents.n / 2) {
        #[unroll]
        for step in 0..comptime!(extents.steps) {
            let at = own + comptime!(pair * ROWS * extents.stride + step * 2);
            let read = definition.load_matrix::<_, Pair>(&stage.slice(at, at + 1), MatrixIdent::B, 4usize, false);
            multiply(&definition, a, &halves::<T>(read), sums, step, pair, extents);
        }
    }
}

/// `sums[m][n] += a[m] b`, where b's rows are the staged ones from `first` on: the k of a product runs over the rows.
#[cube]
pub fn add_times_columns<T: Float>(
    a: &Fragments<T>,
    stage: &SharedMemory<Vector<T, Row>>,
    sums: &mut Fragments<f32>,
    first: usize,
    #[comptime] extents: Extents,
) {
    let lane = UNIT_POS_PLANE as usize;
    let definition = MmaDefinition::<T, T, f32>::new(16usize, 8usize, 16usize);
    // Upper and lower rows of eight columns, then of the next eight; each matrix turned round as it is read.
    let own = (first + lane % ROWS) * comptime!(extents.stride) + lane / ROWS;
    #[unroll]
    for step in 0..comptime!(extents.steps) {
        #[unroll]
        for pair in 0..comptime!(extents.n / 2) {
            let at = own + comptime!(step * ROWS * extents.stride + pair * 2);
            let read = definition.load_matrix::<_, Pair>(&stage.slice(at, at + 1), MatrixIdent::B, 4usize, true);
            multiply(&definition, a, &halves::<T>(read), sums, step, pair, extents);
        }
    }
}

/// Products as the left side of the next ones: two of 8 columns are 16 of k, and each lane already has its part.
#[cube]
pub fn narrowed<T: Float>(products: &Fragments<f32>, #[comptime] count: usize) -> Fragments<T> {
    let mut fragments = Fragments::<T>::new();
    #[unroll]
    for pair in 0..comptime!(count / 2) {
        let mut fragment = Array::<Vector<T, Pair>>::new(4usize);
        #[unroll]
        for half in 0..2usize {
            let product = products.index(comptime!(pair * 2 + half));
            fragment[comptime!(2 * half)] = Vector::cast_from(product[0]);
            fragment[comptime!(2 * half + 1)] = Vector::cast_from(product[1]);
        }
        fragments.push(fragment);
    }
    fragments
}
