//! The owner's part: as many replicas as were asked for, on nodes that stay.
//!
//! Nodes of other machines go before those of this one; among equals each object has an order of its own, so that replicas spread. A
//! node that declined is asked again after a while, if others do not suffice.
//!
//! Invariant: each node that was asked is told to free what it made, or is dead. Whoever put the object is told once, that it has its
//! replicas or that it cannot. Left out: the owner's own copy.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Effect, Message, Replicas, Short, Why, send};
use crate::base::{NodeId, ObjectKey};

/// After how long nodes that declined are asked again.
const AGAIN: Duration = Duration::from_secs(5);

/// An object of this node with replicas.
#[derive(Debug)]
pub(super) struct Owned {
    len: u64,
    wanted: usize,
    /// Who was asked; true: it has one.
    at: BTreeMap<NodeId, bool>,
    declined: BTreeMap<NodeId, Why>,
    /// Whoever put it was told.
    told: bool,
}

impl Replicas {
    /// An object of this node is to have so many replicas: ends in [`Effect::Kept`] or [`Effect::Short`], unless it is forgotten.
    pub fn put(&mut self, number: u64, len: u64, wanted: usize, out: &mut Vec<Effect>) {
        self.owned.entry(number).or_insert(Owned {
            len,
            wanted,
            at: BTreeMap::new(),
            declined: BTreeMap::new(),
            told: false,
        });
        self.top_up(number, out);
    }

    /// The last reference to it is gone.
    pub fn forget(&mut self, number: u64, out: &mut Vec<Effect>) {
        if let Some(owned) = self.owned.remove(&number) {
            let key = self.own(number);
            for to in owned.at.into_keys() {
                send(out, to, Message::Free { key });
            }
        }
    }

    /// The nodes that have a replica of it.
    pub fn at(&self, number: u64) -> impl Iterator<Item = NodeId> + '_ {
        let at = self.owned.get(&number).into_iter().flat_map(|o| &o.at);
        at.filter(|(_, has)| **has).map(|(node, _)| *node)
    }

    fn own(&self, number: u64) -> ObjectKey {
        let owner = self.me;
        ObjectKey { owner, number }
    }

    pub(super) fn top_up_all(&mut self, out: &mut Vec<Effect>) {
        let numbers: Vec<u64> = self.owned.keys().copied().collect();
        for number in numbers {
            self.top_up(number, out);
        }
    }

    /// Asks for what is missing, frees what is too much.
    fn top_up(&mut self, number: u64, out: &mut Vec<Effect>) {
        let key = self.own(number);
        let Some(owned) = self.owned.get_mut(&number) else {
            return;
        };
        let stays = |node: &NodeId| !self.leaving.contains(node);
        let mut good = owned.at.keys().filter(|node| stays(node)).count();
        if good < owned.wanted {
            let free = self.peers.iter().filter(|(node, _)| {
                stays(node) && !owned.at.contains_key(node) && !owned.declined.contains_key(node)
            });
            let mut free: Vec<_> = free
                .map(|(node, near)| (*near, rank(key, *node), *node))
                .collect();
            free.sort_unstable();
            for (.., node) in free.into_iter().take(owned.wanted - good) {
                owned.at.insert(node, false);
                let len = owned.len;
                send(out, node, Message::Make { key, len });
                good += 1;
            }
        }
        let made = owned.at.iter().filter(|(node, has)| **has && stays(node));
        let made = made.count();
        if made >= owned.wanted {
            // Who leaves is not needed any more.
            let idle: Vec<NodeId> = owned.at.keys().filter(|n| !stays(n)).copied().collect();
            for node in idle {
                owned.at.remove(&node);
                send(out, node, Message::Free { key });
            }
            owned.declined.clear();
            if !std::mem::replace(&mut owned.told, true) {
                out.push(Effect::Kept(number));
            }
        } else if good < owned.wanted && !std::mem::replace(&mut owned.told, true) {
            let short = Short {
                made,
                nodes: self.peers.keys().filter(|node| stays(node)).count(),
                declined: owned.declined.iter().map(|(n, w)| (*n, *w)).collect(),
            };
            out.push(Effect::Short(number, short));
        }
    }

    pub(super) fn on_made(&mut self, from: NodeId, key: ObjectKey, out: &mut Vec<Effect>) {
        let asked = self
            .owned
            .get_mut(&key.number)
            .and_then(|o| o.at.get_mut(&from));
        match asked {
            Some(has) => {
                *has = true;
                self.top_up(key.number, out);
            }
            // It was freed meanwhile, and has been told so: a second word does no harm.
            None => send(out, from, Message::Free { key }),
        }
    }

    pub(super) fn on_declined(
        &mut self,
        from: NodeId,
        key: ObjectKey,
        why: Why,
        out: &mut Vec<Effect>,
    ) {
        let Some(owned) = self.owned.get_mut(&key.number) else {
            return;
        };
        if owned.at.remove(&from).is_some() {
            owned.declined.insert(from, why);
            self.top_up(key.number, out);
        }
    }

    /// A node is dead: others are to have what it had.
    pub(super) fn holder_died(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let its = self.owned.iter_mut().filter_map(|(number, owned)| {
            owned.declined.remove(&node);
            owned.at.remove(&node).map(|_| *number)
        });
        for number in its.collect::<Vec<_>>() {
            self.top_up(number, out);
        }
    }

    /// Asks those again that declined, where others did not suffice.
    pub(super) fn ask_again(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let lacks = |o: &Owned| !o.declined.is_empty() && o.at.len() < o.wanted;
        if !self.owned.values().any(lacks) {
            self.retry = None;
            return;
        }
        if now < *self.retry.get_or_insert(now.saturating_add(AGAIN)) {
            return;
        }
        self.retry = None;
        self.owned
            .values_mut()
            .filter(|o| lacks(o))
            .for_each(|o| o.declined.clear());
        self.top_up_all(out);
    }
}

/// An order of the nodes for each object: every node comes first for its part of them.
fn rank(key: ObjectKey, node: NodeId) -> u64 {
    let mixed = (key.number ^ node.get().rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}
