//! Where the time of a few steps goes.

use trainer_backends::DecoderBackend;

use super::Run;
use crate::error::Result;
use crate::profile::{FILE_NAME, Profile, WARM_UP};
use crate::report::progress::TrainProgress;

impl<B: DecoderBackend> Run<'_, B> {
    /// To be called before each step: what comes up to the next call is that step's.
    pub(super) fn profile_next(&mut self, progress: &TrainProgress) -> Result<()> {
        let Some(steps) = &mut self.profiled else { return Ok(()) };
        if let Some(profile) = steps.next::<B>(&self.decoder.device, self.state.step + 1)? {
            self.tell_profile(&profile, progress);
        }
        Ok(())
    }

    /// The last step is over.
    pub(super) fn finish_profile(&mut self, progress: &TrainProgress) -> Result<()> {
        let Some(steps) = &mut self.profiled else { return Ok(()) };
        match steps.finish()? {
            Some(profile) => self.tell_profile(&profile, progress),
            None => progress.say(&format!(
                "warning: no step was profiled: the first {WARM_UP} steps of a session are not, and it ended before others"
            )),
        }
        Ok(())
    }

    fn tell_profile(&mut self, profile: &Profile, progress: &TrainProgress) {
        self.profiled = None;
        let path = self.out.join(FILE_NAME);
        let by_part = profile.by_part();
        progress.say(by_part.to_string().trim_end());
        if let Err(error) = by_part.write(&self.out) {
            progress.say(&format!("warning: {error}; the report does without the table"));
        }
        match profile.write(&path) {
            Ok(()) => progress.say(&format!("the trace is in {}: open it at ui.perfetto.dev", path.display())),
            Err(error) => progress.say(&format!("warning: {error}; training goes on without the trace")),
        }
    }
}
