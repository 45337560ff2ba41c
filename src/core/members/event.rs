//! What happens to the machine, and what it wants done.
//!
//! Invariant: plain data. Left out: what leads from one to the other.

use super::{Duty, Peer, Rank};
use crate::base::NodeId;

/// What happens to the machine.
#[derive(Debug)]
pub enum Event<'a> {
    /// Begins. Joins those who are in the cluster already, if any.
    Start {
        /// Some of them; the link learnt their numbers when it shook hands.
        join: Vec<Peer>,
    },
    /// This arrived.
    Datagram {
        /// Whom the link has it from.
        from: NodeId,
        /// All of it.
        bytes: &'a [u8],
    },
    /// It is time; see [`Members::deadline`](super::Members::deadline). To be sent when the sockets were read.
    Tick,
    /// What this node says of itself, from now on. What is longer than [`VIEW_MAX`](super::VIEW_MAX) is refused.
    Tell(&'a [u8]),
    /// This node takes no more work.
    Drain,
    /// This node goes.
    Leave,
    /// This one is reached, and no member yet. May be said again until it is.
    Meet(Peer),
    /// This node said, by another way and unasked, that it lives but is behind with its answers.
    Heard(NodeId),
    /// This node said to the driver that it goes.
    Left(NodeId),
    /// The connection to this node broke: a hint that it died.
    ConnectionLost(NodeId),
}

/// What the driver is to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a datagram. It may get lost.
    Send {
        /// To whom.
        to: Peer,
        /// At most [`DATAGRAM_MAX`](super::DATAGRAM_MAX) of them.
        bytes: Vec<u8>,
    },
    /// A member is there.
    Up(Peer),
    /// A member is gone for good.
    Down {
        /// Who.
        peer: Peer,
        /// Whether it wanted to.
        why: Why,
    },
    /// It may be dead: give it no new work.
    Suspected(NodeId),
    /// It lives after all.
    Cleared(NodeId),
    /// What a member says of itself.
    View {
        /// Who.
        node: NodeId,
        /// What it is up to.
        duty: Duty,
        /// The view.
        bytes: Vec<u8>,
    },
    /// This node has left; nothing more comes.
    Left,
    /// The cluster holds this node for dead; nothing more comes. The process is to end, or to start anew under
    /// another number.
    Dead(Death),
}

/// Why a member is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It said so.
    Left,
    /// It did not answer.
    Failed,
}

/// Why this node is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The others found it dead: it was cut off, or stopped for too long.
    Declared,
    /// A partition healed, and its side is the lesser one.
    Outvoted {
        /// Who said so, with its side's rank.
        by: NodeId,
        /// Its side's.
        theirs: Rank,
        /// This side's.
        ours: Rank,
    },
}
