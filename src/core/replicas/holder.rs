//! The part of whoever has replicas.
//!
//! Invariant: a replica is dropped when its owner says so; after the owner's death when nobody has claimed it for the grace period. At
//! most [`MAKING`] are made at once. Left out: the bytes, which the driver brings.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Effect, MAKING, Message, Replicas, Why, all_of, send};
use crate::base::{NodeId, ObjectKey};

/// A replica here.
#[derive(Debug)]
pub(super) struct Held {
    len: u64,
    phase: Phase,
    /// Nodes with references, that look for it since its owner is dead; this one may be among them.
    claims: BTreeSet<NodeId>,
    orphan: bool,
    /// When it is dropped, if nobody claims it.
    until: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waits,
    Making(u64),
    Whole,
}

impl Held {
    /// Whether its owner lives, which frees it when it has others, or is dead and somebody has references.
    pub fn needed(&self) -> bool {
        !self.orphan || !self.claims.is_empty()
    }

    /// True: nobody claims it any more, and its owner is dead.
    fn unclaim(&mut self, node: NodeId, until: Duration) -> bool {
        let last = self.claims.remove(&node) && self.claims.is_empty() && self.orphan;
        if last {
            self.until = Some(until);
        }
        last
    }

    fn claim(&mut self, node: NodeId) {
        self.claims.insert(node);
        self.until = None;
    }
}

impl Replicas {
    /// This node leaves: it takes no more.
    pub fn leave(&mut self) {
        self.leaves = true;
    }

    /// Whether there is a whole replica here, of how many bytes.
    pub fn has(&self, key: ObjectKey) -> Option<u64> {
        let held = self.held.get(&key).filter(|h| h.phase == Phase::Whole);
        held.map(|h| h.len)
    }

    /// Whether one is being made here: its bytes come from its owner.
    pub fn makes(&self, key: ObjectKey) -> bool {
        let held = self.held.get(&key);
        held.is_some_and(|h| matches!(h.phase, Phase::Making(_)))
    }

    /// Whether this attempt is still wanted.
    pub fn wants(&self, key: ObjectKey, attempt: u64) -> bool {
        let held = self.held.get(&key);
        held.is_some_and(|h| h.phase == Phase::Making(attempt))
    }

    pub(super) fn on_make(&mut self, key: ObjectKey, len: u64, out: &mut Vec<Effect>) {
        if let Some(held) = self.held.get(&key) {
            if held.phase == Phase::Whole {
                send(out, key.owner, Message::Made { key });
            }
            return;
        }
        if self.leaves {
            let why = Why::Leaves;
            return send(out, key.owner, Message::Declined { key, why });
        }
        let held = Held {
            len,
            phase: Phase::Waits,
            claims: BTreeSet::new(),
            orphan: false,
            until: None,
        };
        self.held.insert(key, held);
        self.line.push_back(key);
        self.pump(out);
    }

    fn pump(&mut self, out: &mut Vec<Effect>) {
        while self.making.len() < MAKING
            && let Some(key) = self.line.pop_front()
        {
            let Some(held) = self.held.get_mut(&key) else {
                continue; // freed while it waited
            };
            if held.phase == Phase::Waits {
                self.last += 1;
                let (len, attempt) = (held.len, self.last);
                held.phase = Phase::Making(attempt);
                self.making.insert(attempt, key);
                out.push(Effect::Make { key, len, attempt });
            }
        }
    }

    /// The bytes are here.
    pub fn made(&mut self, key: ObjectKey, attempt: u64, out: &mut Vec<Effect>) {
        self.making.remove(&attempt);
        if let Some(held) = self.held.get_mut(&key)
            && held.phase == Phase::Making(attempt)
        {
            held.phase = Phase::Whole;
            let len = Some(held.len);
            send(out, key.owner, Message::Made { key });
            for &to in held.claims.iter().filter(|to| **to != self.me) {
                send(out, to, Message::Found { key, len });
            }
        }
        self.pump(out);
    }

    /// They did not come.
    pub fn failed(&mut self, key: ObjectKey, attempt: u64, why: Why, out: &mut Vec<Effect>) {
        self.making.remove(&attempt);
        if self.wants(key, attempt) {
            self.give_up(key, out);
            send(out, key.owner, Message::Declined { key, why });
        }
        self.pump(out);
    }

    /// It is here no more, whole or not: who waits for it is told.
    fn give_up(&mut self, key: ObjectKey, out: &mut Vec<Effect>) {
        let Some(held) = self.held.remove(&key) else {
            return;
        };
        self.unclaimed.remove(&key);
        out.push(Effect::Drop(key));
        for to in held.claims {
            if to != self.me {
                send(out, to, Message::Found { key, len: None });
            }
        }
    }

    pub(super) fn on_free(&mut self, key: ObjectKey, out: &mut Vec<Effect>) {
        self.give_up(key, out);
        self.pump(out);
    }

    /// The owner of some is dead: what is whole stays for a while, what is not does not come.
    pub(super) fn owner_died(&mut self, now: Duration, node: NodeId, out: &mut Vec<Effect>) {
        let its: Vec<ObjectKey> = self.held.range(all_of(node)).map(|(key, _)| *key).collect();
        for key in its {
            match self.held.get_mut(&key) {
                Some(held) if held.phase == Phase::Whole => {
                    held.orphan = true;
                    let unclaimed = held.claims.is_empty();
                    if unclaimed {
                        held.until = Some(now.saturating_add(self.grace));
                        self.unclaimed.insert(key);
                    }
                }
                _ => self.give_up(key, out),
            }
        }
        self.pump(out);
    }

    pub(super) fn on_seek(&mut self, from: NodeId, key: ObjectKey, out: &mut Vec<Effect>) {
        let mut len = None;
        if let Some(held) = self.held.get_mut(&key) {
            held.claim(from);
            self.unclaimed.remove(&key);
            if held.phase != Phase::Whole {
                return; // answered when it is whole, or is not to be
            }
            len = Some(held.len);
        }
        send(out, from, Message::Found { key, len });
    }

    /// As [`on_seek`](Self::on_seek), by this node itself: whether there is one here.
    pub(super) fn claim_own(&mut self, key: ObjectKey) -> Option<u64> {
        let me = self.me;
        let held = self
            .held
            .get_mut(&key)
            .filter(|h| h.phase == Phase::Whole)?;
        held.claim(me);
        self.unclaimed.remove(&key);
        Some(held.len)
    }

    pub(super) fn on_quit(&mut self, now: Duration, from: NodeId, key: ObjectKey) {
        let until = now.saturating_add(self.grace);
        if let Some(held) = self.held.get_mut(&key)
            && held.unclaim(from, until)
        {
            self.unclaimed.insert(key);
        }
    }

    pub(super) fn seeker_died(&mut self, now: Duration, node: NodeId) {
        let until = now.saturating_add(self.grace);
        for (key, held) in &mut self.held {
            if held.unclaim(node, until) {
                self.unclaimed.insert(*key);
            }
        }
    }

    pub(super) fn expire(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let due = self.unclaimed.iter().filter(|key| {
            let held = self.held.get(key);
            held.is_some_and(|held| held.until.is_some_and(|at| at <= now))
        });
        let due: Vec<ObjectKey> = due.copied().collect();
        for key in due {
            self.give_up(key, out);
        }
    }
}
