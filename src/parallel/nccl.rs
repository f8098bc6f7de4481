//! Collectives through NCCL: buffers stay in the GPU's memory. What the host has to say goes through another engine, over
//! which the ranks have found each other.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use trainer_backends::nccl::{self, Communicator, UniqueId};
use trainer_backends::transfer::DeviceSpan;

use super::collective::{Collective, OnDevice, Traffic};
use super::session::{every, lead};
use super::watchdog::Watchdog;
use crate::error::{Error, Result};

/// A GPU's communicator, and the engine for the host.
pub struct Nccl {
    control: Arc<dyn Collective>,
    communicator: Communicator,
    watchdog: Watchdog,
    traffic: Mutex<Traffic>,
}

impl Nccl {
    /// Joins the ranks of `control` through NCCL, this one with a CUDA device. Returns NCCL's version too.
    ///
    /// # Errors
    /// The same on every rank: no NCCL on one of them, or GPUs that it cannot connect.
    pub fn join(control: Arc<dyn Collective>, device: usize, watchdog: Watchdog) -> Result<(Self, String)> {
        let version = nccl::version().map_err(|why| {
            Error::input(format!(
                "{why}; or take numbers through the host's memory, which is slower: --collectives host"
            ))
        });
        let version = every(&*control, version)?;
        let id = lead(&*control, || nccl::unique_id().map(|id| id.0.to_vec()).map_err(Error::failed))?;
        let id = <[u8; 128]>::try_from(id).map_err(|_| Error::failed("NCCL's id has not arrived whole"))?;
        watchdog.enter("NCCL's start");
        let joined = Communicator::join(UniqueId(id), control.rank(), control.size(), device);
        watchdog.leave();
        let communicator = every(&*control, joined.map_err(Error::failed))?;
        Ok((Self { control, communicator, watchdog, traffic: Mutex::default() }, version))
    }

    /// Runs one operation under the watchdog's eye, and counts it.
    fn timed(
        &self,
        name: &'static str,
        count: impl FnOnce(&mut Traffic),
        work: impl FnOnce(&Communicator) -> std::result::Result<(), String>,
    ) -> Result<()> {
        let started = Instant::now();
        self.watchdog.enter(name);
        let result = work(&self.communicator);
        self.watchdog.leave();
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.calls += 1;
        traffic.time += started.elapsed();
        count(&mut traffic);
        result.map_err(Error::failed)
    }

    /// The bytes of a part that go to each of the other ranks.
    fn to_others(&self, bytes: usize) -> u64 {
        (self.size() as u64 - 1) * bytes as u64
    }
}

impl OnDevice for Nccl {
    fn all_reduce(&self, values: &DeviceSpan) -> Result<()> {
        // What a ring sends: every rank its part of the sum, which it then hands out.
        let sent = 2 * self.to_others(values.bytes) / self.size() as u64;
        self.timed("all-reduce", |traffic| traffic.all_reduce += sent, |nccl| nccl.all_reduce(values))
    }

    fn reduce_scatter(&self, values: &DeviceSpan, own: &DeviceSpan, parts: &[Range<usize>]) -> Result<()> {
        let sent = (values.bytes - own.bytes) as u64;
        self.timed(
            "reduce-scatter",
            |traffic| traffic.reduce_scatter += sent,
            |nccl| nccl.reduce_scatter(values, own, parts),
        )
    }

    fn all_gather(&self, own: &DeviceSpan, whole: &DeviceSpan, parts: &[Range<usize>]) -> Result<()> {
        let sent = self.to_others(own.bytes);
        self.timed("all-gather", |traffic| traffic.all_gather += sent, |nccl| nccl.all_gather(own, whole, parts))
    }
}

impl Collective for Nccl {
    fn rank(&self) -> usize {
        self.control.rank()
    }

    fn size(&self) -> usize {
        self.control.size()
    }

    fn all_reduce(&self, values: &mut [f32], parts: &[Range<usize>]) {
        self.control.all_reduce(values, parts);
    }

    fn sums(&self, values: &mut [f64]) {
        self.control.sums(values);
    }

    fn maxima(&self, values: &mut [f64]) {
        self.control.maxima(values);
    }

    fn reduce_scatter(&self, values: &[f32], parts: &[Range<usize>]) -> Vec<f32> {
        self.control.reduce_scatter(values, parts)
    }

    fn all_gather(&self, own: &[u32], parts: &[Range<usize>]) -> Vec<u32> {
        self.control.all_gather(own, parts)
    }

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.control.gather(bytes)
    }

    fn broadcast(&self, bytes: &[u8], root: usize) -> Vec<u8> {
        self.control.broadcast(bytes, root)
    }

    fn barrier(&self) {
        self.control.barrier();
    }

    fn traffic(&self) -> Traffic {
        let own = *self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let control = self.control.traffic();
        own + control
    }

    fn on_device(&self) -> Option<&dyn OnDevice> {
        Some(self)
    }
}
