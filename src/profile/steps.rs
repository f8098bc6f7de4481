//! Which steps of a run are profiled.

use trainer_backends::DecoderBackend;

use super::recorder::Recording;
use super::trace::Profile;
use crate::error::Result;

/// Steps of a session before the profiled ones: the first compile kernels, fill caches and allocate.
pub const WARM_UP: u64 = 3;

/// Some steps, once a few others were made.
pub struct ProfiledSteps {
    warm_up: u64,
    left: u64,
    device: String,
    recording: Option<Recording>,
}

impl ProfiledSteps {
    /// `steps` of them, behind `warm_up` others. `device` is for people.
    pub fn new(warm_up: u64, steps: u64, device: &str) -> Self {
        Self { warm_up, left: steps, device: device.to_owned(), recording: None }
    }

    /// To be called before each step; everything up to the next call is that step's. Returns the profile before the
    /// first step that is no longer profiled.
    ///
    /// # Errors
    /// The device has failed meanwhile.
    pub fn next<B: DecoderBackend>(&mut self, device: &B::Device, step: u64) -> Result<Option<Profile>> {
        if self.warm_up > 0 {
            self.warm_up -= 1;
            return Ok(None);
        }
        if self.left == 0 {
            return self.finish();
        }
        self.left -= 1;
        self.recording.get_or_insert_with(|| Recording::start::<B>(device)).begin_step(step);
        Ok(None)
    }

    /// The last step is over. The profile, unless it was returned before or no step was profiled.
    ///
    /// # Errors
    /// The device has failed meanwhile.
    pub fn finish(&mut self) -> Result<Option<Profile>> {
        self.left = 0;
        let events = self.recording.take().map(Recording::finish).transpose()?;
        Ok(events.map(|events| Profile { events, device: self.device.clone() }))
    }
}
