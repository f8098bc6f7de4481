//! Ranks and their operations: a star of sockets around the first one.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::Instant;

use crate::memory::holds;

/// ncclUniqueId: the port at which the first rank waits.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Id([u8; 128]);

const MARK: &[u8; 14] = b"nccl-stand-in\0";

/// Ids that were made here, and where their ranks are to come.
static MEETINGS: Mutex<BTreeMap<u16, TcpListener>> = Mutex::new(BTreeMap::new());

pub fn unique_id() -> io::Result<Id> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    let mut id = Id([0; 128]);
    id.0[..MARK.len()].copy_from_slice(MARK);
    id.0[MARK.len()..][..2].copy_from_slice(&port.to_le_bytes());
    MEETINGS.lock().unwrap().insert(port, listener);
    Ok(id)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    AllReduce,
    ReduceScatter,
    Reduce(usize),
    AllGather,
    Broadcast(usize),
}

/// A call, but for the communicator. `count` is nccl.h's: of the part in scatters and gathers.
pub struct Operation {
    pub kind: Kind,
    /// ncclRedOp_t, where it is one that reduces.
    pub reduces: Option<i32>,
    pub from: u64,
    pub to: u64,
    pub count: usize,
    pub dtype: i32,
}

/// ncclDataType_t: bytes of int8, uint8, int32, uint32, int64, uint64, fp16, fp32, fp64, bf16.
const SIZES: [usize; 10] = [1, 1, 4, 4, 8, 8, 2, 4, 8, 2];
const FLOAT32: i32 = 7;
const SUM: i32 = 0;

pub struct Comm {
    rank: usize,
    size: usize,
    /// Of the first rank: all others, by rank. Of the others: the first.
    streams: Vec<TcpStream>,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

fn number(stream: &mut TcpStream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

impl Comm {
    /// Waits for all ranks.
    pub fn join(id: &Id, rank: usize, size: usize, device: usize) -> io::Result<Self> {
        if id.0[..MARK.len()] != *MARK {
            return Err(invalid("this id is not of ncclGetUniqueId"));
        }
        let port = u16::from_le_bytes([id.0[MARK.len()], id.0[MARK.len() + 1]]);
        if rank > 0 {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            for value in [rank, size, device] {
                stream.write_all(&(value as u64).to_le_bytes())?;
            }
            let mut answer = [0];
            stream.read_exact(&mut answer)?;
            return match answer {
                [1] => Ok(Self { rank, size, streams: vec![stream] }),
                _ => Err(invalid(format!("Duplicate GPU detected, or two of rank {rank}, or not {size} of them"))),
            };
        }
        let listener = MEETINGS.lock().unwrap().remove(&port);
        let listener = listener.ok_or_else(|| invalid("the id was made by another process than the first rank's"))?;
        let mut found = BTreeMap::new();
        let mut devices = vec![device];
        let mut fits = true;
        while found.len() + 1 < size && fits {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let [peer, ranks, its_device] = [number(&mut stream)?, number(&mut stream)?, number(&mut stream)?];
            fits = ranks == size as u64 && !devices.contains(&(its_device as usize));
            devices.push(its_device as usize);
            fits &= found.insert(peer, stream).is_none();
        }
        let mut streams: Vec<_> = found.into_values().collect();
        for stream in &mut streams {
            stream.write_all(&[u8::from(fits)])?;
        }
        match fits {
            true => Ok(Self { rank, size, streams }),
            false => Err(invalid(format!("Duplicate GPU detected: devices {devices:?} of one machine"))),
        }
    }

    /// Bytes that a rank reads and writes; what it does not touch is none.
    fn lengths(&self, operation: &Operation, rank: usize) -> (usize, usize) {
        let part = operation.count * SIZES[operation.dtype as usize];
        let whole = part * self.size;
        match operation.kind {
            Kind::AllReduce => (part, part),
            Kind::ReduceScatter => (whole, part),
            Kind::Reduce(root) => (part, if rank == root { part } else { 0 }),
            Kind::AllGather => (part, whole),
            Kind::Broadcast(root) => (if rank == root { part } else { 0 }, part),
        }
    }

    pub fn check(&self, operation: &Operation) -> Result<(), String> {
        let Operation { kind, reduces, from, to, count, dtype } = *operation;
        if !(0..SIZES.len() as i32).contains(&dtype) {
            return Err(format!("{kind:?} of data type {dtype}"));
        }
        if reduces.is_some_and(|op| op != SUM || dtype != FLOAT32) {
            return Err(format!("{kind:?} by {reduces:?} of data type {dtype}: only sums of fp32 stand in"));
        }
        if let Kind::Reduce(root) | Kind::Broadcast(root) = kind
            && root >= self.size
        {
            return Err(format!("{kind:?} among {} ranks", self.size));
        }
        let (read, written) = self.lengths(operation, self.rank);
        for (what, address, bytes) in [("reads", from, read), ("writes", to, written)] {
            if !holds(address, bytes) {
                return Err(format!("{kind:?} of {count} {what} {bytes} bytes at {address:#x}, no such device memory"));
            }
        }
        Ok(())
    }

    /// # Safety
    /// `check` has found the buffers, and nobody frees or uses them meanwhile.
    pub unsafe fn run(&mut self, operation: &Operation) -> io::Result<()> {
        let (read, written) = self.lengths(operation, self.rank);
        let from: &[u8] = match read {
            0 => &[],
            // SAFETY: the emulator has given out that many bytes there.
            _ => unsafe { std::slice::from_raw_parts(operation.from as *const u8, read) },
        };
        let name = format!("{:?} {:?} {} {}", operation.kind, operation.reduces, operation.count, operation.dtype);
        let result = if self.rank > 0 { self.ask(&name, from, written) } else { self.answer(operation, &name, from) }?;
        // `to` may be `from`: it is read by now.
        // SAFETY: as above.
        unsafe { (operation.to as *mut u8).copy_from_nonoverlapping(result.as_ptr(), result.len()) };
        Ok(())
    }

    fn ask(&mut self, name: &str, own: &[u8], written: usize) -> io::Result<Vec<u8>> {
        let stream = &mut self.streams[0];
        for bytes in [name.as_bytes(), own] {
            stream.write_all(&(bytes.len() as u64).to_le_bytes())?;
            stream.write_all(bytes)?;
        }
        let mut result = vec![0; written];
        stream.read_exact(&mut result)?;
        Ok(result)
    }

    fn answer(&mut self, operation: &Operation, name: &str, own: &[u8]) -> io::Result<Vec<u8>> {
        let started = Instant::now();
        let mut brought = vec![own.to_vec()];
        for stream in &mut self.streams {
            let mut block = || {
                let mut bytes = vec![0; number(stream)? as usize];
                stream.read_exact(&mut bytes).map(|()| bytes)
            };
            let (theirs, bytes) = (block()?, block()?);
            if theirs != name.as_bytes() {
                let theirs = String::from_utf8_lossy(&theirs).into_owned();
                return Err(invalid(format!("the ranks call different operations: {name} and {theirs}")));
            }
            brought.push(bytes);
        }
        let whole = match operation.kind {
            Kind::AllReduce | Kind::ReduceScatter | Kind::Reduce(_) => sum(&brought),
            Kind::AllGather => brought.concat(),
            Kind::Broadcast(root) => std::mem::take(&mut brought[root]),
        };
        let result = |rank: usize| {
            let (_, written) = self.lengths(operation, rank);
            let start = if operation.kind == Kind::ReduceScatter { rank * written } else { 0 };
            &whole[start..start + written]
        };
        let results: Vec<&[u8]> = (0..self.size).map(result).collect();
        for (stream, result) in self.streams.iter().zip(&results[1..]) {
            (&*stream).write_all(result)?;
        }
        if std::env::var_os("NCCL_STAND_IN_LOG").is_some() {
            eprintln!("nccl-stand-in: {name} in {:?}", started.elapsed());
        }
        Ok(results[0].to_vec())
    }
}

/// In the order of the ranks, each sum rounded to fp32.
fn sum(brought: &[Vec<u8>]) -> Vec<u8> {
    let values = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).map(|word| f32::from_ne_bytes([word[0], word[1], word[2], word[3]])).collect()
    };
    let mut sum = values(&brought[0]);
    for other in &brought[1..] {
        sum.iter_mut().zip(values(other)).for_each(|(sum, value)| *sum += value);
    }
    sum.into_iter().flat_map(f32::to_ne_bytes).collect()
}
