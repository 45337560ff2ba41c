//! Which nodes are to be an actor's backups.
//!
//! Invariant: every node that knows the same nodes gives the same order, and an actor's order changes little when a node comes or
//! goes (rendezvous hashing). Left out: how many are needed ([`Host`](super::Host)).

use crate::base::{ActorKey, NodeId};

/// Sorts nodes by how well they would be backups of this actor: first the one that made it, then those of other machines,
/// then the rest.
pub fn prefer(
    actor: ActorKey,
    creator: NodeId,
    nodes: &mut [NodeId],
    same: impl Fn(NodeId) -> bool,
) {
    nodes.sort_by_cached_key(|&node| {
        let rank = if node == creator {
            0
        } else {
            1 + u8::from(same(node))
        };
        (rank, weight(actor, node), node)
    });
}

/// Mixes who and whom well: splitmix64's finish.
fn weight(actor: ActorKey, node: NodeId) -> u64 {
    let mut z = actor.host.get() ^ actor.number.rotate_left(32) ^ node.get().rotate_left(17);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
