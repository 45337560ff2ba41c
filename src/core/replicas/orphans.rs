//! The part of whoever has references to an object whose owner is dead: it asks all others for replicas.
//!
//! Invariant: an orphan is readable, lost, or there is a living node that has not answered; one that cannot be reached is waited for as
//! long as the grace period. Every pull that asks for a source gets an
//! answer, after the last of those. Left out: references, which the driver counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Effect, Message, Replicas, send};
use crate::base::{NodeId, ObjectKey};

/// An object whose owner is dead, with references here.
#[derive(Debug, Default)]
pub(super) struct Orphan {
    /// Who is to answer; true: it was asked.
    pending: BTreeMap<NodeId, bool>,
    /// Who has one; true: a transfer from there failed.
    at: BTreeMap<NodeId, bool>,
    /// Until when those are waited for that were not asked.
    until: Duration,
    /// A pull that waits for a source.
    ask: Option<u64>,
    /// It was said that it can be read, with so many bytes, or that it is lost.
    said: Option<Said>,
    /// It has a durable copy: these were told that this node has references.
    durable: Option<BTreeSet<NodeId>>,
}

#[derive(Clone, Copy, Debug)]
enum Said {
    Readable(NodeId, u64),
    Lost,
}

impl Said {
    fn effect(self, key: ObjectKey) -> Effect {
        match self {
            Said::Readable(at, len) => Effect::Readable { key, at, len },
            Said::Lost => Effect::Lost(key),
        }
    }
}

impl Replicas {
    /// A reference came that says that its object, of another node, has replicas, or a durable copy.
    pub fn learn(&mut self, key: ObjectKey, durable: bool) {
        if key.owner != self.me {
            *self.known.entry(key).or_default() |= durable;
        }
    }

    /// The last reference here is gone.
    pub fn dropped(&mut self, now: Duration, key: ObjectKey, out: &mut Vec<Effect>) {
        self.known.remove(&key);
        self.unasked.remove(&key);
        let Some(orphan) = self.orphans.remove(&key) else {
            return;
        };
        self.on_quit(now, self.me, key);
        self.unwatch(now, key, self.me);
        let asked = orphan.pending.into_iter().filter(|(_, asked)| *asked);
        let asked = asked.map(|(node, _)| node).chain(orphan.at.into_keys());
        let told: BTreeSet<NodeId> = asked.chain(orphan.durable.into_iter().flatten()).collect();
        for to in told {
            if to != self.me {
                send(out, to, Message::Quit { key });
            }
        }
    }

    /// The owner of an object with replicas is dead, and there are references here. `members`: all other living nodes, connected or not.
    /// Said again, it says again how the object stands, since the references may be others.
    pub fn orphaned(
        &mut self,
        now: Duration,
        key: ObjectKey,
        members: impl IntoIterator<Item = NodeId>,
        out: &mut Vec<Effect>,
    ) {
        if let Some(orphan) = self.orphans.get(&key) {
            return out.extend(orphan.said.map(|said| said.effect(key)));
        }
        let durable = self.known.get(&key) == Some(&true);
        let mut orphan = Orphan {
            until: now.saturating_add(self.grace),
            durable: durable.then(BTreeSet::new),
            ..Orphan::default()
        };
        if durable {
            self.watch(key, self.me);
        }
        if let Some(len) = self.claim_own(key) {
            let at = self.me;
            orphan.at.insert(at, false);
            let said = Said::Readable(at, len);
            orphan.said = Some(said);
            out.push(said.effect(key));
        }
        // Others too, whether there is one here or not: theirs are to stay, since this node may die.
        let connected = self.peers.keys().copied();
        for node in connected.chain(members) {
            if node != self.me && node != key.owner {
                orphan.pending.insert(node, false);
            }
        }
        for (&to, asked) in &mut orphan.pending {
            *asked = self.peers.contains_key(&to);
            if *asked {
                orphan.durable.as_mut().map(|told| told.insert(to));
                send(out, to, Message::Seek { key, durable });
            }
        }
        if orphan.pending.values().any(|asked| !asked) {
            self.unasked.insert(key);
        }
        self.orphans.insert(key, orphan);
        self.conclude(key, out);
    }

    /// Whether the owner's death has made it an orphan.
    pub fn is_orphan(&self, key: ObjectKey) -> bool {
        self.orphans.contains_key(&key)
    }

    /// A pull asks for a source of an orphan; `failed`: the last one did not send the bytes. Answered by [`Effect::Source`].
    pub fn asks(
        &mut self,
        key: ObjectKey,
        ask: u64,
        failed: Option<NodeId>,
        out: &mut Vec<Effect>,
    ) {
        let Some(orphan) = self.orphans.get_mut(&key) else {
            return out.push(Effect::Source {
                key,
                ask,
                from: None,
            });
        };
        if let Some(bad) = failed.and_then(|node| orphan.at.get_mut(&node)) {
            *bad = true;
        }
        orphan.ask = Some(ask);
        self.conclude(key, out);
    }

    /// Answers what can be answered.
    fn conclude(&mut self, key: ObjectKey, out: &mut Vec<Effect>) {
        let Some(orphan) = self.orphans.get_mut(&key) else {
            return;
        };
        if orphan.pending.is_empty() && orphan.at.is_empty() && orphan.said.is_none() {
            orphan.said = Some(Said::Lost);
            out.push(Effect::Lost(key));
        }
        let Some(ask) = orphan.ask else {
            return;
        };
        let good = |orphan: &Orphan| {
            let mut at = orphan.at.iter();
            at.find(|(_, bad)| !**bad).map(|(node, _)| *node)
        };
        let mut from = good(orphan);
        if from.is_none() && orphan.pending.is_empty() {
            // All failed it, perhaps for a moment only. How often it tries is bounded by itself.
            orphan.at.values_mut().for_each(|bad| *bad = false);
            from = good(orphan);
        } else if from.is_none() {
            return;
        }
        orphan.ask = None;
        out.push(Effect::Source { key, ask, from });
    }

    pub(super) fn on_found(
        &mut self,
        from: NodeId,
        key: ObjectKey,
        len: Option<u64>,
        out: &mut Vec<Effect>,
    ) {
        let Some(orphan) = self.orphans.get_mut(&key) else {
            return; // it was told that nobody here needs it
        };
        let asked = orphan.pending.remove(&from).is_some();
        match len {
            Some(len) if asked => {
                orphan.at.insert(from, false);
                if orphan.said.is_none() {
                    let said = Said::Readable(from, len);
                    orphan.said = Some(said);
                    out.push(said.effect(key));
                }
            }
            Some(_) => {}
            // It had one, and gave it up.
            None => drop(orphan.at.remove(&from)),
        }
        self.conclude(key, out);
    }

    /// A node came that may have replicas of orphans.
    pub(super) fn seek_from(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        for (&key, orphan) in &mut self.orphans {
            let asked = orphan.pending.get_mut(&node);
            let asks = asked.is_some_and(|asked| !std::mem::replace(asked, true));
            // Who came later is told too: of its durable copy nobody but those who need it can tell.
            let tells = orphan
                .durable
                .as_mut()
                .is_some_and(|told| node != key.owner && told.insert(node));
            if asks || tells {
                let durable = orphan.durable.is_some();
                send(out, node, Message::Seek { key, durable });
            }
        }
    }

    /// Who cannot be reached for so long is not waited for.
    pub(super) fn give_up_unasked(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let due = self.unasked.iter().copied().filter(|key| {
            let orphan = self.orphans.get(key);
            orphan.is_none_or(|orphan| orphan.until <= now)
        });
        for key in due.collect::<Vec<_>>() {
            self.unasked.remove(&key);
            if let Some(orphan) = self.orphans.get_mut(&key) {
                orphan.pending.retain(|_, asked| *asked);
                self.conclude(key, out);
            }
        }
    }

    pub(super) fn sought_died(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let concerned = self.orphans.iter_mut().filter_map(|(key, orphan)| {
            if let Some(told) = &mut orphan.durable {
                told.remove(&node);
            }
            let pending = orphan.pending.remove(&node).is_some();
            let had = orphan.at.remove(&node).is_some();
            (pending || had).then_some(*key)
        });
        for key in concerned.collect::<Vec<_>>() {
            self.conclude(key, out);
        }
    }
}
