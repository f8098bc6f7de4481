//! Attention of one new token a sequence over a cache of keys and values.
//!
//! The floor is the bytes of the cache. A cube owns `CHUNK` positions of a head of a sequence, so that one long sequence
//! fills a GPU too ("Flash-Decoding", Dao et al., 2023); the chunks' sums are put together by a second, small kernel.
//! A unit scores neighbouring positions, whose keys are neighbours in the cache, over a part of the dimensions; then groups of
//! units, a unit a few dimensions, add up the values. What a unit reads is on its way `ahead` at a time: one after the other, 64 readings would
//! take longer than everything else of a token's block. So nothing is written in between, and the new token's k and v, which
//! are not in the cache yet, take their places from shared memory.

use cubecl::prelude::*;

use super::{MASKED, Shape};
use crate::device::{Buffer, Class, cubes, plane_lanes};
use crate::elementwise::{array, max_units, spread, sum_units, unit_index, within};
use crate::tuning::Choice;

/// Positions of a cube.
pub const CHUNK: usize = 256;

/// What is decided when the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blueprint {
    pub units: usize,
    /// Positions whose keys a unit reads at a time.
    pub keys: usize,
    /// Parts of the dimensions, each another unit's.
    pub parts: usize,
    /// Dimensions that a unit reads of a value at a time.
    pub values: usize,
    pub head_dim: usize,
    /// Readings of keys, and of values, that a unit waits for together.
    pub ahead: [usize; 2],
    /// One cube has all positions, and writes the result.
    pub whole: bool,
    /// Half the dimensions of the new q and k that turn (rotary.rs): pairs (i, i + half).
    pub half: usize,
    /// `device::plane_lanes`.
    pub plane: usize,
}

impl Blueprint {
    pub fn of<R: Runtime>(
        client: &ComputeClient<R>,
        shape: &Shape,
        dtype: StorageType,
        chunks: usize,
        half: usize,
    ) -> Self {
        // A processor has its own ways to read ahead, and compiles long loops for long.
        let (units, keys, ahead, widest) = match Class::of(client) {
            Class::Narrow => (32, 4, [1, 1], 4),
            Class::Wide if dtype.size() == 2 => (128, 8, [16, 8], 8),
            Class::Wide => (128, 4, [16, 8], 4),
        };
        let [units, keys] = Choice::AttentionDecode.two().unwrap_or([units, keys]);
        let Shape { head_dim, width, .. } = *shape;
        let dividing = |number: usize, most: usize| {
            let fits = |n: &usize| *n <= most && number.is_multiple_of(*n);
            [16, 8, 4, 2].into_iter().find(fits).unwrap_or(1)
        };
        let parts = dividing(head_dim, units * keys / CHUNK);
        let ahead = [dividing(head_dim / parts, ahead[0]), ahead[1]];
        let values = [widest, 4, 2].into_iter().find(|n| head_dim.is_multiple_of(*n) && width.is_multiple_of(*n));
        let (values, plane) = (values.unwrap_or(1), plane_lanes(client));
        Self { units, keys, parts, values, head_dim, ahead, whole: chunks == 1, half, plane }
    }

    /// Units that share a value.
    fn lanes(&self) -> usize {
        self.head_dim / self.values
    }

    /// Values that are read side by side.
    fn groups(&self) -> usize {
        (self.units / self.lanes()).max(1)
    }

    /// Parts of a value that a unit reads one after the other.
    fn rounds(&self) -> usize {
        self.lanes().div_ceil(self.units)
    }
}

/// `places` is `[2, batch]`: slots, then positions. `capacity` in positions. What is written besides the cache: o
/// `[batch, C]`, or of each chunk its sums `[batch * H, chunks, D]` and its highest score and total `[batch * H, chunks, 2]`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn decode_kernel<T: Float, NK: Size, NV: Size>(
    fused: &Array<Vector<T, NV>>,
    keys: &mut Array<Vector<T, NK>>,
    values: &mut Array<Vector<T, NV>>,
    places: &Array<i32>,
    cosines: &Array<f32>,
    sines: &Array<f32>,
    o: &mut Array<T>,
    sums: &mut Array<f32>,
    totals: &mut Array<f32>,
    batch: usize,
    heads: usize,
    width: usize,
    capacity: usize,
    chunks: usize,
    scale: f32,
    #[comptime] blueprint: Blueprint,
    #[define(T)] _dtype: StorageType,
) {
    let units = comptime!(blueprint.units);
    let dims = comptime!(blueprint.head_dim);
    let wide = comptime!(blueprint.keys);
    let part = comptime!(blueprint.values);
    let (lanes, groups) = comptime!((blueprint.lanes(), blueprint.groups()));
    let ahead = comptime!(blueprint.ahead);
    if CUBE_POS >= batch * heads * chunks {
        terminate!();
    }
    let (row, chunk) = (CUBE_POS / chunks, CUBE_POS % chunks);
    let (sequence, head) = (row / heads, row % heads);
    let unit = UNIT_POS as usize;
    let slot = places[sequence] as usize;
    let position = places[batch + sequence] as usize;
    let first = chunk * CHUNK;
    let cached = slot * heads + head;
    let hidden = heads * lanes;
    let own = sequence * (width / part) + head * lanes;

    // The new token's q and k.
    let mut q = SharedMemory::<f32>::new(dims);
    let mut k = SharedMemory::<f32>::new(dims);
    #[unroll]
    for round in 0..comptime!(blueprint.rounds()) {
        let lane = unit + round * units;
        if lane < lanes {
            let (of_q, of_k) = (fused[own + lane], fused[own + hidden + lane]);
            #[unroll]
            for e in 0..part {
                q[lane * part + e] = f32::cast_from(of_q[e]) * scale;
                k[lane * part + e] = f32::cast_from(of_k[e]);
            }
        }
    }
    let half = comptime!(blueprint.half);
    if comptime!(half > 0) {
        sync_cube();
        #[unroll]
        for round in 0..comptime!(half.div_ceil(units)) {
            let i = unit + round * units;
            if i < half {
                let (cos, sin) = (cosines[sequence * half + i], sines[sequence * half + i]);
                let (a, b) = (q[i], q[i + half]);
                q[i] = a * cos - b * sin;
                q[i + half] = b * cos + a * sin;
                let (a, b) = (k[i], k[i + half]);
                k[i] = a * cos - b * sin;
                k[i + half] = b * cos + a * sin;
            }
        }
    }
    sync_cube();

    let (parts, spans) = comptime!((blueprint.parts, CHUNK / blueprint.keys));
    let mut scores = SharedMemory::<f32>::new(comptime!(parts * CHUNK));
    #[unroll]
    for turn in 0..comptime!((parts * spans).div_ceil(units)) {
        let index = turn * units + unit;
        if index < comptime!(parts * spans) {
            let (at, first_d) = (index % spans * wide, index / spans * comptime!(dims / parts));
            let from = first + at;
            let mut score = Vector::<f32, NK>::new(0.0f32);
            if from <= position {
                for step in 0..comptime!(dims / parts / ahead[0]) {
                    // As they are in memory: to convert one waits for it.
                    let mut fetched = Array::<Vector<T, NK>>::new(ahead[0]);
                    #[unroll]
                    for i in 0..ahead[0] {
                        let d = first_d + step * ahead[0] + i;
                        let place = (cached * dims + d) * (capacity / wide) + from / wide;
                        fetched[i] = keys[place];
                    }
                    #[unroll]
                    for i in 0..ahead[0] {
                        let d = first_d + step * ahead[0] + i;
                        let mut key = Vector::<f32, NK>::cast_from(fetched[i]);
                        #[unroll]
                        for e in 0..wide {
                            key[e] = select(from + e == position, k[d], key[e]);
                        }
                        score = fma(Vector::new(q[d]), key, score);
                    }
                }
            }
            #[unroll]
            for e in 0..wide {
                scores[index / spans * CHUNK + at + e] = score[e];
            }
        }
    }
    sync_cube();
    let mut p = SharedMemory::<f32>::new(CHUNK);
    let mut high = MASKED.runtime();
    #[unroll]
    for turn in 0..comptime!(CHUNK.div_ceil(units)) {
        let at = turn * units + unit;
        if at < CHUNK {
            let mut score = scores[at];
            #[unroll]
            for part in 1..parts {
                score += scores[part * CHUNK + at];
            }
            let value = select(first + at <= position, score, MASKED);
            p[at] = value;
            high = max(high, value);
        }
    }
    let highest = max_units(high, units, comptime!(blueprint.plane));
    let mut total = 0.0f32;
    #[unroll]
    for turn in 0..comptime!(CHUNK.div_ceil(units)) {
        let at = turn * units + unit;
        if at < CHUNK {
            let value = select(first + at <= position, f32::exp(p[at] - highest), 0.0f32);
            p[at] = value;
            total += value;
        }
    }
    // Its barriers come after all of p is written.
    let total = sum_units(total, units, comptime!(blueprint.plane));

    let mut partial = SharedMemory::<f32>::new(comptime!(groups * dims));
    let seen = select(position + 1 < first + CHUNK, position + 1, first + CHUNK);
    #[unroll]
    for round in 0..comptime!(blueprint.rounds()) {
        let lane = if comptime!(blueprint.rounds() == 1) { unit % lanes } else { unit + round * units };
        let group = if comptime!(blueprint.rounds() == 1) { unit / lanes } else { 0usize.runtime() };
        if lane < lanes && group < groups {
            let mut sum = Vector::<f32, NV>::new(0.0f32);
            let new = Vector::<f32, NV>::cast_from(fused[own + 2 * hidden + lane]);
            let mut key = first + group;
            while key < seen {
                let mut fetched = Array::<Vector<T, NV>>::new(ahead[1]);
                #[unroll]
                for i in 0..ahead[1] {
                    let place = (cached * capacity + within(key + i * groups, seen)) * lanes + lane;
                    fetched[i] = values[place];
                }
                #[unroll]
                for i in 0..ahead[1] {
                    let at = key + i * groups;
                    let mut value = Vector::<f32, NV>::cast_from(fetched[i]);
                    if at == position {
                        value = new;
                    }
                    if at < seen {
                        sum = fma(Vector::new(p[at - first]), value, sum);
                    }
                }
                key += ahead[1] * groups;
            }
            #[unroll]
            for e in 0..part {
                partial[group * dims + lane * part + e] = sum[e];
            }
        }
    }
    sync_cube();
    // Everything is read: the new token goes into the cache.
    let is_here = first <= position && position < first + CHUNK;
    #[unroll]
    for round in 0..comptime!(blueprint.rounds()) {
        let lane = unit + round * units;
        if is_here && lane < lanes {
            values[(cached * capacity + position) * lanes + lane] = fused[own + 2 * hidden + lane];
        }
    }
    #[unroll]
    for round in 0..comptime!(blueprint.head_dim.div_ceil(blueprint.units)) {
        let d = unit + round * units;
        if d < dims {
            if is_here {
                let place = (cached * dims + d) * (capacity / wide) + position / wide;
                let mut key = Vector::<f32, NK>::cast_from(keys[place]);
                #[unroll]
                for e in 0..wide {
                    key[e] = select(position % wide == e, k[d], key[e]);
                }
                keys[place] = Vector::cast_from(key);
            }
            let mut sum = 0.0f32;
            #[unroll]
            for group in 0..groups {
                sum += partial[group * dims + d];
            }
            if comptime!(blueprint.whole) {
                o[row * dims + d] = T::cast_from(sum / total);
            } else {
                sums[CUBE_POS * dims + d] = sum;
                if d == 0 {
                    totals[CUBE_POS * 2] = highest;
                    totals[CUBE_POS * 2 + 1] = total;
                }
            }
        }
    }
}

/// The chunks of a row put together: each one's sums are relative to its own highest score.
#[cube(launch_unchecked)]
fn combine_kernel<T: Float>(
    sums: &Array<f32>,
    totals: &Array<f32>,
    o: &mut Array<T>,
    len: usize,
    dims: usize,
    chunks: usize,
    #[define(T)] _dtype: StorageType,
) {
    let at = unit_index();
    if at < len {
        let (row, d) = (at / dims, at % dims);
        let mut highest = MASKED.runtime();
        for chunk in 0..chunks {
            highest = max(highest, totals[(row * chunks + chunk) * 2]);
        }
        let mut sum = 0.0f32;
        let mut total = 0.0f32;
        for chunk in 0..chunks {
            let of_chunk = row * chunks + chunk;
            let weight = f32::exp(totals[of_chunk * 2] - highest);
            sum = fma(sums[of_chunk * dims + d], weight, sum);
            total = fma(totals[of_chunk * 2 + 1], weight, total);
        }
        o[at] = T::cast_from(sum / total);
    }
}

/// The cache's buffers, and where in it the sequences are.
pub struct Cached<R: Runtime> {
    /// `[S * H, D, capacity]`
    pub keys: Buffer<R>,
    /// `[S * H, capacity, D]`
    pub values: Buffer<R>,
    /// `[2, batch]` of 32-bit integers: slots, then positions of the first new token.
    pub places: TensorBinding<R>,
    /// A multiple of 8.
    pub capacity: usize,
}

/// Chunks of positions that `longest` positions are.
pub fn chunks(longest: usize) -> usize {
    longest.div_ceil(CHUNK).max(1)
}

/// The positions of the longest sequence in `count` chunks, and scratch for them, fp32, which is left alone where it is one.
pub struct Chunked<R: Runtime> {
    pub count: usize,
    /// batch * H * count * D
    pub sums: TensorBinding<R>,
    /// batch * H * count * 2
    pub totals: TensorBinding<R>,
}

/// What the new q and k turn by, before they are used and kept.
pub struct Turning<R: Runtime> {
    /// Columns: pairs of dimensions, 0 for none.
    pub half: usize,
    /// fp32, a row a sequence; anything in fp32 where none turn.
    pub cosines: TensorBinding<R>,
    pub sines: TensorBinding<R>,
}

/// Writes the k and v of one new token a sequence, in `fused` `[batch, W]`, into the cache, and the attention of its q over
/// the positions so far, itself included, to `o` `[batch, C]`.
pub fn attention_decode<R: Runtime>(
    client: &ComputeClient<R>,
    shape: Shape,
    fused: Buffer<R>,
    cached: Cached<R>,
    turning: Turning<R>,
    o: Buffer<R>,
    chunked: Chunked<R>,
) {
    let Chunked { count: chunks, sums, totals } = chunked;
    let blueprint = Blueprint::of(client, &shape, fused.dtype, chunks, turning.half);
    let (rows, dtype) = (shape.batch * shape.heads, fused.dtype);
    // SAFETY: a cube whose row or chunk is past the last returns; positions past a sequence's are not read, and its slot
    // and position are within the cache, as the caller promises.
    unsafe {
        decode_kernel::launch_unchecked(
            client,
            cubes(client, rows * chunks),
            CubeDim::new_1d(blueprint.units as u32),
            blueprint.keys,
            blueprint.values,
            fused.arg(),
            cached.keys.arg(),
            cached.values.arg(),
            array(cached.places),
            array(turning.cosines),
            array(turning.sines),
            Buffer { binding: o.binding.clone(), dtype }.arg(),
            array(sums.clone()),
            array(totals.clone()),
            shape.batch,
            shape.heads,
            shape.width,
            cached.capacity,
            chunks,
            shape.scale,
            blueprint,
            dtype,
        );
    }
    if chunks > 1 {
        let len = rows * shape.head_dim;
        let (count, dim) = spread(client, len, None);
        // SAFETY: each unit compares its index with the length.
        unsafe {
            combine_kernel::launch_unchecked(
                client,
                count,
                dim,
                array(sums),
                array(totals),
                o.arg(),
                len,
                shape.head_dim,
                chunks,
                dtype,
            );
        }
    }
}

/// Keys turned round, values as they are.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn store_kernel<T: Float>(
    fused: &Array<T>,
    keys: &mut Array<T>,
    values: &mut Array<T>,
    places: &Array<i32>,
    batch: usize,
    seq: usize,
    heads: usize,
    dims: usize,
    width: usize,
    capacity: usize,
    #[define(T)] _dtype: StorageType,
) {
    let at = unit_index();
    let hidden = heads * dims;
    let of_sequence = seq * hidden;
    if at < batch * of_sequence {
        let (sequence, rest) = (at / of_sequence, at % of_sequence);
        let cached = places[sequence] as usize * heads;
        let position = places[batch + sequence] as usize;
        let from = sequence * seq * width;
        // Neighbouring units write neighbouring elements of both: positions of the keys, dimensions of the values.
        let (column, token) = (rest / seq, rest % seq);
        keys[(cached * dims + column) * capacity + position + token] = fused[from + token * width + hidden + column];
        let (token, column) = (rest / hidden, rest % hidden);
        let (head, d) = (column / dims, column % dims);
        let place = ((cached + head) * capacity + position + token) * dims + d;
        values[place] = fused[from + token * width + 2 * hidden + column];
    }
}

/// Writes the k and v of each sequence's `shape.seq` tokens in `fused` `[N, W]` into the cache.
pub fn store_keys_values<R: Runtime>(client: &ComputeClient<R>, shape: Shape, fused: Buffer<R>, cached: Cached<R>) {
    let Shape { batch, seq, heads, head_dim, width, .. } = shape;
    let (count, dim) = spread(client, batch * seq * heads * head_dim, None);
    let dtype = fused.dtype;
    // SAFETY: each unit compares its index with the number of elements; slots and positions are within the cache, as the
    // caller promises.
    unsafe {
        store_kernel::launch_unchecked(
            client,
            count,
            dim,
            fused.arg(),
            cached.keys.arg(),
            cached.values.arg(),
            array(cached.places),
            batch,
            seq,
            heads,
            head_dim,
            width,
            cached.capacity,
            dtype,
        );
    }
}
