//! Collectives through host memory: a transport moves words, the sums are ours.
//!
//! A sum must be the same bits on every rank and from run to run, whatever algorithm the transport would choose: each
//! part is added up by the one rank that owns it, in the order of the ranks, in fp64, and then handed out.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rayon::prelude::*;

use super::collective::{Collective, Traffic};
use super::watchdog::Watchdog;

/// Elements that one task adds up.
const PIECE: usize = 1 << 14;

/// Moves 32-bit words between ranks. Ranges count words; every rank calls with the same ones.
pub trait Transport: Send + Sync {
    fn rank(&self) -> usize;

    fn size(&self) -> usize;

    /// Sends `words[parts[r]]` to each rank r; returns what each rank sent here, one after the other.
    fn all_to_all(&self, words: &[u32], parts: &[Range<usize>]) -> Vec<u32>;

    /// Joins the ranks' own words, whose lengths are those of `parts`.
    fn all_gather(&self, own: &[u32], parts: &[Range<usize>]) -> Vec<u32>;

    /// Overwrites `words` with those of `root`.
    fn broadcast(&self, words: &mut [u32], root: usize);

    fn barrier(&self);
}

/// A transport with sums, counters and a watchdog.
pub struct Hosted<T> {
    transport: T,
    watchdog: Watchdog,
    traffic: Mutex<Traffic>,
}

impl<T: Transport> Hosted<T> {
    pub fn new(transport: T, watchdog: Watchdog) -> Self {
        Self { transport, watchdog, traffic: Mutex::default() }
    }

    /// Runs one operation under the watchdog's eye, and counts it.
    fn timed<R>(&self, name: &'static str, count: impl FnOnce(&mut Traffic), work: impl FnOnce(&T) -> R) -> R {
        let started = Instant::now();
        self.watchdog.enter(name);
        let result = work(&self.transport);
        self.watchdog.leave();
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.calls += 1;
        traffic.time += started.elapsed();
        count(&mut traffic);
        result
    }

    fn others(&self) -> u64 {
        self.transport.size() as u64 - 1
    }

    fn own_part(&self, values: &[f32], parts: &[Range<usize>]) -> Vec<f32> {
        let all = self.transport.all_to_all(bytemuck::cast_slice(values), parts);
        let len = parts[self.transport.rank()].len();
        sum_in_order(bytemuck::cast_slice(&all), len)
    }

    fn all_scalars(&self, values: &mut [f64], combine: impl Fn(f64, f64) -> f64) {
        let words = values.len() * 2;
        let sent = self.others() * words as u64 * 4;
        let parts: Vec<_> = (0..self.transport.size()).map(|rank| rank * words..(rank + 1) * words).collect();
        let all = self.timed(
            "all-reduce of scalars",
            |traffic| traffic.control += sent,
            |transport| transport.all_gather(bytemuck::cast_slice(values), &parts),
        );
        let mut ranks = all.chunks_exact(words).map(bytemuck::pod_collect_to_vec::<u32, f64>);
        values.copy_from_slice(&ranks.next().unwrap_or_default());
        for rank in ranks {
            values.iter_mut().zip(rank).for_each(|(value, other)| *value = combine(*value, other));
        }
    }
}

/// Adds the ranks' vectors of `len` values, which follow one another in `all`.
fn sum_in_order(all: &[f32], len: usize) -> Vec<f32> {
    let mut sum = vec![0.0f32; len];
    sum.par_chunks_mut(PIECE).enumerate().for_each(|(piece, sum)| {
        let mut wide = vec![0.0f64; sum.len()];
        for rank in all.chunks_exact(len.max(1)) {
            let values = &rank[piece * PIECE..][..sum.len()];
            wide.iter_mut().zip(values).for_each(|(wide, value)| *wide += f64::from(*value));
        }
        sum.iter_mut().zip(wide).for_each(|(sum, wide)| *sum = wide as f32);
    });
    sum
}

impl<T: Transport> Collective for Hosted<T> {
    fn rank(&self) -> usize {
        self.transport.rank()
    }

    fn size(&self) -> usize {
        self.transport.size()
    }

    fn all_reduce(&self, values: &mut [f32], parts: &[Range<usize>]) {
        let own = parts[self.rank()].len();
        let sent = 4 * ((values.len() - own) as u64 + self.others() * own as u64);
        let whole = self.timed(
            "all-reduce",
            |traffic| traffic.all_reduce += sent,
            |transport| {
                let own = self.own_part(values, parts);
                transport.all_gather(bytemuck::cast_slice(&own), parts)
            },
        );
        values.copy_from_slice(bytemuck::cast_slice(&whole));
    }

    fn sums(&self, values: &mut [f64]) {
        self.all_scalars(values, |a, b| a + b);
    }

    fn maxima(&self, values: &mut [f64]) {
        self.all_scalars(values, f64::max);
    }

    fn reduce_scatter(&self, values: &[f32], parts: &[Range<usize>]) -> Vec<f32> {
        let sent = 4 * (values.len() - parts[self.rank()].len()) as u64;
        self.timed("reduce-scatter", |traffic| traffic.reduce_scatter += sent, |_| self.own_part(values, parts))
    }

    fn all_gather(&self, own: &[u32], parts: &[Range<usize>]) -> Vec<u32> {
        let sent = self.others() * 4 * own.len() as u64;
        self.timed("all-gather", |traffic| traffic.all_gather += sent, |transport| transport.all_gather(own, parts))
    }

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let size = self.size();
        let sent = self.others() * (4 + bytes.len() as u64);
        self.timed(
            "exchange of texts",
            |traffic| traffic.control += sent,
            |transport| {
                let ones: Vec<_> = (0..size).map(|rank| rank..rank + 1).collect();
                let lengths = transport.all_gather(&[bytes.len() as u32], &ones);
                let mut end = 0;
                let parts: Vec<_> = lengths
                    .iter()
                    .map(|bytes| {
                        let start = end;
                        end += bytes.div_ceil(4) as usize;
                        start..end
                    })
                    .collect();
                let all = transport.all_gather(&to_words(bytes), &parts);
                let text = |(part, length): (&Range<usize>, &u32)| to_bytes(&all[part.clone()], *length);
                parts.iter().zip(&lengths).map(text).collect()
            },
        )
    }

    fn broadcast(&self, bytes: &[u8], root: usize) -> Vec<u8> {
        let sent = if self.rank() == root { self.others() * (4 + bytes.len() as u64) } else { 0 };
        self.timed(
            "broadcast",
            |traffic| traffic.broadcast += sent,
            |transport| {
                let mut length = [bytes.len() as u32];
                transport.broadcast(&mut length, root);
                let mut words = to_words(bytes);
                words.resize(length[0].div_ceil(4) as usize, 0);
                transport.broadcast(&mut words, root);
                to_bytes(&words, length[0])
            },
        )
    }

    fn barrier(&self) {
        self.timed("barrier", |_| {}, T::barrier);
    }

    fn traffic(&self) -> Traffic {
        *self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes as words, the last one filled up with zeros.
fn to_words(bytes: &[u8]) -> Vec<u32> {
    let word = |chunk: &[u8]| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        u32::from_ne_bytes(word)
    };
    bytes.chunks(4).map(word).collect()
}

fn to_bytes(words: &[u32], length: u32) -> Vec<u8> {
    bytemuck::cast_slice(words)[..length as usize].to_vec()
}

#[cfg(test)]
#[path = "hosted_tests.rs"]
pub(crate) mod tests;
