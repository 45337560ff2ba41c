//! The part of whoever can tell that nobody needs an object's durable copy any more, when its owner is dead.
//!
//! Each node with references says so to all others, as it does to look for replicas, and when it has none. Whoever knew the owner
//! while it lived, and knows of its death, is a *witness*: it hears of all of them, since those who hear of an object later hear of it
//! by one of these.
//!
//! Invariant: a witness says that a copy is unneeded only after a grace period in which no living node that it heard of had references.
//! Left out: copies of living owners, who count references; copies that no living node has heard of.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Effect, Replicas};
use crate::base::{NodeId, ObjectKey};

/// An object with a durable copy, to which some node has, or had, references, and looks for replicas.
#[derive(Debug, Default)]
pub(super) struct Watched {
    claims: BTreeSet<NodeId>,
    /// Since when nobody has any.
    idle: Option<Duration>,
}

impl Replicas {
    /// Whether this node heard of a node before its death: of all claims to what that one owned.
    fn knew(&self, owner: NodeId) -> bool {
        self.peers.contains_key(&owner) || self.dead.contains(&owner)
    }

    /// A node has references; `by`: this one or another.
    pub(super) fn watch(&mut self, key: ObjectKey, by: NodeId) {
        if self.knew(key.owner) {
            let watched = self.watched.entry(key).or_default();
            watched.claims.insert(by);
            watched.idle = None;
        }
    }

    /// A node has none any more.
    pub(super) fn unwatch(&mut self, now: Duration, key: ObjectKey, by: NodeId) {
        if let Some(watched) = self.watched.get_mut(&key)
            && watched.claims.remove(&by)
            && watched.claims.is_empty()
        {
            watched.idle = Some(now);
        }
    }

    /// A node is dead: what it needed it needs no more.
    pub(super) fn watcher_died(&mut self, now: Duration, node: NodeId) {
        let keys: Vec<ObjectKey> = self.watched.keys().copied().collect();
        for key in keys {
            self.unwatch(now, key, node);
        }
    }

    /// Whether this node will say of the object's durable copy that nobody needs it, when that is so.
    pub fn watches(&self, key: ObjectKey) -> bool {
        self.watched.contains_key(&key)
    }

    /// Says what nobody needs. The owner's death is waited for: while it lives the copy is its own.
    pub(super) fn unneeded(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let first = self.peers.keys().all(|peer| self.me < *peer);
        let (dead, grace) = (&self.dead, self.grace);
        let over = |key: &ObjectKey, watched: &Watched| {
            let idle = watched.idle.map(|since| since.saturating_add(grace));
            dead.contains(&key.owner) && idle.is_some_and(|until| until <= now)
        };
        let due = self
            .watched
            .extract_if(.., |key, watched| over(key, watched));
        out.extend(due.map(|(key, _)| Effect::Unneeded { key, first }));
    }
}
