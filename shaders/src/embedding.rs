//! The token embedding: rows of the table, and the table's gradient without atomics.
//!
//! N tokens, V rows of the table, C columns. Backward sorts the positions by token, stably, by counting for each how many
//! come before it: N^2 comparisons of integers in the first-level cache (a thousand million at 32,768 tokens: a few
//! milliseconds of a GPU, where a step takes seconds) need one launch and no scratch but the order. Then each run of equal
//! tokens is summed in the order of its positions by one unit a column, so the sum's order never depends on timing.

use cubecl::prelude::*;

use crate::device::{Buffer, check_iterations};
use crate::elementwise::{array, spread, unit_index, width};
use crate::tuning::Choice;

#[cube(launch_unchecked)]
fn forward_kernel<T: Float, N: Size>(
    table: &Array<Vector<T, N>>,
    tokens: &Array<i32>,
    x: &mut Array<Vector<f32, N>>,
    len: usize,
    cols: usize,
    #[define(T)] _dtype: StorageType,
) {
    let at = unit_index();
    if at < len {
        let token = tokens[at / cols] as usize;
        x[at] = Vector::cast_from(table[token * cols + at % cols]);
    }
}

/// order[rank of position n] = n, ranked by (token, position).
#[cube(launch_unchecked)]
fn order_kernel(tokens: &Array<i32>, order: &mut Array<u32>, len: usize) {
    let at = unit_index();
    if at < len {
        let token = tokens[at];
        let mut rank = 0u32;
        for other in 0..at {
            rank += select(tokens[other] <= token, 1u32, 0u32);
        }
        for other in at..len {
            rank += select(tokens[other] < token, 1u32, 0u32);
        }
        order[rank as usize] = at as u32;
    }
}

/// The unit at the first of a run of equal tokens adds the run's rows to the table's gradient. `start` is in vectors.
#[cube(launch_unchecked)]
fn backward_kernel<N: Size>(
    dx: &Array<Vector<f32, N>>,
    tokens: &Array<i32>,
    order: &Array<u32>,
    dtable: &mut Array<Vector<f32, N>>,
    len: usize,
    cols: usize,
    start: usize,
) {
    let at = unit_index();
    if at < len * cols {
        let column = at % cols;
        let first = at / cols;
        let token = tokens[order[first] as usize];
        let mut leads = first == 0;
        if !leads {
            leads = tokens[order[first - 1] as usize] != token;
        }
        if leads {
            let mut sum = dx[order[first] as usize * cols + column];
            let mut next = first + 1;
            let mut same = true;
            while same && next < len {
                let position = order[next] as usize;
                same = tokens[position] == token;
                if same {
                    sum += dx[position * cols + column];
                }
                next += 1;
            }
            dtable[start + token as usize * cols + column] += sum;
        }
    }
}

/// Writes rows of `table` `[V, C]` at `tokens` `[N]` (i32, each below V) to `x`, fp32 `[N, C]`.
pub fn forward<R: Runtime>(
    client: &ComputeClient<R>,
    [rows, cols]: [usize; 2],
    table: Buffer<R>,
    tokens: TensorBinding<R>,
    x: TensorBinding<R>,
) {
    let n = width(&[cols]);
    let len = rows * cols / n;
    let (count, dim) = spread(client, len, Some(Choice::EmbeddingUnits));
    let dtype = table.dtype;
    // SAFETY: each unit compares its index with the length; tokens are below V, as the caller promises.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            count,
            dim,
            n,
            table.arg(),
            array(tokens),
            array(x),
            len,
            cols / n,
            dtype,
        );
    }
}

/// Adds `dx` `[N, C]` fp32 to the rows at `tokens` of the table that starts at element `start` of `dtable` (fp32);
/// `order` is scratch for N u32.
pub fn backward<R: Runtime>(
    client: &ComputeClient<R>,
    [rows, cols]: [usize; 2],
    dx: TensorBinding<R>,
    tokens: TensorBinding<R>,
    order: TensorBinding<R>,
    (dtable, start): (TensorBinding<R>, usize),
) {
    check_iterations(client, rows, "the embedding's gradient");
    let n = width(&[cols, start]);
    // SAFETY: each unit compares its index with the length; one unit writes each element of the gradient.
    unsafe {
        let (count, dim) = spread(client, rows, Some(Choice::EmbeddingUnits));
        order_kernel::launch_unchecked(client, count, dim, array(tokens.clone()), array(order.clone()), rows);
        let (count, dim) = spread(client, rows * cols / n, Some(Choice::EmbeddingUnits));
        backward_kernel::launch_unchecked(
            client,
            count,
            dim,
            n,
            array(dx),
            array(tokens),
            array(order),
            array(dtable),
            rows,
            cols / n,
            start / n,
        );
    }
}
