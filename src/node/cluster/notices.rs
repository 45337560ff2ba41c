//! Deaths of nodes, as whoever of the program asked to hear of them is told.
//!
//! Invariant: a death is told once, in the order in which this node learned of them, and after the node's calls, objects and actors
//! have been seen to. Left out: finding deaths (`members`); listening (`exec::notices`).

use crate::base::NodeId;

/// Why a node is gone that said goodbye.
pub(super) const LEFT: &str = "it left";

/// A node that is not there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeDeath {
    /// Its number, which no other node will ever have.
    pub node: NodeId,
    /// What it was called.
    pub name: String,
    /// Why it was taken for dead.
    pub cause: String,
    /// Whether it left in order.
    pub left: bool,
}
