use burn_backend::Backend;
use burn_tensor::Tensor;

use super::attention::head_view;
use super::wide;
use crate::cache::{KeyValues, Places};
use crate::ops::BlockDims;

/// Writes the rotated keys and the values of each sequence's T tokens behind its earlier ones.
pub fn store_keys_values<B: Backend>(
    fused: &Tensor<B, 2>,
    dims: BlockDims,
    places: &Places<B>,
    cache: &mut KeyValues<B>,
) {
    let BlockDims { seq, heads, head_dim, .. } = dims;
    let dtype = fused.dtype();
    let [k, v] = [1, 2].map(|part| head_view(fused, part, dims).cast(dtype));
    for (sequence, (slot, position)) in places.slots.iter().zip(&places.positions).enumerate() {
        let rows = slot * heads..(slot + 1) * heads;
        let of_sequence = |x: &Tensor<B, 4>| x.clone().slice([sequence..sequence + 1]).reshape([heads, seq, head_dim]);
        let (keys, values) = (of_sequence(&k).swap_dims(1, 2), of_sequence(&v));
        let columns = *position..position + seq;
        cache.keys.inplace(|all| all.slice_assign([rows.clone(), 0..head_dim, columns.clone()], keys));
        cache.values.inplace(|all| all.slice_assign([rows, columns, 0..head_dim], values));
    }
}

/// softmax(q K^T / sqrt(D)) V of each sequence's one new token over its positions so far, itself included.
pub fn attention_decode<B: Backend>(
    fused: Tensor<B, 2>,
    dims: BlockDims,
    places: &Places<B>,
    cache: &mut KeyValues<B>,
) -> Tensor<B, 2> {
    let BlockDims { batch, heads, head_dim, .. } = dims;
    store_keys_values(&fused, dims, places, cache);
    let q = head_view(&fused, 0, dims).reshape([batch * heads, 1, head_dim]);
    let rows = places.slots.iter().zip(&places.positions).enumerate().map(|(sequence, (slot, position))| {
        let (rows, end) = (slot * heads..(slot + 1) * heads, position + 1);
        let q = q.clone().slice([sequence * heads..(sequence + 1) * heads]);
        let keys = wide(cache.keys.clone().slice([rows.clone(), 0..head_dim, 0..end]));
        let values = wide(cache.values.clone().slice([rows, 0..end, 0..head_dim]));
        let scores = q.matmul(keys) * dims.scale();
        let p = (scores.clone() - scores.max_dim(2)).exp();
        let total = p.clone().sum_dim(2);
        (p.matmul(values) / total).reshape([1, heads * head_dim])
    });
    Tensor::cat(rows.collect(), 0).cast(fused.dtype())
}
