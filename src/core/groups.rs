//! Placement groups: resources on several nodes that are reserved together or not at all.
//!
//! The node that makes a group *coordinates* it: it plans where each bundle goes, asks those nodes to *prepare* (reserve),
//! and when all have, to *commit*; if one cannot, is too slow or dies, all others *abort*. Each attempt has a number of its
//! own, the epoch, so that late answers to an earlier one are known as such. A node that has prepared waits for the word
//! of its coordinator, however long, and gives everything back when that is dead: so nothing is ever half reserved for
//! longer than it takes to notice a death.
//!
//! When a node with bundles of a ready group dies, the group is *degraded*: its other bundles go on, and the lost ones are
//! planned and reserved anew until they are found room.
//!
//! Invariant: a group becomes ready only when all of its bundles are committed at once on living nodes, as its strategy
//! wants; what is reserved belongs to a group of a living coordinator. Left out: what runs in a bundle (a ledger of the
//! bundle's own capacity does), and links, which deliver once and in order between living nodes.

pub mod coordinator;
pub mod lookup;
pub mod participant;
mod plan;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::base::{Demand, GroupId, Infeasible, NodeId};
pub use coordinator::Coordinator;
pub use lookup::Lookup;
pub use participant::Participant;

/// Bundles of a group.
pub const MAX_BUNDLES: usize = 256;
/// Groups of one coordinator.
pub const MAX_GROUPS: usize = 4_096;
/// Bundles on one node.
pub const MAX_HERE: usize = 4_096;
/// So long a node may take to prepare before all others give back what they hold.
pub const PREPARE: Duration = Duration::from_secs(2);
/// The first wait between two attempts; it doubles up to [`MAX_WAIT`].
pub const WAIT: Duration = Duration::from_millis(50);
/// The longest wait between two attempts.
pub const MAX_WAIT: Duration = Duration::from_secs(2);

/// What the halves say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupMsg {
    /// To a participant: reserve these bundles, by their place in the group.
    Prepare {
        /// Which group.
        group: GroupId,
        /// Which attempt.
        epoch: u64,
        /// The place of its bundles in the ledger's line.
        priority: i32,
        /// Which bundles, and what each holds.
        bundles: Vec<(u32, Demand)>,
    },
    /// To a participant: every node has prepared; the bundles may be used.
    Commit {
        /// Which group.
        group: GroupId,
        /// Which attempt.
        epoch: u64,
    },
    /// To a participant: give back what that attempt reserved.
    Abort {
        /// Which group.
        group: GroupId,
        /// Which attempt.
        epoch: u64,
    },
    /// To a participant: the group is no more; give back all of it.
    Remove {
        /// Which group.
        group: GroupId,
    },
    /// To the coordinator: everything asked for is reserved.
    Prepared {
        /// Which group.
        group: GroupId,
        /// Which attempt.
        epoch: u64,
    },
    /// To the coordinator: it cannot be, and nothing of this attempt is reserved.
    Refused {
        /// Which group.
        group: GroupId,
        /// Which attempt.
        epoch: u64,
        /// Why.
        why: Refusal,
    },
    /// To the coordinator: the bundles are in use from now on.
    Committed {
        /// Which group.
        group: GroupId,
        /// Which attempt.
        epoch: u64,
    },
    /// To the coordinator: where are its bundles? The answer, and each change of it, is sent.
    Locate {
        /// Which group.
        group: GroupId,
    },
    /// To who asked.
    Located {
        /// Which group.
        group: GroupId,
        /// Counts up.
        version: u64,
        /// Where each bundle is, if it has a place now; `None`: the group is removed.
        bundles: Option<Vec<(Option<NodeId>, Demand)>>,
    },
}

/// Who takes a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// [`Coordinator::handle`].
    Coordinator,
    /// [`Participant::handle`].
    Participant,
    /// [`Lookup::handle`].
    Lookup,
}

impl GroupMsg {
    /// Who takes it.
    pub fn role(&self) -> Role {
        match self {
            GroupMsg::Prepare { .. }
            | GroupMsg::Commit { .. }
            | GroupMsg::Abort { .. }
            | GroupMsg::Remove { .. } => Role::Participant,
            GroupMsg::Prepared { .. }
            | GroupMsg::Refused { .. }
            | GroupMsg::Committed { .. }
            | GroupMsg::Locate { .. } => Role::Coordinator,
            GroupMsg::Located { .. } => Role::Lookup,
        }
    }
}

/// Why a node does not prepare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has not enough of something, even when empty.
    Infeasible(Infeasible),
    /// It holds [`MAX_HERE`] bundles.
    Full,
    /// It is leaving.
    Draining,
}

/// Why a group cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadGroup {
    /// It has no bundles, or more than [`MAX_BUNDLES`].
    Size {
        /// How many.
        bundles: usize,
    },
    /// This coordinator has [`MAX_GROUPS`].
    TooManyGroups,
    /// A bundle that no node could hold.
    Bundle {
        /// Its place in the group.
        bundle: u32,
        /// What the best node lacks.
        why: Infeasible,
        /// That node; none is known at all if this is `None`.
        best: Option<NodeId>,
    },
    /// No node could hold all bundles at once, as strict packing wants.
    Together {
        /// What the best node lacks.
        why: Infeasible,
        /// That node.
        best: NodeId,
    },
    /// Each bundle could be held by some node, but not all of them by all nodes together.
    Nodes {
        /// How many bundles found a place.
        placed: usize,
        /// Of how many.
        bundles: usize,
        /// Nodes that were looked at.
        nodes: usize,
        /// Each must have a node of its own.
        apart: bool,
    },
}

impl fmt::Display for BadGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |f: &mut fmt::Formatter<'_>, why: &Infeasible| {
            let Infeasible {
                resource,
                requested,
                capacity,
            } = why;
            write!(
                f,
                "{requested} of `{resource}`, but the nearest has {capacity}"
            )
        };
        match self {
            BadGroup::Size { bundles } => {
                write!(
                    f,
                    "a placement group has 1 to {MAX_BUNDLES} bundles, not {bundles}"
                )
            }
            BadGroup::TooManyGroups => {
                write!(
                    f,
                    "this node has made {MAX_GROUPS} placement groups: remove one before making another"
                )
            }
            BadGroup::Bundle {
                bundle,
                why,
                best: None,
            } => {
                let Infeasible {
                    resource,
                    requested,
                    ..
                } = why;
                write!(
                    f,
                    "bundle {bundle} needs {requested} of `{resource}`, but no node is known: start one"
                )
            }
            BadGroup::Bundle {
                bundle,
                why,
                best: Some(best),
            } => {
                write!(f, "bundle {bundle} needs ")?;
                short(f, why)?;
                write!(
                    f,
                    " (node {best}): make it smaller or join a node that has it"
                )
            }
            BadGroup::Together { why, best } => {
                write!(f, "its bundles are to be on one node and need ")?;
                short(f, why)?;
                write!(
                    f,
                    " (node {best}): make them smaller, pack them less strictly, or join a larger node"
                )
            }
            BadGroup::Nodes {
                placed,
                bundles,
                nodes,
                apart,
            } => {
                let how = if *apart {
                    ", each on a node of its own"
                } else {
                    ""
                };
                write!(
                    f,
                    "only {placed} of its {bundles} bundles find room on {nodes} nodes{how}: make it smaller or join more"
                )
            }
        }
    }
}

impl Error for BadGroup {}
