//! An object of this node that others know: who borrows it, how it stands, where it is; and what the owner does about
//! each message on it.
//!
//! Invariant: it is kept while there is a borrower, a pull, or a copy on another node; and while it is lost, until the driver
//! has decided. Left out: its value.

use std::collections::BTreeMap;

use super::copies::Copies;
use super::{Effect, MAX_HINTS, Message, Owners, RefState, Stand, answer, send};
use crate::base::{NodeId, ObjectKey};

/// How it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Pending,
    Ready(u64),
    /// It had a value, and the driver decides what becomes of it.
    Lost(u64),
    Failed,
}

/// What an owner keeps of an object.
#[derive(Debug, Default)]
pub struct Owned {
    /// How many references each was sent, and has not given back.
    pub borrowers: BTreeMap<NodeId, u64>,
    pub copies: Copies,
    phase: Phase,
}

impl Owned {
    /// What borrowers are told.
    pub fn state(&self) -> RefState {
        match self.phase {
            Phase::Pending => RefState::Pending,
            // To be made anew, or to fail.
            Phase::Ready(len) | Phase::Lost(len) => RefState::Ready {
                len,
                at: self.copies.nodes().take(MAX_HINTS).collect(),
            },
            Phase::Failed => RefState::Failed,
        }
    }

    /// Takes in how it stands, and tells the borrowers what is news to them. What failed stays so.
    pub fn settle(&mut self, key: ObjectKey, stand: Stand, out: &mut Vec<Effect>) {
        let before = self.phase;
        match (before, stand) {
            (Phase::Failed, Stand::Ready { at, .. }) if at != key.owner => {
                send(out, at, Message::Free { key });
            }
            (Phase::Failed, _) | (_, Stand::Pending) | (Phase::Ready(_), Stand::Failed) => {}
            (_, Stand::Ready { len, at }) => {
                self.phase = Phase::Ready(len);
                self.copies.add(at);
            }
            (_, Stand::Failed) => self.phase = Phase::Failed,
        }
        let news = self.phase == Phase::Failed || before == Phase::Pending;
        if self.phase != before && news {
            let state = self.state();
            for &to in self.borrowers.keys() {
                let state = state.clone();
                send(out, to, Message::Settled { key, state });
            }
        }
    }

    /// A copy is on this node, which had not been told of or was under way.
    pub fn hold(&mut self, node: NodeId) {
        if let Phase::Ready(len) | Phase::Lost(len) = self.phase {
            self.phase = Phase::Ready(len);
            self.copies.add(node);
        }
    }

    /// Whether its copies are all gone just now.
    fn loses(&mut self) -> bool {
        match self.phase {
            Phase::Ready(len) if self.copies.none_left() => {
                self.phase = Phase::Lost(len);
                true
            }
            _ => false,
        }
    }

    /// Whether it has not settled.
    pub fn pending(&self) -> bool {
        self.phase == Phase::Pending
    }

    /// Whether its copies are gone, and the driver decides what becomes of it.
    pub fn lost(&self) -> bool {
        matches!(self.phase, Phase::Lost(_))
    }

    /// Whether it failed.
    pub fn failed(&self) -> bool {
        self.phase == Phase::Failed
    }
}

impl Owners {
    /// After a change: sees to those in line, to a lost object, and to one that nobody else knows any more.
    pub(super) fn tidy(&mut self, number: u64, out: &mut Vec<Effect>) {
        let Some(owned) = self.owned.get_mut(&number) else {
            return;
        };
        let key = ObjectKey {
            owner: self.me,
            number,
        };
        let mut answers = Vec::new();
        if owned.failed() {
            owned.copies.refuse(&mut self.loads, &mut answers);
        } else {
            owned.copies.dispatch(&mut self.loads, &mut answers);
        }
        answer(key, answers, out);
        if owned.loses() {
            out.push(Effect::Lost(key));
        } else if owned.borrowers.is_empty() && owned.copies.only_at(self.me) && !owned.lost() {
            self.owned.remove(&number);
        }
    }

    /// The copy on `node` is no more.
    pub(super) fn drop_copy(&mut self, node: NodeId, number: u64, out: &mut Vec<Effect>) {
        let Some(owned) = self.owned.get_mut(&number) else {
            return;
        };
        if owned.copies.remove(node)
            && let Some(to) = owned.copies.keep_another(self.me)
            && to != self.me
        {
            let key = ObjectKey {
                owner: self.me,
                number,
            };
            send(out, to, Message::Pin { key });
        }
        self.tidy(number, out);
    }

    /// A borrower gives references back.
    pub(super) fn unborrow(
        &mut self,
        node: NodeId,
        number: u64,
        received: u64,
        out: &mut Vec<Effect>,
    ) {
        let Some(owned) = self.owned.get_mut(&number) else {
            return;
        };
        let Some(sent) = owned.borrowers.get_mut(&node) else {
            return;
        };
        *sent = sent.saturating_sub(received);
        let last = *sent == 0;
        if last {
            owned.borrowers.remove(&node);
        }
        let free = owned.borrowers.is_empty();
        // It pulls no more, and has dropped its copy, unless that was to be kept.
        owned.copies.end(node, &mut self.loads);
        if owned.copies.kept() == Some(node) {
            self.tidy(number, out);
        } else {
            self.drop_copy(node, number, out);
        }
        if free {
            let owner = self.me;
            out.push(Effect::Let(ObjectKey { owner, number }));
        }
    }

    pub(super) fn on_release(
        &mut self,
        from: NodeId,
        key: ObjectKey,
        received: u64,
        out: &mut Vec<Effect>,
    ) {
        // Unknown: it was told that the object is gone.
        let Some(owned) = self.owned.get(&key.number) else {
            return;
        };
        let sent = owned.borrowers.get(&from).copied().unwrap_or(0);
        if received == 0 || received > sent {
            out.push(Effect::Misbehaves(from));
        } else {
            self.unborrow(from, key.number, received, out);
        }
    }

    pub(super) fn on_borrow(
        &mut self,
        borrower: NodeId,
        key: ObjectKey,
        from: NodeId,
        transit: u64,
        out: &mut Vec<Effect>,
    ) {
        // A borrower that names itself found the object by a name, and nobody gave it a reference.
        if borrower == self.me || from == self.me {
            out.push(Effect::Misbehaves(borrower));
            return;
        }
        let new = !self.owned.contains_key(&key.number);
        let owned = self.owned.entry(key.number).or_default();
        let first = owned.borrowers.is_empty();
        *owned.borrowers.entry(borrower).or_insert(0) += 1;
        let state = owned.state();
        send(
            out,
            borrower,
            Message::Borrowed {
                key,
                from,
                transit,
                state,
            },
        );
        if new {
            // Nobody was known to borrow it: the giver is dead for longer than the grace period, or lies.
            out.push(Effect::Find(key));
        } else if first {
            out.push(Effect::Keep(key));
        }
    }

    pub(super) fn on_copy(&mut self, from: NodeId, key: ObjectKey, out: &mut Vec<Effect>) {
        let Some(owned) = self.owned.get_mut(&key.number) else {
            return;
        };
        if from != self.me && !owned.borrowers.contains_key(&from) {
            out.push(Effect::Misbehaves(from));
            return;
        }
        owned.copies.end(from, &mut self.loads);
        match owned.phase {
            // It was lost but for this copy, which was under way.
            Phase::Ready(_) | Phase::Lost(_) => {
                let kept = owned.copies.kept();
                owned.hold(from);
                // The one that was kept was lost meanwhile: this one is now.
                if kept.is_none() && from != self.me {
                    send(out, from, Message::Pin { key });
                }
            }
            Phase::Pending if from != self.me => out.push(Effect::Misbehaves(from)),
            Phase::Pending | Phase::Failed => {}
        }
        self.tidy(key.number, out);
    }

    pub(super) fn on_copy_gone(&mut self, from: NodeId, key: ObjectKey, out: &mut Vec<Effect>) {
        self.drop_copy(from, key.number, out);
    }

    pub(super) fn on_where(
        &mut self,
        from: NodeId,
        key: ObjectKey,
        ask: u64,
        failed: Option<NodeId>,
        out: &mut Vec<Effect>,
    ) {
        let nobody = vec![super::Answer {
            to: from,
            ask,
            from: None,
        }];
        let Some(owned) = self.owned.get_mut(&key.number) else {
            return answer(key, nobody, out);
        };
        if from != self.me && !owned.borrowers.contains_key(&from) {
            answer(key, nobody, out);
            out.push(Effect::Misbehaves(from));
            return;
        }
        owned.copies.ask(from, ask, failed, &mut self.loads);
        // Who asks has none.
        self.drop_copy(from, key.number, out);
    }

    pub(super) fn on_stop(&mut self, from: NodeId, key: ObjectKey, out: &mut Vec<Effect>) {
        if let Some(owned) = self.owned.get_mut(&key.number) {
            owned.copies.end(from, &mut self.loads);
            self.tidy(key.number, out);
        }
    }
}
