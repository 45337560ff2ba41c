//! What a host sends to its backups, who they are, and the record that says so.
//!
//! A backup is named by the record only once it has all that may have been told; one that is dead is taken out, at once if
//! another is left, else in the same swap that names its successor; if there is no other node, after a while. From the moment a swap is asked for until it is known to
//! be made, those that it names and those that it takes out both count.
//!
//! Invariant: the record names nobody who lacks what was told. Left out: what is told (`host`).

use std::collections::VecDeque;
use std::time::Duration;

use super::{Effect, Host, OwnCalls, Phase};
use crate::base::NodeId;
use crate::core::recovery::{Record, ToBackup, ToHost};

/// Messages that a backup has not answered, at most.
const WINDOW: usize = 4;

/// How far a backup is, in messages sent or answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reach {
    beat: u64,
    order: u64,
    checkpoint: u64,
    round: u64,
}

/// A backup, or one that is to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// It was sent a checkpoint.
    begun: bool,
    beat: u64,
    order: u64,
    checkpoint: u64,
    pub round: u64,
    unanswered: VecDeque<Reach>,
    saved: Option<Reach>,
}

impl<P: Clone> Host<P> {
    /// Who must have written down what is told.
    fn needed(&self) -> impl Iterator<Item = NodeId> {
        let named = self.record.iter().flat_map(|record| &record.backups);
        let next = self.swap.iter().flatten().flat_map(|r| &r.backups);
        named.chain(next).copied()
    }

    fn could(&self, node: NodeId) -> bool {
        self.nodes.contains(&node) && !self.declined.contains(&node)
    }

    /// Up to which call, and to which round, all is written down and confirmed; `None`: nothing may be told now.
    pub(super) fn watermark(&self) -> Option<(u64, u64)> {
        // Backups that look for the first record before it is made find that there is no such actor.
        if self.record.is_none() && self.swap.is_some() {
            return None;
        }
        let mut all = (self.order, u64::MAX);
        let mut alone = true;
        for node in self.needed() {
            alone = false;
            let saved = self.backups.get(&node).and_then(|backup| backup.saved)?;
            all = (all.0.min(saved.order), all.1.min(saved.round));
        }
        if !alone {
            return Some(all);
        }
        let nobody = self.limits.replicas == 0 || !self.nodes.iter().any(|n| self.could(*n));
        nobody.then_some(all)
    }

    /// The checkpoint that every backup has.
    pub(super) fn kept_everywhere(&self) -> u64 {
        let saved = |node| self.backups.get(&node).and_then(|backup| backup.saved);
        let kept = |node| saved(node).map_or(0, |saved| saved.checkpoint);
        self.needed().map(kept).min().unwrap_or(u64::MAX)
    }

    pub(super) fn nodes(&mut self, nodes: Vec<NodeId>, out: &mut Vec<Effect<P>>) {
        self.nodes = nodes;
        let me = self.at.host;
        self.nodes.retain(|node| *node != me);
        self.declined.retain(|node| self.nodes.contains(node));
        let mut gone: Vec<NodeId> = self.backups.keys().copied().collect();
        gone.retain(|node| !self.could(*node));
        for node in gone {
            self.let_go(node, out);
        }
    }

    fn let_go(&mut self, node: NodeId, out: &mut Vec<Effect<P>>) {
        if self.backups.remove(&node).is_some() && self.nodes.contains(&node) {
            self.forget(node, out);
        }
    }

    fn forget(&self, to: NodeId, out: &mut Vec<Effect<P>>) {
        let incarnation = self.incarnation;
        let message = ToBackup::Forget { incarnation };
        out.push(Effect::Send { to, message });
    }

    pub(super) fn message(&mut self, from: NodeId, message: ToHost, out: &mut Vec<Effect<P>>) {
        match message {
            ToHost::Saved { incarnation, beat } if incarnation == self.incarnation => {
                let Some(backup) = self.backups.get_mut(&from) else {
                    return;
                };
                let answered = |reach: &mut Reach| reach.beat <= beat;
                while let Some(reach) = backup.unanswered.pop_front_if(answered) {
                    backup.saved = Some(reach);
                }
            }
            ToHost::Refused { incarnation } if incarnation > self.incarnation => {
                self.fence(Some(incarnation), out);
            }
            // What it has is kept until the record names it no more.
            ToHost::Declined { incarnation }
                if incarnation == self.incarnation && self.backups.contains_key(&from) =>
            {
                self.backups.remove(&from);
                self.declined.insert(from);
            }
            _ => {}
        }
    }

    fn fence(&mut self, incarnation: Option<u64>, out: &mut Vec<Effect<P>>) {
        self.phase = Phase::Over;
        self.waiting.clear();
        self.own = OwnCalls::default();
        self.seen.clear();
        for &to in self.backups.keys() {
            let message = ToBackup::Look {
                incarnation: self.incarnation,
            };
            out.push(Effect::Send { to, message });
        }
        out.push(Effect::Fenced { incarnation });
    }

    pub(super) fn swapped(&mut self, out: &mut Vec<Effect<P>>) {
        let Some(record) = self.swap.take() else {
            return;
        };
        let before = std::mem::replace(&mut self.record, record);
        if self.record.is_none() {
            return self.closed(out);
        }
        // Those that declined and are named no more need not keep what they have.
        for node in before.into_iter().flat_map(|record| record.backups) {
            if self.nodes.contains(&node) && !self.backups.contains_key(&node) {
                self.forget(node, out);
            }
        }
        if self.phase == Phase::Closing {
            self.erase(out);
        }
    }

    pub(super) fn differs(&mut self, record: Option<Record>, out: &mut Vec<Effect<P>>) {
        if self.swap.take().is_none() {
            return;
        }
        match record {
            // An answer was lost, or somebody wrote on this host's behalf.
            Some(record) if record.incarnation == self.incarnation && record.at == self.at => {
                self.record = Some(record);
                if self.phase == Phase::Closing {
                    self.erase(out);
                }
            }
            None if self.phase == Phase::Closing => self.closed(out),
            other => self.fence(other.map(|record| record.incarnation), out),
        }
    }

    pub(super) fn close(&mut self, out: &mut Vec<Effect<P>>) {
        self.phase = Phase::Closing;
        if self.swap.is_none() {
            self.erase(out);
        }
    }

    /// The record is gone. Backups keep what they have until then: this node may die before.
    fn closed(&mut self, out: &mut Vec<Effect<P>>) {
        self.phase = Phase::Over;
        let backups: Vec<NodeId> = self.backups.keys().copied().collect();
        for node in backups {
            self.let_go(node, out);
        }
        out.push(Effect::Closed);
    }

    fn erase(&mut self, out: &mut Vec<Effect<P>>) {
        if self.record.is_none() {
            return self.closed(out);
        }
        self.swap = Some(None);
        out.push(Effect::Swap {
            expect: self.record.clone(),
            record: None,
        });
    }

    /// Looks for backups, and has the record changed if others are to be named.
    pub(super) fn arrange(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        let has = |host: &Host<P>, node: &NodeId| host.backups.contains_key(node);
        while self.backups.len() < self.limits.replicas {
            let mut free = self.nodes.iter().copied();
            let Some(next) = free.find(|node| self.could(*node) && !has(self, node)) else {
                break;
            };
            self.backups.insert(next, Standing::default());
        }
        if self.swap.is_some() {
            return;
        }
        let named: &[NodeId] = self.record.as_ref().map_or(&[], |record| &record.backups);
        let mut next: Vec<NodeId> = named.to_vec();
        next.retain(|node| has(self, node));
        for (&node, backup) in &self.backups {
            let has_all = backup.saved.is_some_and(|saved| saved.order >= self.told);
            if has_all && !next.contains(&node) && next.len() < self.limits.replicas {
                next.push(node);
            }
        }
        // The last copy stays named until another is.
        let hopeful = next.is_empty() && !self.backups.is_empty();
        if next == named || hopeful {
            self.lonely = None;
            return;
        }
        if next.is_empty() {
            let since = *self.lonely.get_or_insert(now);
            if now < since + self.limits.alone {
                return;
            }
        }
        self.lonely = None;
        let version = self.record.as_ref().map_or(0, |record| record.version);
        let record = Record {
            actor: self.actor,
            incarnation: self.incarnation,
            version: version + 1,
            at: self.at,
            backups: next,
        };
        self.swap = Some(Some(record.clone()));
        out.push(Effect::Swap {
            expect: self.record.clone(),
            record: Some(record),
        });
    }

    /// Sends each backup what it lacks.
    pub(super) fn pump(&mut self, out: &mut Vec<Effect<P>>) {
        let checkpoint = &self.history.checkpoint;
        let entries = &self.history.entries;
        for (&to, backup) in &mut self.backups {
            let behind = backup.order < self.order || backup.round < self.round;
            let newer = !backup.begun || backup.checkpoint < checkpoint.order;
            if backup.unanswered.len() >= WINDOW || !(behind || newer) {
                continue;
            }
            // The more is under way, the more goes with the next: each message wakes threads on both sides.
            let answered = backup.saved.map_or(0, |saved| saved.order);
            let (on_the_way, waits) = (backup.order - answered, self.order - backup.order);
            if !backup.unanswered.is_empty() && !newer && waits < on_the_way {
                continue;
            }
            // What it was sent before stays there, above the checkpoint.
            let from = backup.order.max(checkpoint.order);
            let skip = (from - checkpoint.order) as usize;
            backup.begun = true;
            backup.beat += 1;
            (backup.order, backup.round) = (self.order, self.round);
            backup.checkpoint = checkpoint.order;
            backup.unanswered.push_back(Reach {
                beat: backup.beat,
                order: backup.order,
                checkpoint: backup.checkpoint,
                round: backup.round,
            });
            let message = ToBackup::Save {
                incarnation: self.incarnation,
                beat: backup.beat,
                checkpoint: newer.then(|| checkpoint.clone()),
                entries: entries.iter().skip(skip).cloned().collect(),
            };
            out.push(Effect::Send { to, message });
        }
    }

    /// The backups that the record names.
    pub fn named(&self) -> &[NodeId] {
        self.record.as_ref().map_or(&[], |record| &record.backups)
    }
}
