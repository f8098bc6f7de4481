//! Several devices: this process is one of the ranks that a launcher started, or starts them itself.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use trainer_backends::discovery::Backend;

use super::args::{Global, TrainArgs};
use super::choose_device;
use crate::error::{Error, Result};
use crate::parallel::launch::{self, Launch};
use crate::parallel::{Alone, Collective, session};
use crate::report::voice;

/// Set where this program has started mpirun itself.
const RELAUNCHED: &str = "TRAINER_RELAUNCHED";

/// The ranks that train together. Where `--devices` asks for several and nobody has started them, this process becomes
/// their mpirun and does not return.
///
/// # Errors
/// Ranks that this build or this machine cannot start; a number of them that is not the one asked for.
pub fn join(args: &TrainArgs, global: &Global) -> Result<Arc<dyn Collective>> {
    let Some(launch) = launch::detect()? else {
        return match global.devices {
            None | Some(1) => Ok(Arc::new(Alone)),
            Some(devices) => Err(relaunch(devices, global)),
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
    session::start(&launch, Duration::from_secs_f64(args.timeout))
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

/// Becomes `mpirun -np N` of this program with the same arguments.
fn relaunch(devices: usize, global: &Global) -> Error {
    let choice = match choose_device(global) {
        Ok(choice) => choice,
        Err(error) => return error,
    };
    if choice.backend == Backend::Cuda {
        return Error::input(format!(
            "--devices {devices} on CUDA needs NCCL, which this version does not have yet: train on one GPU, or let ranks \
             exchange through host memory with mpirun -np {devices} (built with --features mpi; slower)"
        ));
    }
    if !cfg!(feature = "mpi") {
        return Error::input(format!(
            "--devices {devices} needs MPI, which this program was built without: build it with cargo build --release \
             --features mpi (needs libopenmpi-dev and libclang-dev)"
        ));
    }
    let Some(mpirun) = in_path("mpirun") else {
        return Error::input(format!(
            "--devices {devices} starts ranks with mpirun, which is not on this machine's PATH: install OpenMPI \
             (apt-get install openmpi-bin)"
        ));
    };
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return Error::failed(format!("cannot find this program's own file: {error}")),
    };
    if std::env::var_os(RELAUNCHED).is_some() {
        return Error::failed("mpirun started this program without telling it its rank: is it OpenMPI's mpirun?");
    }
    let mut command = Command::new(&mpirun);
    command.args(["-np", &devices.to_string(), "--oversubscribe", "--bind-to", "none"]).arg(program);
    command.args(std::env::args_os().skip(1));
    let threads = std::thread::available_parallelism().map_or(1, usize::from) / devices;
    for (name, value) in [
        (RELAUNCHED, "1".to_owned()),
        // Cores are divided among the ranks.
        ("RAYON_NUM_THREADS", threads.max(1).to_string()),
        // The user has started us as root already; mpirun would ask again.
        ("OMPI_ALLOW_RUN_AS_ROOT", "1".to_owned()),
        ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1".to_owned()),
    ] {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    become_program(command)
}

/// Replaces this process, so that signals reach mpirun. Returns only what went wrong.
fn become_program(mut command: Command) -> Error {
    #[cfg(unix)]
    let error = std::os::unix::process::CommandExt::exec(&mut command);
    #[cfg(not(unix))]
    let error = match command.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => error,
    };
    Error::failed(format!("cannot start {}: {error}", command.get_program().to_string_lossy()))
}

fn in_path(program: &str) -> Option<OsString> {
    let paths = std::env::var_os("PATH")?;
    let candidates = std::env::split_paths(&paths).map(|dir: PathBuf| dir.join(OsStr::new(program)));
    candidates.into_iter().find(|path| path.is_file()).map(PathBuf::into_os_string)
}
