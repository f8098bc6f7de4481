//! A connection between each two ranks, and the exchanges over them.
//!
//! In round k of an exchange a rank sends to the k-th one after it and receives from the k-th one before it, the sending in
//! a thread of its own: nobody waits for a reader that waits for him.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Instant;

use super::rendezvous::Found;
use super::{PAUSE, Token, accept, left, read_array, read_u32, write_u32};
use crate::error::{Error, Result};
use crate::parallel::hosted::Transport;

/// Bytes to one rank that its receive buffer holds whether it reads or not: sent without a thread.
const SMALL: usize = 4096;

/// The ranks over TCP.
pub struct Mesh {
    rank: usize,
    /// By rank; `None` at its own place.
    peers: Vec<Option<TcpStream>>,
    lost: OnceLock<Lost>,
}

/// Ends this process, since a rank is gone: its number, and what the connection says.
type Lost = Box<dyn Fn(usize, &io::Error) + Send + Sync>;

impl Mesh {
    /// Connects to the ranks below, and waits for those above.
    ///
    /// # Errors
    /// One of them is not to be reached before `deadline`.
    pub(super) fn connect(found: &Found, rank: usize, own: &TcpListener, deadline: Instant) -> Result<Self> {
        let size = found.ranks.len();
        let missing = |peer: usize| {
            let address = found.ranks[peer];
            move |error: io::Error| {
                Error::failed(format!(
                    "rank {rank} does not reach rank {peer} at {address} within --timeout ({error}): the machines must reach \
                     each other on any port, not only on MASTER_PORT"
                ))
            }
        };
        let mut peers: Vec<Option<TcpStream>> = (0..size).map(|_| None).collect();
        for (peer, address) in found.ranks.iter().enumerate().take(rank) {
            let stream = loop {
                match TcpStream::connect_timeout(address, left(deadline)) {
                    Ok(stream) => break stream,
                    Err(error) if Instant::now() + PAUSE >= deadline => return Err(missing(peer)(error)),
                    Err(_) => std::thread::sleep(PAUSE),
                }
            };
            introduce(&stream, &found.token, rank).map_err(missing(peer))?;
            peers[peer] = Some(stream);
        }
        while let Some(next) = (rank + 1..size).find(|peer| peers[*peer].is_none()) {
            let stream = accept(own, deadline).map_err(missing(next))?;
            // Whoever does not know the token is not of this run.
            let Ok(peer) = greeted(&stream, &found.token, deadline) else { continue };
            if peer > rank && peer < size && peers[peer].is_none() {
                peers[peer] = Some(stream);
            }
        }
        for stream in peers.iter().flatten() {
            let ready = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(None));
            ready.map_err(super::failed("cannot set up a connection to another rank"))?;
        }
        Ok(Self { rank, peers, lost: OnceLock::new() })
    }

    /// What to do when a rank is gone; to be set before the first exchange. Should `act` return, this process is ended.
    pub fn when_lost(&self, act: impl Fn(usize, &io::Error) + Send + Sync + 'static) {
        let _ = self.lost.set(Box::new(act));
    }

    fn done<T>(&self, peer: usize, result: io::Result<T>) -> T {
        match result {
            Ok(value) => value,
            Err(error) => {
                if let Some(lost) = self.lost.get() {
                    lost(peer, &error);
                }
                // As MPI does: no exchange comes back from a rank that is gone.
                crate::exit::at_once(1)
            }
        }
    }

    fn peer(&self, rank: usize) -> io::Result<&TcpStream> {
        self.peers[rank].as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The rank that is sent to and the one that is received from in each round.
    fn rounds(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (rank, size) = (self.rank, self.peers.len());
        (1..size).map(move |k| ((rank + k) % size, (rank + size - k) % size))
    }

    /// Sends `to(rank)` to each rank, and receives into `from`'s places of `words`.
    fn exchange<'a>(
        &self,
        to: impl Fn(usize) -> &'a [u32] + Sync,
        from: impl Fn(usize) -> Range<usize>,
        words: &mut [u32],
    ) {
        let send = |peer: usize| {
            let bytes = bytemuck::cast_slice(to(peer));
            self.done(peer, self.peer(peer).and_then(|mut stream| stream.write_all(bytes)));
        };
        let mut receive = |peer: usize| {
            let bytes = bytemuck::cast_slice_mut(&mut words[from(peer)]);
            self.done(peer, self.peer(peer).and_then(|mut stream| stream.read_exact(bytes)));
        };
        if self.rounds().all(|(peer, _)| 4 * to(peer).len() <= SMALL) {
            self.rounds().for_each(|(peer, _)| send(peer));
            self.rounds().for_each(|(_, peer)| receive(peer));
            return;
        }
        std::thread::scope(|scope| {
            scope.spawn(|| self.rounds().for_each(|(peer, _)| send(peer)));
            self.rounds().for_each(|(_, peer)| receive(peer));
        });
    }
}

fn introduce(mut stream: &TcpStream, token: &Token, rank: usize) -> io::Result<()> {
    stream.write_all(token)?;
    write_u32(&mut stream, rank)
}

fn greeted(mut stream: &TcpStream, token: &Token, deadline: Instant) -> io::Result<usize> {
    stream.set_read_timeout(Some(left(deadline)))?;
    if read_array::<16>(&mut stream)? != *token {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(read_u32(&mut stream)? as usize)
}

impl Drop for Mesh {
    fn drop(&mut self) {
        for stream in self.peers.iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Transport for Mesh {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.peers.len()
    }

    fn all_to_all(&self, words: &[u32], parts: &[Range<usize>]) -> Vec<u32> {
        let own = parts[self.rank].clone();
        let len = own.len();
        let mut received = vec![0; len * self.size()];
        received[self.rank * len..][..len].copy_from_slice(&words[own]);
        self.exchange(|peer| &words[parts[peer].clone()], |peer| peer * len..(peer + 1) * len, &mut received);
        received
    }

    fn all_gather(&self, own: &[u32], parts: &[Range<usize>]) -> Vec<u32> {
        let mut all = vec![0; parts.last().map_or(0, |part| part.end)];
        all[parts[self.rank].clone()].copy_from_slice(own);
        self.exchange(|_| own, |peer| parts[peer].clone(), &mut all);
        all
    }

    fn broadcast(&self, words: &mut [u32], root: usize) {
        if self.rank == root {
            let own = &*words;
            self.exchange(|_| own, |_| 0..0, &mut []);
        } else {
            let len = words.len();
            self.exchange(|_| &[], |peer| if peer == root { 0..len } else { 0..0 }, words);
        }
    }

    fn barrier(&self) {
        let mut all = vec![0; self.size()];
        self.exchange(|_| &[1], |peer| peer..peer + 1, &mut all);
    }
}
