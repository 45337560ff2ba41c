//! What a worker is told when it starts, and what it answers: over a socket that is its standard input.
//!
//! Invariant: a process that does not answer as this file says is no worker. Left out: starting it (`process`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::frame::{Reader, Writer};
use crate::base::Error;

/// Set in a worker's environment until it has taken over.
pub const VARIABLE: &str = "MOBULA_WORKER";
/// Begins everything that is said.
const MAGIC: u32 = 0x4d6f_6257;
/// Of all that driver and worker say to each other. They are one executable, unless it was replaced meanwhile.
const VERSION: u32 = 1;

/// Refuses to be a node in a process that was started to be a worker and has not become one: it would start workers that
/// start workers.
pub fn check_start() -> Result<(), Error> {
    if super::in_worker() {
        return Err(Error::Config {
            setting: "init",
            why: "this is a worker process of a node: the node is the driver's".to_owned(),
        });
    }
    if std::env::var_os(VARIABLE).is_some() {
        return Err(Error::Config {
            setting: "init",
            why: format!(
                "{VARIABLE} is set in the environment, which is only for worker processes: unset it; if nobody set it, \
                 this program was linked without the constructor that begins a worker"
            ),
        });
    }
    Ok(())
}

/// What calls, objects and handles made inside a worker process come to.
pub fn not_here() -> Error {
    Error::Isolation {
        what: "remote calls and actors are not available inside an isolated call or actor: return values and let the \
               caller go on from there"
            .to_owned(),
    }
}

/// What a worker must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Of the driver's registry.
    pub registry: u64,
    /// Bytes of the arena.
    pub arena: u64,
    /// Its unit of leasing.
    pub grain: u64,
    /// How many lanes there are.
    pub lanes: u32,
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

impl Welcome {
    /// Sends it, with the arena's and the lanes' files.
    pub fn send(
        &self,
        to: BorrowedFd<'_>,
        arena: BorrowedFd<'_>,
        lanes: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut w = Writer::default();
        w.u32(MAGIC);
        w.u32(VERSION);
        w.u64(self.registry);
        w.u64(self.arena);
        w.u64(self.grain);
        w.u32(self.lanes);
        let files = [arena, lanes];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&files));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::sendmsg(to, &[IoSlice::new(&w.0)], &mut control, flags)?;
        Ok(())
    }

    /// Receives it.
    pub fn receive(from: BorrowedFd<'_>) -> io::Result<(Welcome, OwnedFd, OwnedFd)> {
        let mut bytes = [0; 64];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = rustix::net::recvmsg(from, &mut pieces, &mut control, flags)?.bytes;
        let mut files = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                files.extend(rights);
            }
        }
        let mut r = Reader(&bytes[..got]);
        let read = |r: &mut Reader<'_>| {
            let (magic, version) = (r.u32()?, r.u32()?);
            let welcome = Welcome {
                registry: r.u64()?,
                arena: r.u64()?,
                grain: r.u64()?,
                lanes: r.u32()?,
            };
            Ok((magic, version, welcome))
        };
        let (magic, version, welcome) =
            read(&mut r).map_err(|_: crate::shm::Lied| bad("a short welcome"))?;
        if magic != MAGIC || version != VERSION {
            return Err(bad("this is no welcome of the same version"));
        }
        let lanes = files.pop().ok_or_else(|| bad("no files came along"))?;
        let arena = files.pop().ok_or_else(|| bad("no arena came along"))?;
        Ok((welcome, arena, lanes))
    }
}

/// The worker says that it is ready, or why it never will be.
pub fn answer(to: BorrowedFd<'_>, ready: Result<(), &str>) -> io::Result<()> {
    let mut w = Writer::default();
    w.u32(MAGIC);
    w.u32(VERSION);
    w.text(ready.err().unwrap_or_default());
    rustix::net::send(to, &w.0, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// What the worker said; `None` if it has not yet.
pub fn answered(from: impl AsFd) -> io::Result<Option<Result<(), String>>> {
    let mut bytes = [0; 1024];
    let got = match rustix::net::recv(from, &mut bytes, RecvFlags::DONTWAIT) {
        Ok((got, _)) => got,
        Err(rustix::io::Errno::AGAIN) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    if got == 0 {
        return Err(bad("it closed its socket"));
    }
    let mut r = Reader(&bytes[..got]);
    let said = (r.u32(), r.u32(), r.text());
    match said {
        (Ok(MAGIC), Ok(VERSION), Ok(why)) if why.is_empty() => Ok(Some(Ok(()))),
        (Ok(MAGIC), Ok(VERSION), Ok(why)) => Ok(Some(Err(why))),
        _ => Err(bad("it answered what no worker answers")),
    }
}
