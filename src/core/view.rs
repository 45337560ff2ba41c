//! What this node knows of the others: what each has, what is free, how long its line is.
//!
//! Each node tells of itself, with a version that it counts up; the news travel with the gossip of membership and come
//! late, twice or not at all. So a view is a guess, good for choosing; the node chosen has the last word. Between two
//! news of a node, what this node sent there since is taken off what was free, so that it does not send everything to
//! the one node that looked idle.
//!
//! Invariant: a newer version replaces an older, never the other way; who was removed does not come back (a process never
//! returns under its number). At most [`MAX_NODES`] nodes, [`MAX_GONE`] removed ones, and [`MAX_BYTES`] bytes of each.
//! Left out: gossip, and deciding who is dead, which membership does.

mod codec;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::amounts;
use crate::base::{Capacity, Demand, NodeId};
pub use codec::{BadView, MAX_BYTES, MAX_NAMES, MAX_TEXT, decode, encode};

/// Nodes that a view holds; further ones are not taken in.
pub const MAX_NODES: usize = 16_384;
/// Removed nodes that are remembered, so that late news do not bring them back; the oldest is forgotten first.
pub const MAX_GONE: usize = 4_096;

/// What a node tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// What it has.
    pub capacity: Capacity,
    /// What of that is free.
    pub free: Demand,
    /// What it is called, for strategies.
    pub labels: BTreeMap<String, String>,
    /// Common calls that wait there.
    pub queued: u32,
    /// Counts up with everything it tells.
    pub version: u64,
    /// When this was told, by the clock of who was told. Does not travel.
    pub seen: Duration,
    /// It is leaving and takes nothing new.
    pub draining: bool,
}

impl NodeView {
    /// An idle node.
    pub fn idle(capacity: Capacity) -> NodeView {
        NodeView {
            free: amounts::whole(&capacity),
            capacity,
            ..NodeView::default()
        }
    }
}

/// A node as this node sees it: what it told, and what this node did since.
#[derive(Clone, Debug)]
pub struct Known {
    /// What it told; `free` is less by what was sent there since.
    pub view: NodeView,
    /// Calls of this node there that have not ended.
    pub outstanding: u32,
    /// Calls sent there since it told anything: it may not have counted them yet.
    pub unseen: u32,
    /// Counts up over all nodes; when a call was last sent there.
    pub turn: u64,
}

/// What came of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// The node was not known.
    New,
    /// It is newer than what was known.
    Newer,
    /// It is not.
    Old,
    /// The node was removed.
    Gone,
    /// [`MAX_NODES`] are known already.
    Full,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct View {
    nodes: BTreeMap<NodeId, Known>,
    gone: BTreeSet<NodeId>,
    gone_in_order: VecDeque<NodeId>,
    turns: u64,
}

impl View {
    /// Knows nobody.
    pub fn new() -> View {
        View::default()
    }

    /// A node told something of itself, perhaps through others.
    pub fn merge(&mut self, node: NodeId, news: NodeView) -> Merged {
        if self.gone.contains(&node) {
            return Merged::Gone;
        }
        if let Some(known) = self.nodes.get_mut(&node) {
            if news.version <= known.view.version {
                return Merged::Old;
            }
            known.view = news;
            known.unseen = 0;
            return Merged::Newer;
        }
        if self.nodes.len() == MAX_NODES {
            return Merged::Full;
        }
        let known = Known {
            view: news,
            outstanding: 0,
            unseen: 0,
            turn: 0,
        };
        self.nodes.insert(node, known);
        Merged::New
    }

    /// This node is busier or idler than it was, or another that answered at first hand: without a new version, so that
    /// the next news of it count all the same.
    pub fn adjust(&mut self, node: NodeId, free: Demand, queued: u32) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.view.free = free;
            known.view.queued = queued;
            known.unseen = 0;
        }
    }

    /// The node is dead or has left. False if it was not known; it stays out in either case.
    pub fn remove(&mut self, node: NodeId) -> bool {
        if self.gone.insert(node) {
            self.gone_in_order.push_back(node);
            if self.gone_in_order.len() > MAX_GONE
                && let Some(oldest) = self.gone_in_order.pop_front()
            {
                self.gone.remove(&oldest);
            }
        }
        self.nodes.remove(&node).is_some()
    }

    /// A call was sent there: what it takes is no longer free.
    pub fn sent(&mut self, node: NodeId, demand: &Demand) {
        self.took(node, demand);
        if let Some(known) = self.nodes.get_mut(&node) {
            known.outstanding = known.outstanding.saturating_add(1);
        }
    }

    /// An actor is made there: it had its turn, but is no call that ends.
    pub fn took(&mut self, node: NodeId, demand: &Demand) {
        if let Some(known) = self.nodes.get_mut(&node) {
            self.turns += 1;
            known.turn = self.turns;
            known.unseen = known.unseen.saturating_add(1);
            amounts::subtract(&mut known.view.free, demand);
        }
    }

    /// A call that was sent there ended.
    pub fn ended(&mut self, node: NodeId) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.outstanding = known.outstanding.saturating_sub(1);
        }
    }

    /// What is known of a node.
    pub fn get(&self, node: NodeId) -> Option<&Known> {
        self.nodes.get(&node)
    }

    /// Whether the node was removed, as far as that is remembered.
    pub fn is_gone(&self, node: NodeId) -> bool {
        self.gone.contains(&node)
    }

    /// All nodes, by id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Known)> {
        self.nodes.iter().map(|(node, known)| (*node, known))
    }

    /// The nodes that have told nothing for longer than `after`, by id.
    pub fn stale(&self, now: Duration, after: Duration) -> impl Iterator<Item = NodeId> {
        self.iter()
            .filter(move |(_, known)| now.saturating_sub(known.view.seen) > after)
            .map(|(node, _)| node)
    }

    /// How many nodes are known.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no node is known.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}
