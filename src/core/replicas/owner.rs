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
    /// An object of this node is to have so many replicas: ends in [`Effect::Kept`] or [`Effect::Short`], unless it is forgotten. Too
    /// few nodes are put up with until then, since this one may just have come and not know all.
    pub fn put(
        &mut self,
        until: Duration,
        (number, len): (u64, u64),
        wanted: usize,
        out: &mut Vec<Effect>,
    ) {
        self.hopes.insert(number, until);
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
        self.declined.remove(&number);
        self.hopes.remove(&number);
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
        if made >= owned.wanted || (made == good && good < owned.wanted) {
            // Who leaves is not needed any more, or nobody can take its place.
            let idle: Vec<NodeId> = owned.at.keys().filter(|n| !stays(n)).copied().collect();
            for node in idle {
                owned.at.remove(&node);
                send(out, node, Message::Free { key });
            }
        }
        if made >= owned.wanted {
            owned.declined.clear();
            self.declined.remove(&number);
            self.hopes.remove(&number);
            if !std::mem::replace(&mut owned.told, true) {
                out.push(Effect::Kept(number));
            }
        } else if good < owned.wanted
            && !self.hopes.contains_key(&number)
            && !std::mem::replace(&mut owned.told, true)
        {
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
            self.declined.insert(key.number);
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

    /// Says what has hoped in vain.
    pub(super) fn despair(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let due = self.hopes.iter().filter(|(_, until)| **until <= now);
        for number in due.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.hopes.remove(&number);
            self.top_up(number, out);
        }
    }

    /// Asks those again that declined, where others do not suffice.
    pub(super) fn ask_again(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if self.declined.is_empty() {
            self.retry = None;
        } else if now >= *self.retry.get_or_insert(now.saturating_add(AGAIN)) {
            self.retry = None;
            for number in std::mem::take(&mut self.declined) {
                if let Some(owned) = self.owned.get_mut(&number) {
                    owned.declined.clear();
                    self.top_up(number, out);
                }
            }
        }
    }
}

/// An order of the nodes for each object: every node comes first for its part of them.
fn rank(key: ObjectKey, node: NodeId) -> u64 {
    let mixed = (key.number ^ node.get().rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}
