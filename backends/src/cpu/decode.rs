//! Attention of one new token a sequence, over a cache.

use burn_flex::Flex;
use burn_tensor::{DType, Tensor};
use rayon::prelude::*;

use super::simd::{add_weighted, exp, max, sum, vectorized};
use super::slices::{modify, tensor, wide, zeros};
use crate::cache::{KeyValues, Places};
use crate::ops::BlockDims;
use crate::reference;

/// Products below which one thread is faster than waking others.
const PARALLEL: usize = 1 << 19;

/// As `DecoderBackend::store_keys_values`.
pub fn store_keys_values(fused: &Tensor<Flex, 2>, dims: BlockDims, places: &Places<Flex>, cache: &mut KeyValues<Flex>) {
    if fused.dtype() != DType::F32 {
        return reference::store_keys_values(fused, dims, places, cache);
    }
    let fused = wide(fused.clone());
    let BlockDims { batch, seq, heads, head_dim, .. } = dims;
    let (hidden, width, capacity) = (dims.hidden(), dims.fused(), cache.capacity());
    // Head `head` of sequence `sequence`'s token, k at part 1 and v at part 2; and where its slot is.
    let row = |sequence: usize, head: usize, token: usize, part: usize| {
        let start = (sequence * seq + token) * width + part * hidden + head * head_dim;
        &fused[start..start + head_dim]
    };
    let each = || (0..batch).flat_map(|sequence| (0..heads).map(move |head| (sequence, head)));
    let slot = |sequence: usize, head: usize| (places.slots[sequence] * heads + head) * head_dim * capacity;
    modify(&mut cache.keys, |keys| {
        for (sequence, head) in each() {
            let (start, position) = (slot(sequence, head), places.positions[sequence]);
            for token in 0..seq {
                let column = keys[start + position + token..].iter_mut().step_by(capacity);
                column.zip(row(sequence, head, token, 1)).for_each(|(to, from)| *to = *from);
            }
        }
    });
    modify(&mut cache.values, |values| {
        for (sequence, head) in each() {
            for token in 0..seq {
                let at = slot(sequence, head) + (places.positions[sequence] + token) * head_dim;
                values[at..at + head_dim].copy_from_slice(row(sequence, head, token, 2));
            }
        }
    });
}

/// As `DecoderBackend::attention_decode`.
pub fn attention_decode(
    fused: Tensor<Flex, 2>,
    dims: BlockDims,
    places: &Places<Flex>,
    cache: &mut KeyValues<Flex>,
) -> Tensor<Flex, 2> {
    if fused.dtype() != DType::F32 {
        return reference::attention_decode(fused, dims, places, cache);
    }
    store_keys_values(&fused, dims, places, cache);
    let BlockDims { batch, heads, head_dim, .. } = dims;
    let (width, capacity, scale) = (dims.fused(), cache.capacity(), dims.scale());
    let (fused, keys, values) = (wide(fused), wide(cache.keys.clone()), wide(cache.values.clone()));
    let mut o = zeros(batch * dims.hidden());
    let head = |task: usize, o: &mut [f32]| {
        let (sequence, head) = (task / heads, task % heads);
        let start = (places.slots[sequence] * heads + head) * head_dim * capacity;
        let end = places.positions[sequence] + 1;
        let q = &fused[sequence * width + head * head_dim..][..head_dim];
        vectorized(|| {
            let mut p = zeros(end);
            add_weighted(&mut p, q, &keys[start..], capacity);
            let highest = max(&p) * scale;
            p.iter_mut().for_each(|score| *score = exp(*score * scale - highest));
            let inverse = 1.0 / sum(p.iter().copied());
            p.iter_mut().for_each(|p| *p *= inverse);
            add_weighted(o, &p, &values[start..], head_dim);
        });
    };
    if batch * heads * places.longest() * head_dim < PARALLEL {
        o.chunks_mut(head_dim).enumerate().for_each(|(task, o)| head(task, o));
    } else {
        o.par_chunks_mut(head_dim).enumerate().for_each(|(task, o)| head(task, o));
    }
    tensor(o, [batch, dims.hidden()], DType::F32)
}
