//! Several devices: this process is one of the ranks that a launcher started, or starts them itself.

use std::sync::Arc;
use std::time::Duration;

use trainer_backends::discovery::{Backend, Choice};

use super::args::{Collectives, Global, TrainArgs};
use super::choose_device;
use crate::error::{Error, Result};
use crate::parallel::launch::{self, Launch};
use crate::parallel::{Alone, Collective, session, spawn};
use crate::report::voice;

/// What this process is.
pub enum Joined {
    /// One of the ranks that train together, or the only one.
    Rank(Arc<dyn Collective>),
    /// The one that has started them, which have ended.
    Parent(u8),
}

/// Joins the ranks that train together. Where `--devices` asks for several and nobody has started them, this process does,
/// and waits for them.
///
/// # Errors
/// Ranks that this build or this machine cannot start; a number of them that is not the one asked for.
pub fn join(args: &TrainArgs, global: &Global) -> Result<Joined> {
    let timeout = Duration::from_secs_f64(args.timeout);
    let Some(launch) = launch::detect()? else {
        return match global.devices {
            None | Some(1) => Ok(Joined::Rank(Arc::new(Alone))),
            Some(devices) => {
                check_devices(devices, args, global)?;
                let arguments: Vec<_> = std::env::args_os().skip(1).collect();
                spawn::ranks(devices, &arguments, timeout).map(Joined::Parent)
            }
        };
    };
    voice::of_rank(launch.rank, args.log_dir.as_deref())?;
    if let Some(devices) = global.devices
        && devices != launch.size
    {
        return Err(Error::input(format!(
            "--devices is {devices}, but {} started {} ranks: leave --devices out, or start as many",
            launch.launcher, launch.size
        )));
    }
    session::start(&launch, timeout).map(Joined::Rank)
}

/// # Errors
/// Fewer GPUs than ranks, each of which needs one for NCCL.
fn check_devices(devices: usize, args: &TrainArgs, global: &Global) -> Result<()> {
    if choose_device(global)?.backend != Backend::Cuda || args.collectives == Collectives::Host {
        return Ok(());
    }
    if let Some(device) = global.device {
        return Err(Error::input(format!(
            "--device {device} is one GPU for all {devices} ranks, and NCCL wants one for each: leave --device out"
        )));
    }
    let last = Global { device: Some(devices - 1), ..global.clone() };
    choose_device(&last).map(drop).map_err(|error| Error::input(format!("--devices {devices}: {error}")))
}

/// The options with the device of this rank, where several ranks of one machine have several to choose from: `--device`
/// given for all of them is taken as it is.
pub fn spread(global: &Global) -> Result<Global> {
    let mut own = global.clone();
    let Some(Launch { local_rank, .. }) = launch::detect()?.filter(|_| global.device.is_none()) else { return Ok(own) };
    let choice = choose_device(global)?;
    if choice.backend != Backend::Cpu && !choice.device.software {
        // Where there is no such device, the ranks share: the first one is then the best.
        own.device = Some(choice.device.index + local_rank);
        if choose_device(&own).is_err() {
            own.device = None;
        }
    }
    Ok(own)
}

/// The same ranks with the engine that their devices exchange through.
///
/// # Errors
/// The same on every rank: an engine that one of them does not have.
pub fn on_device(group: Arc<dyn Collective>, choice: &Choice, args: &TrainArgs) -> Result<Arc<dyn Collective>> {
    let nccl = match args.collectives {
        Collectives::Auto => choice.backend == Backend::Cuda && group.size() > 1,
        Collectives::Nccl => true,
        Collectives::Host => false,
    };
    if !nccl {
        return Ok(group);
    }
    #[cfg(all(feature = "cuda", not(target_os = "macos")))]
    if choice.backend == Backend::Cuda {
        use crate::parallel::nccl::Nccl;

        let (nccl, version) = Nccl::join(group, choice.device.index, session::watchdog())?;
        voice::say(&format!("collectives NCCL {version}"));
        return Ok(Arc::new(nccl));
    }
    // All have the same backend: they have compared notes.
    Err(session::shared(Error::input(format!(
        "--collectives nccl is for --backend cuda, and this is {}: leave it out",
        choice.backend
    ))))
}
