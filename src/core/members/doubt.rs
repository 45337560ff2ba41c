//! Watching, doubting, and the verdict.
//!
//! Members stand in a ring, by number. Each watches the two behind it: it asks them every
//! [`Pace::watch`](super::Pace) and notes when they last answered. What they say besides does not count: one that
//! speaks but hears nothing is no use to anybody. One that has not answered for too long is doubted: asked again and
//! again, directly and through three others each time. For the first half of the doubt nobody else is told. Then the
//! cluster is, as SWIM has it: the suspected learns of it and refutes by a higher incarnation. Any answer ends the
//! doubt; its end without one is a death. foca's own probes of random members, slower, find those whose watchers died
//! with them; their doubts go the same way.
//!
//! Who heard nobody at all meanwhile is more likely cut off itself, and waits four times as long: by then the others
//! have found it dead, and no longer believe it. Who was stopped lately (see `clock`) doubts longer too.
//!
//! Invariant: nobody is declared dead by one who did not ask it for the whole length of a doubt, of its own
//! uninterrupted time. Left out: deaths that others found, which arrive as news.

use std::time::Duration;

use foca::{Member, State};

use super::frame::Frame;
use super::{Effect, Job, Members, Peer};
use crate::base::NodeId;

/// How many members each watches.
const WATCHED: usize = 2;
/// How many others are asked to ask.
const RELAYS: usize = 3;
/// How often a doubt of one who hears nobody is prolonged.
const PROLONGED: u8 = 3;
/// For how many watches after somebody came a doubt takes longer, and how many times as long.
pub const SETTLING: u32 = 40;
const PATIENT: u32 = 4;
/// The most stalls that are held against oneself.
const UNWELL_MAX: u32 = 4;

/// A doubt, under way.
#[derive(Debug)]
pub struct Doubt {
    id: u64,
    began: Duration,
    length: Duration,
    /// The incarnation in which the cluster was told to suspect it.
    told: Option<u16>,
    prolonged: u8,
}

impl Members {
    /// This process had been stopped.
    pub(super) fn stalled(&mut self) {
        if self.unwell < UNWELL_MAX {
            self.unwell += 1;
            self.clock.after(self.pace.watch * 200, Job::Recover);
        }
    }

    /// It answered: it lives, and it hears.
    pub(super) fn answered(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let now = self.clock.now();
        if let Some(at) = self.watched.get_mut(&node) {
            *at = now;
        }
        self.clear(node, out);
    }

    /// Ends a doubt that was wrong.
    pub(super) fn clear(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        if let Some(doubt) = self.doubts.remove(&node)
            && doubt.told.is_some()
        {
            out.push(Effect::Cleared(node));
        }
    }

    /// Asks those that this node watches, or doubts them.
    pub(super) fn watch(&mut self, out: &mut Vec<Effect>) {
        self.clock.after(self.pace.watch, Job::Watch);
        let now = self.clock.now();
        let me = self.me.node;
        let behind = self.living.range(me..).chain(self.living.range(..me));
        let peers: Vec<Peer> = behind.map(|(_, peer)| *peer).take(WATCHED).collect();
        self.watched
            .retain(|node, _| peers.iter().any(|peer| peer.node == *node));
        for peer in peers {
            let heard = *self.watched.entry(peer.node).or_insert(now);
            if self.doubts.contains_key(&peer.node) {
                continue;
            }
            if now.saturating_sub(heard) > self.pace.silence {
                self.doubt(peer.node, 1, out);
            } else {
                self.ask(peer, peer, None, out);
            }
        }
    }

    fn ask(&self, to: Peer, target: Peer, suspected: Option<u16>, out: &mut Vec<Effect>) {
        let frame = Frame::Ask {
            origin: self.me,
            target,
            suspected,
        };
        self.send(to, &frame, out);
    }

    /// Doubts a member from now on, for the usual time divided by `haste`.
    pub(super) fn doubt(&mut self, node: NodeId, haste: u32, out: &mut Vec<Effect>) {
        if self.doubts.contains_key(&node) || !self.living.contains_key(&node) {
            return;
        }
        self.doubt_serial += 1;
        let id = self.doubt_serial;
        let patience = if self.is_settling() { PATIENT } else { 1 };
        let length = self.pace.doubt * patience * (2 + self.unwell) / 2 / haste;
        let doubt = Doubt {
            id,
            began: self.clock.now(),
            length,
            told: None,
            prolonged: 0,
        };
        self.doubts.insert(node, doubt);
        self.clock.after(length, Job::Judge(node, id));
        self.ask_again(node, id, out);
    }

    /// One round of questions about a member that is doubted.
    pub(super) fn ask_again(&mut self, node: NodeId, id: u64, out: &mut Vec<Effect>) {
        let (Some(doubt), Some(&peer)) = (self.doubts.get(&node), self.living.get(&node)) else {
            return;
        };
        if doubt.id != id {
            return;
        }
        let told = doubt.told;
        if told.is_none() && self.clock.now() >= doubt.began + doubt.length / 2 {
            self.suspect(node, out);
        }
        let told = self.doubts.get(&node).and_then(|doubt| doubt.told);
        self.ask(peer, peer, told, out);
        for relay in self.some(RELAYS, node) {
            self.ask(relay, peer, told, out);
        }
        self.clock.after(self.pace.ask, Job::Ask(node, id));
    }

    /// Tells the cluster that a member may be dead.
    pub(super) fn suspect(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let known = self
            .foca
            .iter_members()
            .find(|member| member.id().node == node);
        let Some(known) = known else { return };
        let (peer, incarnation) = (*known.id(), known.incarnation());
        let Some(doubt) = self.doubts.get_mut(&node) else {
            return;
        };
        if doubt.told.replace(incarnation).is_none() {
            out.push(Effect::Suspected(node));
            let news = Member::new(peer, incarnation, State::Suspect);
            self.apply(news, true, out);
        }
    }

    /// The end of a doubt.
    pub(super) fn judge(&mut self, node: NodeId, id: u64, out: &mut Vec<Effect>) {
        let others = self
            .living
            .keys()
            .any(|other| !self.doubts.contains_key(other));
        let Some(doubt) = self.doubts.get_mut(&node) else {
            return;
        };
        if doubt.id != id {
            return;
        }
        if others && self.heard_any < doubt.began && doubt.prolonged < PROLONGED {
            doubt.prolonged += 1;
            self.clock.after(doubt.length, Job::Judge(node, id));
            return;
        }
        let told = doubt.told;
        self.doubts.remove(&node);
        let known = self
            .foca
            .iter_members()
            .find(|member| member.id().node == node);
        let Some(known) = known else { return };
        let (peer, incarnation) = (*known.id(), known.incarnation());
        if told.is_some_and(|told| incarnation > told) {
            // It refuted, and somebody else passed that on.
            out.push(Effect::Cleared(node));
            return;
        }
        self.apply(Member::new(peer, incarnation, State::Down), true, out);
    }
}
