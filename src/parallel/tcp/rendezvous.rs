//! Ranks find each other: each tells one address, which all know, where it listens, and is told where all others do.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::{MAGIC, PAUSE, Token, accept, left, read_array, read_u32, write_u32};
use crate::error::{Error, Result};

/// How long somebody who has connected may take to say which rank it is.
const HELLO: Duration = Duration::from_secs(5);

/// Where ranks look for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Where all ranks listen, and what they know each other by.
pub(super) struct Found {
    pub token: Token,
    pub ranks: Vec<SocketAddr>,
}

/// Waits at `listener` for `size` ranks, and tells each where the others are. Connections that are no rank's are dropped.
pub fn serve(listener: &TcpListener, size: usize, deadline: Instant) {
    let mut known: Vec<Option<(TcpStream, SocketAddr)>> = (0..size).map(|_| None).collect();
    while known.iter().any(Option::is_none) {
        let Ok(mut stream) = accept(listener, deadline) else { return };
        let hello = stream.set_read_timeout(Some(left(deadline).min(HELLO))).and_then(|()| hear(&mut stream));
        let Ok((rank, ranks, port)) = hello else { continue };
        let place = known.get_mut(rank).filter(|place| ranks == size && place.is_none());
        match (place, stream.peer_addr()) {
            (Some(place), Ok(peer)) => *place = Some((stream, SocketAddr::new(plain(peer.ip()), port))),
            // It says why, since it waits for an answer.
            _ => drop(write_u32(&mut stream, size).and_then(|()| write_u32(&mut stream, rank))),
        }
    }
    let mut token: Token = [0; 16];
    if getrandom::fill(&mut token).is_err() {
        return;
    }
    let known: Vec<_> = known.into_iter().flatten().collect();
    let table: Vec<String> = known.iter().map(|(_, address)| address.to_string()).collect();
    let table = table.join("\n");
    for (mut stream, _) in known {
        // A rank that is gone by now is missed by the others.
        let _ = tell(&mut stream, &token, table.as_bytes());
    }
}

/// A rank's number, the number of ranks that it knows of, and where it listens.
fn hear(stream: &mut TcpStream) -> io::Result<(usize, usize, u16)> {
    if read_array(stream)? != *MAGIC {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let (rank, size, port) = (read_u32(stream)?, read_u32(stream)?, read_u32(stream)?);
    let port = u16::try_from(port).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((rank as usize, size as usize, port))
}

fn tell(stream: &mut TcpStream, token: &Token, table: &[u8]) -> io::Result<()> {
    stream.write_all(MAGIC)?;
    stream.write_all(token)?;
    write_u32(stream, table.len())?;
    stream.write_all(table)
}

/// An IPv4 address that a socket of both kinds has written as IPv6.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Asks at the address, again and again until `deadline`.
///
/// # Errors
/// Nobody there, or not all ranks.
pub(super) fn find(address: &Address, rank: usize, size: usize, own: &TcpListener, deadline: Instant) -> Result<Found> {
    let port = own.local_addr().map_err(super::failed("cannot listen for the other ranks"))?.port();
    loop {
        let answer = connect(address, deadline).and_then(|mut stream| {
            stream.set_read_timeout(Some(left(deadline)))?;
            stream.write_all(MAGIC)?;
            [rank, size, usize::from(port)].into_iter().try_for_each(|number| write_u32(&mut stream, number))?;
            let begin: [u8; 8] = read_array(&mut stream)?;
            if begin != *MAGIC {
                return Ok(Err(begin));
            }
            let token = read_array(&mut stream)?;
            let mut table = vec![0; (read_u32(&mut stream)? as usize).min(64 * size)];
            stream.read_exact(&mut table)?;
            Ok(Ok((token, table, stream.peer_addr()?.ip())))
        });
        match answer {
            Ok(Ok((token, table, server))) => {
                let ranks = addresses(&table, plain(server)).filter(|ranks| ranks.len() == size);
                let ranks = ranks.ok_or_else(|| Error::failed(format!("{address} answers with no table of ranks")))?;
                return Ok(Found { token, ranks });
            }
            Ok(Err(refused)) => return Err(refusal(address, rank, size, refused)),
            Err(error) if Instant::now() + PAUSE >= deadline => {
                return Err(Error::failed(format!(
                    "rank {rank} of {size} does not find the others at {address} within --timeout ({error}): start all of \
                     them, with the same MASTER_ADDR and MASTER_PORT, where they reach that address"
                )));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn refusal(address: &Address, rank: usize, size: usize, refused: [u8; 8]) -> Error {
    let number = |at: usize| u32::from_le_bytes([refused[at], refused[at + 1], refused[at + 2], refused[at + 3]]);
    let there = number(0) as usize;
    Error::input(match there == size {
        true => format!("two processes at {address} say that they are rank {rank}: give each its own RANK"),
        false => format!(
            "rank {rank} knows of {size} ranks, and {address} of {there}: give all the same WORLD_SIZE, and this run a port \
             of its own"
        ),
    })
}

fn connect(address: &Address, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for candidate in (address.host.as_str(), address.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, left(deadline)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The table's addresses. A rank that came to the server over the loopback is on the server's machine, which others know
/// by the address at which they have reached it.
fn addresses(table: &[u8], server: IpAddr) -> Option<Vec<SocketAddr>> {
    let lines = std::str::from_utf8(table).ok()?.lines();
    let address = |line: &str| {
        let mut address: SocketAddr = line.parse().ok()?;
        if address.ip().is_loopback() {
            address.set_ip(server);
        }
        Some(address)
    };
    lines.map(address).collect()
}
