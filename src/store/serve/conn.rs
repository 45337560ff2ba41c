//! One client's socket with what was received and what is to be sent.
//!
//! Invariant: what waits to be sent is bounded: events are left out, and counted, once it is long;
//! requests are not looked at while it is longer. Left out: what requests mean (`table`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::epoll::EventFlags;

use crate::store::proto::{Frames, Message};
use crate::store::socket;

/// Unsent bytes from which on events are left out.
const EVENTS_MAX: usize = 128 << 10;

/// Unsent bytes from which on no request of this client is looked at.
const REPLIES_MAX: usize = 256 << 10;

/// Bytes read of one client before others have their turn.
const TURN: usize = 256 << 10;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was heard yet.
    New,
    /// Requests are answered.
    Served,
    /// It is neither heard nor told anything. What the client holds it keeps until it closes its end
    /// or dies, since it may be reading and writing there.
    Refused,
    /// It closed its end while pages were lent to it: kept until its process is dead.
    Closed,
}

/// A connection.
pub struct Conn {
    socket: OwnedFd,
    /// Readable when the client's process has ended.
    pub process: Option<OwnedFd>,
    pub phase: Phase,
    inbox: Frames,
    outbox: Vec<u8>,
    sent: usize,
    missed: u64,
    /// When it must have said hello.
    pub hello_by: Instant,
    /// What the poll looks for.
    pub interest: EventFlags,
}

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// All there was, or enough for a turn.
    Bytes,
    /// The other side will send nothing more.
    End,
}

impl Conn {
    pub fn new(socket: OwnedFd, process: Option<OwnedFd>, hello_by: Instant) -> Conn {
        Conn {
            socket,
            process,
            phase: Phase::New,
            inbox: Frames::default(),
            outbox: Vec::new(),
            sent: 0,
            missed: 0,
            hello_by,
            interest: EventFlags::IN,
        }
    }

    /// Reads what has come, up to a turn's worth.
    pub fn read(&mut self) -> io::Result<Heard> {
        let mut read = 0;
        while read < TURN && self.inbox.len() < TURN {
            match socket::receive(&self.socket, self.inbox.room()) {
                Ok(0) => return Ok(Heard::End),
                Ok(bytes) => {
                    self.inbox.received(bytes);
                    read += bytes;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(Heard::Bytes)
    }

    /// What was received.
    pub fn inbox(&mut self) -> &mut Frames {
        &mut self.inbox
    }

    /// Whether there is room for another answer.
    pub fn may_answer(&self) -> bool {
        self.unsent() < REPLIES_MAX
    }

    /// Puts a message after those that wait; an event only if they are few.
    pub fn push(&mut self, message: &Message) {
        let event = matches!(message, Message::Sealed { .. } | Message::Deleted { .. });
        if event && (self.missed > 0 || self.unsent() > EVENTS_MAX) {
            self.missed += 1;
            return;
        }
        message.encode(&mut self.outbox);
    }

    /// Sends what the socket takes. Fails if it takes nothing any more.
    pub fn flush(&mut self) -> io::Result<()> {
        loop {
            while self.sent < self.outbox.len() {
                match socket::send(&self.socket, &self.outbox[self.sent..]) {
                    Ok(bytes) => self.sent += bytes,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        self.compact();
                        return Ok(());
                    }
                    Err(e) => return Err(e),
                }
            }
            self.outbox.clear();
            self.sent = 0;
            if self.missed == 0 {
                // A long queue was an exception: its memory is not kept.
                self.outbox.shrink_to(EVENTS_MAX / 8);
                return Ok(());
            }
            let missed = std::mem::take(&mut self.missed);
            Message::Lagged { missed }.encode(&mut self.outbox);
        }
    }

    /// What the poll should look for now.
    pub fn wanted(&self) -> EventFlags {
        let mut wanted = EventFlags::empty();
        if self.phase == Phase::New || (self.phase == Phase::Served && self.may_answer()) {
            wanted |= EventFlags::IN;
        }
        if self.unsent() > 0 && matches!(self.phase, Phase::New | Phase::Served) {
            wanted |= EventFlags::OUT;
        }
        wanted
    }

    fn unsent(&self) -> usize {
        self.outbox.len() - self.sent
    }

    fn compact(&mut self) {
        if self.sent > self.outbox.len() / 2 {
            self.outbox.drain(..self.sent);
            self.sent = 0;
        }
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
