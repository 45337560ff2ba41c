//! Objects whose bytes another node has, until somebody here reads them.
//!
//! To the store such an object is one that is away: the first reader has its bytes brought into the arena, and from then on
//! it is like any other. How they are brought, and what becomes of the other node's copy, is its maker's.
//!
//! Invariant: what stands for the bytes is dropped once, when they are here or when nobody wants them any more. Left out:
//! the network.

use super::Draft;
use crate::base::{Error, NodeId, Origin};

/// How an object that was away came to where it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// It was here, or another thread brought it meanwhile.
    Here,
    /// From disk.
    Disk,
    /// From that node.
    #[cfg_attr(
        not(feature = "cluster"),
        allow(dead_code, reason = "one machine has no other nodes")
    )]
    Node(NodeId),
}

/// The bytes of an object on another node.
pub(crate) trait Distant: Send + Sync {
    /// Where the object came from.
    fn origin(&self) -> Origin;

    /// Fills the draft, which is as long as the object, and says from where. Blocks until all bytes are there.
    ///
    /// # Errors
    /// That nobody has them any more, or whoever has them did not send them. The object stays away, and may be tried again.
    fn fetch(&self, draft: Draft) -> Result<(Draft, Came), Error>;
}
