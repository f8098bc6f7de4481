//! Ranks that exchange over TCP, with nothing installed: the transport of [`Hosted`](super::hosted::Hosted) where no MPI has
//! started them.
//!
//! ```text
//! rendezvous  how ranks find each other: at one address, which all of them are told
//! mesh        a connection between each two
//! ```
//!
//! Whoever can reach the ports can disturb a run, as with MPI and NCCL: the network between machines is trusted.

mod mesh;
mod rendezvous;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

pub use mesh::Mesh;
pub use rendezvous::{Address, serve};

use crate::error::{Error, Result};

/// Begins every connection; ranks of another version of this protocol do not know it.
const MAGIC: &[u8; 8] = b"trainer1";

/// How long a rank that cannot connect waits before it tries again.
const PAUSE: Duration = Duration::from_millis(50);

/// What belongs to one run: no other's rank gets in by mistake.
type Token = [u8; 16];

fn read_u32(stream: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn write_u32(stream: &mut impl Write, value: usize) -> io::Result<()> {
    stream.write_all(&(value as u32).to_le_bytes())
}

fn read_array<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Takes the next connection.
///
/// # Errors
/// None before `deadline`.
fn accept(listener: &TcpListener, deadline: Instant) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(PAUSE / 10);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
}

/// What is left until `deadline`, for a socket, which takes no zero.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// Where this process is to be found by whoever may reach the machine.
fn listen(port: u16) -> io::Result<TcpListener> {
    // Of both kinds of addresses, where the machine has both.
    TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))
}

fn failed(what: &str) -> impl Fn(io::Error) -> Error {
    move |error| Error::failed(format!("{what}: {error}"))
}

/// Joins the other ranks. `serves`: this rank answers at the address, and not somebody else.
///
/// # Errors
/// Ranks that do not find each other in `patience`.
pub fn join(address: &Address, rank: usize, size: usize, serves: bool, patience: Duration) -> Result<Mesh> {
    let deadline = Instant::now() + patience;
    if serves && rank == 0 {
        let listener = listen(address.port).map_err(|error| {
            Error::failed(format!(
                "rank 0 cannot listen on port {} of this machine, where the other ranks look for it ({error}): choose \
                 another MASTER_PORT",
                address.port
            ))
        })?;
        std::thread::spawn(move || serve(&listener, size, deadline));
    }
    let listener = listen(0).map_err(failed("cannot listen for the other ranks"))?;
    let found = rendezvous::find(address, rank, size, &listener, deadline)?;
    Mesh::connect(&found, rank, &listener, deadline)
}
