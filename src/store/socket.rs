//! Frames over a Unix socket, and the file of the store's memory beside the first.
//!
//! Invariant: no call here waits; what would wait says `WouldBlock`. Left out: who may connect, and
//! what the bytes mean (`proto`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Sends what the socket takes of `bytes`.
pub(super) fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    again(|| rustix::net::send(&socket, bytes, flags))
}

/// Sends all of `bytes`, which are few, with a file beside them.
pub(super) fn send_with(socket: impl AsFd, bytes: &[u8], file: BorrowedFd<'_>) -> io::Result<()> {
    let files = [file];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    beside.push(SendAncillaryMessage::ScmRights(&files));
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let bytes = [IoSlice::new(bytes)];
    let sent = again(|| rustix::net::sendmsg(&socket, &bytes, &mut beside, flags))?;
    if sent < bytes[0].len() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(())
}

/// Receives what is there; 0 if the other side has ended.
pub(super) fn receive(socket: impl AsFd, into: &mut [u8]) -> io::Result<usize> {
    again(|| {
        let flags = RecvFlags::DONTWAIT;
        rustix::net::recv(&socket, &mut *into, flags).map(|(received, _)| received)
    })
}

/// As [`receive`], and the first file that came beside the bytes. Others are closed.
pub(super) fn receive_with(
    socket: impl AsFd,
    into: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = again(|| {
        let mut into = [IoSliceMut::new(into)];
        rustix::net::recvmsg(&socket, &mut into, &mut beside, flags)
    })?;
    let files = beside.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let file = files
        .flatten()
        .fold(None, |first, file| first.or(Some(file)));
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((message.bytes, file))
}

/// Sleeps until the socket can be read, or also written, or the time is over: false then.
pub(super) fn wait(
    socket: impl AsFd,
    write_too: bool,
    timeout: Option<std::time::Duration>,
) -> io::Result<Ready> {
    let mut flags = PollFlags::IN;
    if write_too {
        flags |= PollFlags::OUT;
    }
    let mut polled = [PollFd::new(&socket, flags)];
    let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
    match rustix::event::poll(&mut polled, timeout.as_ref()) {
        Ok(_) => {}
        // The caller looks at its clock and comes back.
        Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
        Err(e) => return Err(e.into()),
    }
    let seen = polled[0].revents();
    let ended = seen.intersects(PollFlags::ERR | PollFlags::HUP);
    Ok(Ready {
        read: ended || seen.contains(PollFlags::IN),
        write: ended || seen.contains(PollFlags::OUT),
    })
}

/// What a socket is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    pub read: bool,
    pub write: bool,
}

fn again<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}
