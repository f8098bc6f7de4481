//! Generation's attention over a cache of keys and values.

use burn_cubecl::CubeRuntime;
use burn_tensor::{DType, Tensor};
use trainer_shaders::attention::decode::{self, Cached, chunks};

use super::attention::shape;
use super::tensor::{CubeTensors, binding, buffer, cube, empty, float, modify};
use crate::cache::{KeyValues, Places};
use crate::ops::BlockDims;

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
    let o = empty(&fused, [dims.batch, dims.hidden()], fused.dtype);
    let chunks = chunks(places.longest());
    let used = if chunks > 1 { dims.batch * dims.heads * chunks } else { 1 };
    let (sums, totals) = (empty(&fused, [used * dims.head_dim], DType::F32), empty(&fused, [used * 2], DType::F32));
    with_cache(dims, places, cache, |cached| {
        let scratch = [&sums, &totals].map(binding);
        decode::attention_decode(&fused.client, shape(dims), buffer(&fused), cached, buffer(&o), chunks, scratch);
    });
    float(o)
}
