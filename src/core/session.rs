//! What two nodes still owe each other: frames exactly once and in order, over connections that break and are made again.
//!
//! A frame keeps its number from when it is accepted until the peer has said that it has it. A connection that breaks
//! loses only what was under way; the next one begins where the peer says that it stands. Which of two connections is the
//! one to use, when both sides made one, is decided here too, by [`Claim`], so that both decide alike.
//!
//! Invariant: a frame is handed over at most once and never before the one before it; what is not acknowledged is held, at
//! most `limit` bytes of it. Left out: connections, and when a peer is given up: that drops the whole session.

use std::collections::VecDeque;

use crate::base::NodeId;

/// What each held frame counts beside its bytes, so that empty ones are bounded too.
pub const FRAME_OVERHEAD: usize = 64;

/// Bytes received since the last acknowledgement at which one is due at once.
const ACK_BYTES: usize = 256 << 10;

/// Frames received since the last acknowledgement at which one is due at once.
const ACK_FRAMES: u64 = 256;

/// No room for a frame until the peer acknowledges some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Bytes held, each frame's overhead included.
    pub held: usize,
    /// Bytes that may be held.
    pub limit: usize,
}

/// A peer said what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lie {
    /// The number it named.
    pub said: u64,
    /// The lowest that it could have named.
    pub lowest: u64,
    /// The highest.
    pub highest: u64,
}

/// What to do with a frame that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Arrival {
    /// It is the next one: hand it over.
    Deliver,
    /// It came before: drop it.
    Duplicate,
    /// One before it is missing, which an orderly connection cannot cause: drop it.
    Gap {
        /// The number that is next.
        expected: u64,
    },
}

/// One side's books for one peer. `F` is a frame.
#[derive(Debug)]
pub struct Session<F> {
    limit: usize,
    held: usize,
    /// Frames after `acked`, in order, sent or not, with what each counts.
    queue: VecDeque<(F, usize)>,
    acked: u64,
    /// The next number to send on this connection.
    cursor: u64,
    /// The highest number ever sent.
    sent: u64,
    received: u64,
    /// What the last acknowledgement said.
    told: u64,
    untold_bytes: usize,
    resent: u64,
}

impl<F> Session<F> {
    /// A session that holds at most `limit` bytes that the peer has not acknowledged.
    pub fn new(limit: usize) -> Session<F> {
        Session {
            limit,
            held: 0,
            queue: VecDeque::new(),
            acked: 0,
            cursor: 1,
            sent: 0,
            received: 0,
            told: 0,
            untold_bytes: 0,
            resent: 0,
        }
    }

    /// Accepts a frame of `len` bytes for the peer. One frame always fits, however large, when nothing is held.
    pub fn push(&mut self, frame: F, len: usize) -> Result<(), Full> {
        let cost = len.saturating_add(FRAME_OVERHEAD);
        if self.held > 0 && self.held.saturating_add(cost) > self.limit {
            return Err(Full {
                held: self.held,
                limit: self.limit,
            });
        }
        self.held += cost;
        self.queue.push_back((frame, cost));
        Ok(())
    }

    /// A connection begins; the peer says that it has every frame up to `peer_has`.
    pub fn attach(&mut self, peer_has: u64) -> Result<(), Lie> {
        self.acknowledged(peer_has)?;
        // Numbers of the last connection count again only as repetitions.
        self.cursor = self.acked + 1;
        Ok(())
    }

    /// What to tell the peer when a connection begins: every frame up to this one has come.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The next frame to put on the connection, and its number.
    pub fn next(&mut self) -> Option<(u64, &F)> {
        let number = self.cursor;
        let place = usize::try_from(number - self.acked - 1).ok()?;
        let (frame, _) = self.queue.get(place)?;
        self.cursor += 1;
        if number <= self.sent {
            self.resent += 1;
        } else {
            self.sent = number;
        }
        Some((number, frame))
    }

    /// A frame came with this number.
    pub fn receive(&mut self, number: u64, len: usize) -> Arrival {
        let expected = self.received + 1;
        if number > expected {
            return Arrival::Gap { expected };
        }
        self.untold_bytes = self.untold_bytes.saturating_add(len);
        if number < expected {
            return Arrival::Duplicate;
        }
        self.received = number;
        Arrival::Deliver
    }

    /// The peer says that it has every frame up to this one.
    pub fn acknowledged(&mut self, upto: u64) -> Result<(), Lie> {
        if upto > self.sent {
            return Err(Lie {
                said: upto,
                lowest: self.acked,
                highest: self.sent,
            });
        }
        // An old acknowledgement says nothing new.
        while self.acked < upto {
            let Some((_, cost)) = self.queue.pop_front() else {
                break;
            };
            self.held -= cost;
            self.acked += 1;
        }
        self.cursor = self.cursor.max(self.acked + 1);
        Ok(())
    }

    /// Whether an acknowledgement is owed at some time soon.
    pub fn owes_ack(&self) -> bool {
        self.received > self.told
    }

    /// Whether one should go now, even if nothing else does.
    pub fn ack_due(&self) -> bool {
        self.received - self.told >= ACK_FRAMES
            || (self.owes_ack() && self.untold_bytes >= ACK_BYTES)
    }

    /// The acknowledgement to send, if one is owed.
    pub fn take_ack(&mut self) -> Option<u64> {
        let owed = self.owes_ack();
        self.told = self.received;
        self.untold_bytes = 0;
        owed.then_some(self.received)
    }

    /// Whether the peer has acknowledged everything.
    pub fn is_clear(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes held for the peer, each frame's overhead included.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Frames that were sent again.
    pub fn resent(&self) -> u64 {
        self.resent
    }
}

/// Which of two connections between the same two nodes is used: the greater.
///
/// A connection is named by who made it, its maker's count of connections with this peer that were in use before, and
/// its maker's count of tries. A later one replaces one that its maker must have given up; of two made at the same time, that of the
/// lesser node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// One more than the number of the last connection that its maker knew of.
    pub epoch: u64,
    /// Who made it.
    pub maker: NodeId,
    /// Its maker's count of tries.
    pub attempt: u64,
}

impl Claim {
    /// Whether this one replaces the one in use.
    pub fn beats(&self, used: &Claim) -> bool {
        if self.epoch != used.epoch {
            return self.epoch > used.epoch;
        }
        if self.maker != used.maker {
            return self.maker < used.maker;
        }
        self.attempt > used.attempt
    }
}

#[cfg(test)]
mod tests;
