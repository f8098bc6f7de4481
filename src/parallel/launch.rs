//! Which rank this process is, as the program that launched it says.

use std::fmt;

use crate::error::{Error, Result};

/// Who started the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// OpenMPI's mpirun.
    Mpirun,
    /// Slurm's srun.
    Srun,
    /// PyTorch's torchrun, or whatever sets the same variables.
    Torchrun,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mpirun => "mpirun",
            Self::Srun => "srun",
            Self::Torchrun => "torchrun",
        })
    }
}

/// One process among several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    pub launcher: Launcher,
    pub rank: usize,
    pub size: usize,
    /// The position among the ranks on the same machine.
    pub local_rank: usize,
}

/// Rank, number of ranks, and rank on the machine, by launcher, in the order in which they are looked for: mpirun inside
/// a Slurm job sees Slurm's variables too. srun sets SLURM_STEP_NUM_TASKS; SLURM_NTASKS alone is a batch script's.
const VARIABLES: [(Launcher, [&str; 3]); 4] = [
    (Launcher::Mpirun, ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"]),
    (Launcher::Srun, ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"]),
    (Launcher::Srun, ["SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"]),
    (Launcher::Torchrun, ["RANK", "WORLD_SIZE", "LOCAL_RANK"]),
];

/// This process's launch; `None` where it was started on its own, or as the only rank.
///
/// # Errors
/// Variables that are no numbers, or a rank that is not below their number.
pub fn detect() -> Result<Option<Launch>> {
    detect_in(|name| std::env::var(name).ok())
}

fn detect_in(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Launch>> {
    for (launcher, [rank_name, size_name, local_name]) in VARIABLES {
        let (Some(rank), Some(size)) = (variable(rank_name), variable(size_name)) else { continue };
        let number = |name: &str, text: &str| {
            text.parse::<usize>().map_err(|_| {
                Error::input(format!("{name} is {text:?}: {launcher} should have set a number; unset it or start anew"))
            })
        };
        let (rank, size) = (number(rank_name, &rank)?, number(size_name, &size)?);
        let local_rank = variable(local_name).map_or(Ok(rank), |local| number(local_name, &local))?;
        if rank >= size {
            return Err(Error::input(format!(
                "{rank_name} is {rank}, but {size_name} is {size}: ranks count from 0; unset both or start anew"
            )));
        }
        return Ok((size > 1).then_some(Launch { launcher, rank, size, local_rank }));
    }
    Ok(None)
}

impl Launch {
    /// # Errors
    /// What this build or this version has no engine for.
    pub fn check_engine(&self) -> Result<()> {
        let Self { launcher, size, .. } = self;
        match launcher {
            Launcher::Torchrun => Err(Error::input(format!(
                "torchrun's variables ask for {size} ranks, but without MPI there is no engine for them yet (NCCL comes \
                 later): start with mpirun -np {size}, or unset RANK and WORLD_SIZE"
            ))),
            _ if !cfg!(feature = "mpi") => Err(Error::input(format!(
                "{launcher} started {size} ranks, but this program was built without MPI: build it with cargo build \
                 --release --features mpi (needs libopenmpi-dev and libclang-dev), or start one process alone"
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(variables: &str) -> Result<Option<Launch>> {
        detect_in(|name| {
            let pairs = variables.split_whitespace().filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
        })
    }

    #[test]
    fn launchers_are_known_by_their_variables_in_order() {
        let mpirun = "OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=8 OMPI_COMM_WORLD_LOCAL_RANK=1";
        let srun = "SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_LOCALID=0";
        let torchrun = "RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=a MASTER_PORT=1";
        let found = |variables: &str| detect(variables).unwrap().map(|l| (l.launcher, l.rank, l.size, l.local_rank));
        assert_eq!(found(mpirun), Some((Launcher::Mpirun, 3, 8, 1)));
        assert_eq!(found(&format!("{torchrun} {srun} {mpirun}")), Some((Launcher::Mpirun, 3, 8, 1)));
        assert_eq!(found(&format!("{torchrun} {srun}")), Some((Launcher::Srun, 0, 4, 0)));
        // A step of one task inside a larger job.
        assert_eq!(found(&format!("{srun} SLURM_STEP_NUM_TASKS=1")), None);
        assert_eq!(found(torchrun), Some((Launcher::Torchrun, 1, 2, 1)));
        assert_eq!(found("RANK=0 WORLD_SIZE=1"), None);
        assert_eq!(found("RANK=0"), None);
        assert_eq!(found(""), None);
        assert!(detect("RANK=x WORLD_SIZE=2").unwrap_err().to_string().contains("RANK is \"x\""));
        assert!(detect("RANK=2 WORLD_SIZE=2").unwrap_err().to_string().contains("count from 0"));
    }
}
