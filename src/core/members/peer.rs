//! A node and where it is reached, as members know it.
//!
//! Invariant: two peers are the same if their nodes are, whatever their addresses: a node has one number for its
//! whole life, and never takes it up again. Left out: certificates, which the link checks before a datagram arrives
//! here.

use ::core::net::SocketAddr;

use crate::base::NodeId;

/// A member: its node, its address, and whether it keeps the cluster's records.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Who.
    pub node: NodeId,
    /// Where its datagrams go.
    pub addr: SocketAddr,
    /// It is the head: its side of a partition is the one that goes on.
    pub head: bool,
}

impl PartialEq for Peer {
    fn eq(&self, other: &Peer) -> bool {
        self.node == other.node
    }
}

impl Eq for Peer {}

impl foca::Identity for Peer {
    type Addr = NodeId;

    /// A process that was declared dead starts anew under another number; it never comes back as it was.
    fn renew(&self) -> Option<Peer> {
        None
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    /// Never asked: peers of one node are equal.
    fn win_addr_conflict(&self, _: &Peer) -> bool {
        true
    }
}
