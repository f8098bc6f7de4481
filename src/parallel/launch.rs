//! Which rank this process is, as the program that launched it says, and where the ranks find each other.

use std::fmt;

use super::tcp::Address;
use crate::error::{Error, Result};

/// Who started the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// This program (`--devices`).
    Own,
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
            Self::Own => "--devices",
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

/// How ranks reach each other, apart from what GPUs do among themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// MPI_COMM_WORLD.
    Mpi,
    /// Connections of our own, arranged at an address.
    Tcp {
        address: Address,
        /// The first rank is to be found there; else whoever started the ranks.
        first_serves: bool,
    },
}

/// Variables that this program gives the ranks that it starts: number, how many, and host:port of the starter.
pub const OWN: [&str; 3] = ["TRAINER_RANK", "TRAINER_RANKS", "TRAINER_MASTER"];

/// Rank, number of ranks, and rank on the machine, by launcher, in the order in which they are looked for: mpirun inside
/// a Slurm job sees Slurm's variables too. srun sets SLURM_STEP_NUM_TASKS; SLURM_NTASKS alone is a batch script's.
const VARIABLES: [(Launcher, [&str; 3]); 5] = [
    (Launcher::Own, [OWN[0], OWN[1], OWN[0]]),
    (Launcher::Mpirun, ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"]),
    (Launcher::Srun, ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"]),
    (Launcher::Srun, ["SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"]),
    (Launcher::Torchrun, ["RANK", "WORLD_SIZE", "LOCAL_RANK"]),
];

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// This process's launch; `None` where it was started on its own, or as the only rank.
///
/// # Errors
/// Variables that are no numbers, or a rank that is not below their number.
pub fn detect() -> Result<Option<Launch>> {
    detect_in(environment)
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
    /// How the ranks of this launch reach each other: through the MPI that has started them, where this build has it; else
    /// over TCP, at an address that the launcher's variables tell.
    ///
    /// # Errors
    /// No such address, or none that can be read.
    pub fn engine(&self) -> Result<Engine> {
        self.engine_in(environment)
    }

    fn engine_in(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Engine> {
        let Self { launcher, size, .. } = self;
        let master = variable("MASTER_ADDR").zip(variable("MASTER_PORT"));
        let mpi = cfg!(feature = "mpi");
        let tcp = |address| Ok(Engine::Tcp { address, first_serves: true });
        match (launcher, master) {
            (Launcher::Own, _) => {
                let text = variable(OWN[2]).unwrap_or_default();
                let address = text.rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned()));
                let (host, port) = address.unwrap_or_default();
                Ok(Engine::Tcp { address: Address { host, port: port_of(OWN[2], &port)? }, first_serves: false })
            }
            (Launcher::Mpirun | Launcher::Srun, None) if mpi => Ok(Engine::Mpi),
            (Launcher::Mpirun, _) if mpi => Ok(Engine::Mpi),
            (_, Some((host, port))) => {
                let mut port = port_of("MASTER_PORT", &port)?;
                // torchrun listens there itself; the ranks then meet one port above.
                if variable("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|store| store.eq_ignore_ascii_case("true")) {
                    port = port.checked_add(1).ok_or_else(|| Error::input("MASTER_PORT must be below 65535"))?;
                }
                tcp(Address { host, port })
            }
            (Launcher::Srun, None) => {
                let nodes = variable("SLURM_STEP_NODELIST").or_else(|| variable("SLURM_JOB_NODELIST"));
                let job = variable("SLURM_JOB_ID").and_then(|job| job.parse::<u64>().ok());
                let host = nodes.as_deref().and_then(first_node);
                let host = host.zip(job).ok_or_else(|| no_address(*launcher, *size))?;
                // Jobs of one machine meet at different ports.
                tcp(Address { host: host.0, port: 20_000 + (host.1 % 10_000) as u16 })
            }
            (Launcher::Mpirun | Launcher::Torchrun, None) => Err(no_address(*launcher, *size)),
        }
    }
}

fn no_address(launcher: Launcher, size: usize) -> Error {
    let otherwise = match launcher {
        Launcher::Mpirun | Launcher::Srun => {
            ", or build this program with MPI (cargo build --release --features mpi; needs libopenmpi-dev and libclang-dev)"
        }
        Launcher::Own | Launcher::Torchrun => "",
    };
    Error::input(format!(
        "{launcher} started {size} ranks, but they do not know where to meet: set MASTER_ADDR to the first one's machine and          MASTER_PORT to a free port there{otherwise}"
    ))
}

fn port_of(name: &str, text: &str) -> Result<u16> {
    let port = text.trim().parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| Error::input(format!("{name} is {text:?}: expected the number of a port, 1 to 65535")))
}

/// The first machine of a list as Slurm writes it: "gpu[003-006,9],login" is gpu003.
fn first_node(list: &str) -> Option<String> {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let mut node = list[..end].to_owned();
    if let Some(inner) = list[end..].strip_prefix('[') {
        node.push_str(inner.split(['-', ',', ']']).next()?);
    }
    (!node.is_empty()).then_some(node)
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
        assert_eq!(found(&format!("{mpirun} TRAINER_RANK=1 TRAINER_RANKS=4")), Some((Launcher::Own, 1, 4, 1)));
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

    #[test]
    fn ranks_meet_where_the_launcher_says() {
        let engine = |launcher, variables: &str| {
            let launch = Launch { launcher, rank: 0, size: 4, local_rank: 0 };
            launch.engine_in(|name| {
                let mut pairs = variables.split_whitespace().filter_map(|pair| pair.split_once('='));
                pairs.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
            })
        };
        let at =
            |host: &str, port, first_serves| Engine::Tcp { address: Address { host: host.into(), port }, first_serves };
        let master = "MASTER_ADDR=node7 MASTER_PORT=29500";
        assert_eq!(engine(Launcher::Own, "TRAINER_MASTER=127.0.0.1:4321").unwrap(), at("127.0.0.1", 4321, false));
        assert_eq!(engine(Launcher::Torchrun, master).unwrap(), at("node7", 29500, true));
        let elastic = format!("{master} TORCHELASTIC_USE_AGENT_STORE=True");
        assert_eq!(engine(Launcher::Torchrun, &elastic).unwrap(), at("node7", 29501, true));
        assert_eq!(engine(Launcher::Srun, master).unwrap(), at("node7", 29500, true));
        let slurm = "SLURM_STEP_NODELIST=gpu[003-004,7],x SLURM_JOB_ID=1234567";
        let mpi = cfg!(feature = "mpi");
        assert_eq!(engine(Launcher::Srun, slurm).unwrap(), if mpi { Engine::Mpi } else { at("gpu003", 24567, true) });
        assert_eq!(engine(Launcher::Mpirun, "").is_ok(), mpi);
        for (launcher, variables, words) in [
            (Launcher::Torchrun, "MASTER_ADDR=a", "MASTER_PORT to a free port"),
            (Launcher::Torchrun, "MASTER_ADDR=a MASTER_PORT=0", "MASTER_PORT is \"0\""),
            (Launcher::Torchrun, "MASTER_ADDR=a MASTER_PORT=99999", "1 to 65535"),
            (Launcher::Own, "", "TRAINER_MASTER"),
        ] {
            let message = engine(launcher, variables).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
        assert_eq!(
            ["a,b", "n[1,3]", "n[08-10]", ""].map(first_node),
            [Some("a".into()), Some("n1".into()), Some("n08".into()), None]
        );
    }
}
