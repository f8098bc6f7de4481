//! The residual stream's sums and its dropout: masks are drawn in the kernel, forward and backward, and stored nowhere.
//!
//! One Philox call decides 16 neighbouring elements of a row, so that is what a unit works on.

use cubecl::prelude::*;

use crate::device::{Buffer, multiplies_high};
use crate::elementwise::{array, spread, unit_index, width};
use crate::philox::{Dropout, DropoutLaunch, Words, factor, word, words};
use crate::tuning::Choice;

/// Elements that one Philox call decides.
const LANES: usize = 16;

/// N tokens of C columns in sequences of `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub rows: usize,
    pub cols: usize,
    pub seq: usize,
}

/// One step's dropout of one layer at one site, on the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Site {
    pub key: [u32; 2],
    pub first_sequence: u32,
    /// layer << 16 | site.
    pub place: u32,
    pub threshold: u32,
    pub scale: f32,
}

pub(crate) fn launch_site<R: Runtime>(site: Option<Site>) -> DropoutLaunch<R> {
    // Without dropout the kernel is compiled to read nothing of it.
    let site = site.unwrap_or(Site { key: [0; 2], first_sequence: 0, place: 0, threshold: 0, scale: 1.0 });
    DropoutLaunch::new(site.key[0], site.key[1], site.first_sequence, site.place, site.threshold, site.scale)
}

/// The factors of the `width` elements that `word` decides, a byte each from the `first` on.
#[cube]
pub(crate) fn word_factors<N: Size>(
    dropout: &Dropout,
    word: u32,
    #[comptime] first: usize,
    #[comptime] width: usize,
) -> Vector<f32, N> {
    let mut out = Vector::<f32, N>::empty();
    #[unroll]
    for i in 0..width {
        out[i] = factor(dropout, word, comptime!((first + i) as u32));
    }
    out
}

/// The factors of the `width` elements from lane `lane` on, all of one word.
#[cube]
fn factors<N: Size>(
    dropout: &Dropout,
    words: Words,
    #[comptime] lane: usize,
    #[comptime] width: usize,
) -> Vector<f32, N> {
    word_factors(dropout, word(words, comptime!(lane / 4)), comptime!(lane % 4), width)
}

/// A unit's 16 elements: its row, block, and first vector.
#[derive(CubeType, Clone, Copy)]
struct Block {
    row: usize,
    block: usize,
    /// Vectors from the start of the row, and from the start of the matrix.
    column: usize,
    start: usize,
}

#[cube]
fn block(cols: usize, #[comptime] width: usize) -> Block {
    let vectors = comptime!(LANES / width);
    let blocks = cols.div_ceil(vectors);
    let at = unit_index();
    let row = at / blocks;
    let block = at % blocks;
    Block { row, block, column: block * vectors, start: row * cols + block * vectors }
}

#[cube]
fn draw(dropout: &Dropout, block: Block, seq: usize, #[comptime] native: bool) -> Words {
    words(dropout, (block.row / seq) as u32, 0u32, (block.row % seq) as u32, block.block as u32, native)
}

/// out = x + drop(a) + drop(b).
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn forward_kernel<T: Float, N: Size>(
    x: &Array<Vector<f32, N>>,
    a: &Array<Vector<T, N>>,
    b: &Array<Vector<T, N>>,
    out: &mut Array<Vector<f32, N>>,
    rows: usize,
    cols: usize,
    seq: usize,
    drop_a: &Dropout,
    drop_b: &Dropout,
    #[comptime] dropped: bool,
    #[comptime] width: usize,
    #[comptime] native: bool,
    #[define(T)] _dtype: StorageType,
) {
    let block = block(cols, width);
    if block.row < rows {
        let vectors = comptime!(LANES / width);
        if dropped {
            let words_a = draw(drop_a, block, seq, native);
            let words_b = draw(drop_b, block, seq, native);
            #[unroll]
            for i in 0..vectors {
                if block.column + i < cols {
                    let at = block.start + i;
                    let a = Vector::<f32, N>::cast_from(a[at]);
                    let b = Vector::<f32, N>::cast_from(b[at]);
                    let factors_a = factors::<N>(drop_a, words_a, comptime!(i * width), width);
                    let factors_b = factors::<N>(drop_b, words_b, comptime!(i * width), width);
                    out[at] = x[at] + a * factors_a + b * factors_b;
                }
            }
        } else {
            #[unroll]
            for i in 0..vectors {
                if block.column + i < cols {
                    let at = block.start + i;
                    out[at] = x[at] + Vector::<f32, N>::cast_from(a[at]) + Vector::<f32, N>::cast_from(b[at]);
                }
            }
        }
    }
}

/// da = drop(dx), db = drop(dx), each with its own mask.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn backward_kernel<T: Float, N: Size>(
    dx: &Array<Vector<f32, N>>,
    da: &mut Array<Vector<T, N>>,
    db: &mut Array<Vector<T, N>>,
    rows: usize,
    cols: usize,
    seq: usize,
    drop_a: &Dropout,
    drop_b: &Dropout,
    #[comptime] width: usize,
    #[comptime] native: bool,
    #[define(T)] _dtype: StorageType,
) {
    let block = block(cols, width);
    if block.row < rows {
        let words_a = draw(drop_a, block, seq, native);
        let words_b = draw(drop_b, block, seq, native);
        #[unroll]
        for i in 0..comptime!(LANES / width) {
            if block.column + i < cols {
                let at = block.start + i;
                let dx = dx[at];
                da[at] = Vector::cast_from(dx * factors::<N>(drop_a, words_a, comptime!(i * width), width));
                db[at] = Vector::cast_from(dx * factors::<N>(drop_b, words_b, comptime!(i * width), width));
            }
        }
    }
}

/// x = drop(x).
#[cube(launch_unchecked)]
fn dropout_kernel<N: Size>(
    x: &mut Array<Vector<f32, N>>,
    rows: usize,
    cols: usize,
    seq: usize,
    dropout: &Dropout,
    #[comptime] width: usize,
    #[comptime] native: bool,
) {
    let block = block(cols, width);
    if block.row < rows {
        let words = draw(dropout, block, seq, native);
        #[unroll]
        for i in 0..comptime!(LANES / width) {
            if block.column + i < cols {
                x[block.start + i] *= factors::<N>(dropout, words, comptime!(i * width), width);
            }
        }
    }
}

/// Writes `out` = `x` + drop(`a`) + drop(`b`): fp32 streams, branches of one dtype, all contiguous `[N, C]`.
pub fn forward<R: Runtime>(
    client: &ComputeClient<R>,
    sizes: Sizes,
    x: TensorBinding<R>,
    [a, b]: [Buffer<R>; 2],
    out: TensorBinding<R>,
    sites: Option<[Site; 2]>,
) {
    let n = width(&[sizes.cols]);
    let (count, dim) = spread(client, sizes.rows * sizes.cols.div_ceil(LANES), Some(Choice::ResidualUnits));
    let dtype = a.dtype;
    // SAFETY: each unit compares its row and columns with their numbers before it reads or writes.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            count,
            dim,
            n,
            array(x),
            a.arg(),
            b.arg(),
            array(out),
            sizes.rows,
            sizes.cols / n,
            sizes.seq,
            launch_site(sites.map(|sites| sites[0])),
            launch_site(sites.map(|sites| sites[1])),
            sites.is_some(),
            n,
            multiplies_high(client),
            dtype,
        );
    }
}

/// Writes the gradients of both branches (of one dtype), given that of the sum, fp32 `[N, C]`.
pub fn backward<R: Runtime>(
    client: &ComputeClient<R>,
    sizes: Sizes,
    dx: TensorBinding<R>,
    [da, db]: [Buffer<R>; 2],
    sites: [Site; 2],
) {
    let n = width(&[sizes.cols]);
    let (count, dim) = spread(client, sizes.rows * sizes.cols.div_ceil(LANES), Some(Choice::ResidualUnits));
    let dtype = da.dtype;
    // SAFETY: as in `forward`.
    unsafe {
        backward_kernel::launch_unchecked(
            client,
            count,
            dim,
            n,
            array(dx),
            da.arg(),
            db.arg(),
            sizes.rows,
            sizes.cols / n,
            sizes.seq,
            launch_site(Some(sites[0])),
            launch_site(Some(sites[1])),
            n,
            multiplies_high(client),
            dtype,
        );
    }
}

/// Applies dropout to the fp32 `x` `[N, C]` in place.
pub fn dropout<R: Runtime>(client: &ComputeClient<R>, sizes: Sizes, x: TensorBinding<R>, site: Site) {
    let n = width(&[sizes.cols]);
    let (count, dim) = spread(client, sizes.rows * sizes.cols.div_ceil(LANES), Some(Choice::ResidualUnits));
    // SAFETY: as in `forward`.
    unsafe {
        dropout_kernel::launch_unchecked(
            client,
            count,
            dim,
            n,
            array(x),
            sizes.rows,
            sizes.cols / n,
            sizes.seq,
            launch_site(Some(site)),
            n,
            multiplies_high(client),
        );
    }
}
