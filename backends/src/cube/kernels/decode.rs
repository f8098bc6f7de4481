//! Generation: attention over a cache of keys and values, and a block for a handful of tokens.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use burn_tensor::{DType, Tensor};
use trainer_shaders::attention::decode::{self, Cached, Chunked, Turning, chunks};
use trainer_shaders::few_rows::{Branch, FEW_ROWS, add_branches, few_rows};

use super::attention::shape;
use super::norm;
use super::tensor::{CubeTensors, binding, buffer, cube, empty, float, modify};
use crate::cache::{KeyValues, Places};
use crate::ops::{BlockDims, BlockWeights, NewTokens, NormWeights, RotaryTable};

/// Lets `launch` change the cache in place.
///
/// # Panics
/// If a sequence's new tokens do not fit into its slot: they would go to another's.
fn with_cache<R: CubeRuntime, B: CubeTensors<R>>(
    dims: BlockDims,
    places: &Places<B>,
    cache: &mut KeyValues<B>,
    launch: impl FnOnce(Cached<R>),
) {
    let (capacity, rows) = (cache.capacity(), cache.values.dims()[0]);
    let fits = places.longest() + dims.seq <= capacity + 1 && places.slots.iter().all(|s| (s + 1) * dims.heads <= rows);
    assert!(fits, "positions up to {} + {} of a cache of {capacity}", places.longest(), dims.seq);
    let on_device = burn_cubecl::kernel::into_contiguous(places.on_device.clone().into_primitive());
    modify(&mut cache.keys, |keys| {
        modify(&mut cache.values, |values| {
            launch(Cached { keys: buffer(keys), values: buffer(values), places: binding(&on_device), capacity });
        });
    });
}

pub fn store_keys_values<R: CubeRuntime, B: CubeTensors<R>>(
    fused: &Tensor<B, 2>,
    dims: BlockDims,
    places: &Places<B>,
    cache: &mut KeyValues<B>,
) {
    let fused = cube(fused.clone());
    with_cache(dims, places, cache, |cached| {
        decode::store_keys_values(&fused.client, shape(dims), buffer(&fused), cached);
    });
}

pub fn attention_decode<R: CubeRuntime, B: CubeTensors<R>>(
    fused: Tensor<B, 2>,
    dims: BlockDims,
    places: &Places<B>,
    cache: &mut KeyValues<B>,
) -> Tensor<B, 2> {
    let fused = cube(fused);
    let unused = binding(&empty(&fused, [1], DType::F32));
    attention(&fused, Turning { half: 0, cosines: unused.clone(), sines: unused }, dims, places, cache)
}

fn attention<R: CubeRuntime, B: CubeTensors<R>>(
    fused: &CubeTensor<R>,
    turning: Turning<R>,
    dims: BlockDims,
    places: &Places<B>,
    cache: &mut KeyValues<B>,
) -> Tensor<B, 2> {
    let o = empty(fused, [dims.batch, dims.hidden()], fused.dtype);
    let chunks = chunks(places.longest());
    let used = if chunks > 1 { dims.batch * dims.heads * chunks } else { 1 };
    let (sums, totals) = (empty(fused, [used * dims.head_dim], DType::F32), empty(fused, [used * 2], DType::F32));
    with_cache(dims, places, cache, |cached| {
        let chunked = Chunked { count: chunks, sums: binding(&sums), totals: binding(&totals) };
        decode::attention_decode(&fused.client, shape(dims), buffer(fused), cached, turning, buffer(&o), chunked);
    });
    float(o)
}

/// Whether `block` is for so many tokens, and for their dtype.
pub fn takes_block<R: CubeRuntime, B: CubeTensors<R>>(normed: &Tensor<B, 2>, weights: &BlockWeights<B>) -> bool {
    let dtype = normed.dtype();
    let of = |(weight, bias): &(Tensor<B, 2>, Tensor<B, 1>)| weight.dtype() == dtype && bias.dtype() == dtype;
    normed.dims()[0] <= FEW_ROWS && [&weights.fused, &weights.dense, &weights.fc2].into_iter().all(of)
}

/// Four kernels, five where a sequence has several chunks of positions: q, k, v and the activated MLP; attention, which turns q
/// and k; both branches and the residual sum; the norm.
pub fn block<R: CubeRuntime, B: CubeTensors<R>>(
    tokens: NewTokens<B>,
    weights: BlockWeights<B>,
    next: NormWeights<B>,
    table: &RotaryTable<B>,
    dims: BlockDims,
    places: &Places<B>,
    cache: &mut KeyValues<B>,
) -> NewTokens<B> {
    let [rows, hidden, inner, row] = [dims.batch, dims.hidden(), dims.mlp, dims.fused()];
    let NewTokens { x, normed } = tokens;
    let (dtype, x, normed) = (normed.dtype(), cube(x), cube(normed));
    let client = x.client.clone();
    let pair = |(weight, bias): (Tensor<B, 2>, Tensor<B, 1>)| [buffer(&cube(weight)), buffer(&cube(bias))];
    let ([weight, bias], dense, fc2) = (pair(weights.fused), pair(weights.dense), pair(weights.fc2));
    let fused = empty(&x, [rows, row], dtype);
    few_rows(&client, [rows, row, hidden], buffer(&normed), weight, bias, buffer(&fused), Some(3 * hidden));

    let [cosines, sines] = [&table.cos, &table.sin].map(|table| binding(&cube(table.clone())));
    let turning = Turning { half: dims.rotary_dim / 2, cosines, sines };
    let o = cube(attention::<R, B>(&fused, turning, dims, places, cache));

    let out = empty(&x, [rows, hidden], DType::F32);
    let branch = |input: &CubeTensor<R>, [weight, bias]: [_; 2]| Branch { input: buffer(input), weight, bias };
    let branches = (branch(&o, dense), branch(&fused, fc2));
    add_branches(&client, [rows, hidden, inner, row], binding(&x), branches.0, branches.1, binding(&out));
    let x = float(out);
    let normed = norm::forward::<R, B>(Tensor::clone(&x), next.gamma, next.beta, next.eps, dtype);
    NewTokens { x, normed: normed.y }
}
