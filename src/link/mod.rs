//! Carries frames and bulk bytes between nodes, and knows nothing of what they mean.
//!
//! A [`Link`] is what the driver holds: frames to a node arrive exactly once and in order until the node is forgotten,
//! over however many connections that takes; bulk bodies go beside them, each whole or reported as failed; datagrams may be
//! lost. [`Endpoint`] does it over QUIC, on one UDP port, between nodes that the cluster's [`Ca`] has certified,
//! and frames over a Unix socket where the two share a machine; [`memory`] does it inside one process.
//!
//! Invariant: nothing here blocks its caller for the network, and everything that waits has a bound in bytes, a deadline, or
//! both. Left out: tasks, objects, membership.

mod bounds;
mod bulk;
mod ca;
mod codec;
mod control;
mod dial;
mod endpoint;
mod error;
mod forgotten;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod greet;
mod hello;
mod join;
mod lag;
#[cfg(test)]
pub mod memory;
mod near;
mod peer;
mod serve;
mod shared;
mod tls;
mod token;
mod tune;
mod verify;
mod ways;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

pub use bounds::Bounds;
pub use bytes::Bytes;
pub use ca::{Ca, Identity};
pub use endpoint::{Endpoint, Settings};
pub use error::{LinkError, RegistryDiff, SendError};
pub use hello::{Hello, Registry};
pub use join::join;
pub use token::JoinToken;
pub(crate) use token::sha256;

use crate::base::NodeId;

/// A frame is at most this long.
pub const MAX_FRAME: usize = 16 << 20;
/// A datagram is at most this long: it fits whatever the network between.
pub const MAX_DATAGRAM: usize = 1100;
/// A bulk body is at most this long.
pub const MAX_BULK: u64 = 1 << 40;

/// A node at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Which node.
    pub node: NodeId,
    /// Where its packets come from.
    pub addr: SocketAddr,
    /// What it says about itself.
    pub hello: Hello,
}

/// What is told to the driver. Calls come from the link's own thread, one at a time: a call that blocks holds up the link.
/// All of [`Link`] may be called from inside.
pub trait Handler: Send + Sync {
    /// A connection with this peer is in use.
    fn connected(&self, peer: &Peer);
    /// The next frame from a peer. Frames of one peer come in order, each once.
    fn frame(&self, from: NodeId, frame: &[u8]);
    /// A datagram from a peer.
    fn datagram(&self, from: NodeId, bytes: &[u8]);
    /// No connection with this peer is in use any more. Unless it [left](LinkError::Left), was fenced or was forgotten, both sides try
    /// to make another, and frames wait meanwhile.
    fn disconnected(&self, node: NodeId, why: &LinkError);
    /// A call to this address, or one from it, came to nothing.
    fn refused(&self, addr: SocketAddr, why: &LinkError);
}

/// Where a bulk body goes.
pub trait Landing: Send {
    /// These bytes of the body belong here. Pieces come in any order, each byte at most once, none outside the body.
    fn write(&mut self, offset: u64, bytes: &[u8]);
    /// All bytes were written, or no more will be. Called exactly once, at the end.
    fn finish(self: Box<Self>, outcome: Result<(), LinkError>);
}

/// Told how a bulk body fared, exactly once: `Ok` when the peer's machine has all of it.
pub type Done = Box<dyn FnOnce(Result<(), LinkError>) + Send>;

/// What a node says to others, and how.
pub trait Link: Send + Sync {
    /// Which node this is.
    fn node(&self) -> NodeId;
    /// Where others reach it.
    fn local_addr(&self) -> SocketAddr;
    /// Calls the node at this address. The outcome goes to the handler; nothing is tried again before there was a connection.
    fn connect(&self, addr: SocketAddr, expect: Option<NodeId>);
    /// Accepts a frame of at most [`MAX_FRAME`] bytes for a peer that was connected once.
    fn send(&self, to: NodeId, frame: Bytes) -> Result<(), SendError>;
    /// Sends at most [`MAX_DATAGRAM`] bytes that may be lost.
    fn datagram(&self, to: NodeId, bytes: &[u8]) -> Result<(), SendError>;
    /// Sends a body that the peer [expects](Link::expect_bulk) under this number.
    fn send_bulk(&self, to: NodeId, transfer: u64, body: Bytes, done: Done);
    /// Says where a body of `len` bytes goes that this peer will send under this number. A body that came before this is
    /// held back a few seconds.
    fn expect_bulk(&self, from: NodeId, transfer: u64, len: u64, landing: Box<dyn Landing>);
    /// Gives up a body that is expected; its landing is finished with an error before this returns, or was already.
    fn cancel_bulk(&self, from: NodeId, transfer: u64);
    /// The node is dead: everything held for it is dropped, and it is refused from now on.
    fn forget(&self, node: NodeId);
    /// Whether a connection with this node is in use.
    fn is_connected(&self, node: NodeId) -> bool;
    /// Whether frames to this node go over a socket of the machine that both are on.
    fn is_near(&self, node: NodeId) -> bool;
    /// For how long the link has been too busy to read all that arrived: what others said in this time may be unread.
    fn behind(&self) -> Duration;
    /// Counts.
    fn stats(&self) -> Stats;
    /// Stops: what is held gets until `deadline` from now to be acknowledged, then peers are told, which takes half a second
    /// at most. Later calls do nothing.
    fn stop(&self, deadline: Duration);
    /// As [`stop`](Link::stop), at once, of a node that has heard that it was declared dead: peers that do not know it yet are told
    /// that it is [fenced](LinkError::Fenced), not that it left.
    fn retire(&self);
}

/// What a link has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of UDP datagrams sent, by connections that are or were in use.
    pub bytes_out: u64,
    /// Bytes of UDP datagrams received.
    pub bytes_in: u64,
    /// Frames put on connections.
    pub frames_out: u64,
    /// Frames handed to the handler.
    pub frames_in: u64,
    /// Of those, frames that went over a socket to a node of the same machine.
    pub frames_near: u64,
    /// Frames that were sent again after a connection broke, or such a socket.
    pub frames_resent: u64,
    /// Packets that the network lost.
    pub packets_lost: u64,
    /// Bytes of bulk bodies sent whole.
    pub bulk_out: u64,
    /// Bytes of bulk bodies received.
    pub bulk_in: u64,
    /// Peers with a connection in use.
    pub connected: usize,
    /// Of those, peers whose frames go over a socket of this machine.
    pub near: usize,
    /// Connections made, either way.
    pub connections: u64,
    /// Connections refused, either way.
    pub refused: u64,
    /// Handshakes that were not answered, since there were too many, or too many from that address.
    pub unanswered: u64,
    /// Streams of bodies that were refused, since nobody expected them.
    pub unexpected: u64,
}
