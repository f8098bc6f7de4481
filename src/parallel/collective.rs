//! What the ranks of a run do together, over flat buffers.

use std::ops::{Add, Range, Sub};
use std::time::Duration;

use serde::Serialize;
use trainer_backends::transfer::DeviceSpan;

use crate::error::Result;

/// Operations that every rank calls, in the same order, with buffers of the same size. Every rank gets the same bits.
///
/// `parts` divides a buffer among the ranks: one range each, in order, without gaps.
pub trait Collective: Send + Sync {
    /// This process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Sums `values` over the ranks, in place.
    fn all_reduce(&self, values: &mut [f32], parts: &[Range<usize>]);

    /// Sums of a few fp64 numbers over the ranks.
    fn sums(&self, values: &mut [f64]);

    /// The largest of each number over the ranks.
    fn maxima(&self, values: &mut [f64]);

    /// This rank's part of the sum of `values` over the ranks.
    fn reduce_scatter(&self, values: &[f32], parts: &[Range<usize>]) -> Vec<f32>;

    /// The whole buffer, in 32-bit words, of which each rank brings its own part.
    fn all_gather(&self, own: &[u32], parts: &[Range<usize>]) -> Vec<u32>;

    /// What each rank says, by rank; lengths may differ.
    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>>;

    /// What `root` says. The other ranks' `bytes` do not matter.
    fn broadcast(&self, bytes: &[u8], root: usize) -> Vec<u8>;

    /// Waits until every rank is here.
    fn barrier(&self);

    /// What all this has cost so far.
    fn traffic(&self) -> Traffic;

    /// The same sums and exchanges on buffers that stay in the device's memory, where this engine does those.
    fn on_device(&self) -> Option<&dyn OnDevice> {
        None
    }
}

/// Collectives on flat buffers in device memory. What fills the buffers is done before an operation is called, and the
/// operation is done when it returns. Otherwise as `Collective`, with which they share order and counters.
pub trait OnDevice: Send + Sync {
    /// Sums fp32 `values` over the ranks, in place.
    ///
    /// # Errors
    /// What the library or the driver fails with: the ranks cannot go on.
    fn all_reduce(&self, values: &DeviceSpan) -> Result<()>;

    /// This rank's part, `own`, of the sum of fp32 `values` over the ranks; `parts` count elements.
    ///
    /// # Errors
    /// As `all_reduce`.
    fn reduce_scatter(&self, values: &DeviceSpan, own: &DeviceSpan, parts: &[Range<usize>]) -> Result<()>;

    /// `whole`, of which each rank brings its own part; `parts` count 32-bit words.
    ///
    /// # Errors
    /// As `all_reduce`.
    fn all_gather(&self, own: &DeviceSpan, whole: &DeviceSpan, parts: &[Range<usize>]) -> Result<()>;
}

/// Payload bytes that left this rank for others, by operation, and the time in collectives, waiting for others included.
///
/// Counted as the shortest exchange has it, which a ring or pairwise algorithm reaches: a rank that reduces and scatters
/// B bytes sends what is not its own part, (n-1)/n B; one that gathers sends its part to n-1 others, again (n-1)/n B.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Traffic {
    pub reduce_scatter: u64,
    pub all_gather: u64,
    pub all_reduce: u64,
    pub broadcast: u64,
    /// Scalars and texts: losses, norms, agreements.
    pub control: u64,
    /// Collectives so far.
    pub calls: u64,
    /// In collectives, whether the training waited for them or not.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub time: Duration,
}

impl Traffic {
    fn combined(self, other: Self, bytes: fn(u64, u64) -> u64, time: Duration) -> Self {
        Self {
            reduce_scatter: bytes(self.reduce_scatter, other.reduce_scatter),
            all_gather: bytes(self.all_gather, other.all_gather),
            all_reduce: bytes(self.all_reduce, other.all_reduce),
            broadcast: bytes(self.broadcast, other.broadcast),
            control: bytes(self.control, other.control),
            calls: bytes(self.calls, other.calls),
            time,
        }
    }
}

impl Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.combined(other, |a, b| a + b, self.time + other.time)
    }
}

/// What has been added since `other`.
impl Sub for Traffic {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.combined(other, |a, b| a - b, self.time - other.time)
    }
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// The one rank of a run on one device: every operation is over at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce(&self, _: &mut [f32], _: &[Range<usize>]) {}

    fn sums(&self, _: &mut [f64]) {}

    fn maxima(&self, _: &mut [f64]) {}

    fn reduce_scatter(&self, values: &[f32], _: &[Range<usize>]) -> Vec<f32> {
        values.to_vec()
    }

    fn all_gather(&self, own: &[u32], _: &[Range<usize>]) -> Vec<u32> {
        own.to_vec()
    }

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        vec![bytes.to_vec()]
    }

    fn broadcast(&self, bytes: &[u8], _: usize) -> Vec<u8> {
        bytes.to_vec()
    }

    fn barrier(&self) {}

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
}
