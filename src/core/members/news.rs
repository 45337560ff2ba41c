//! What members learn of each other besides life and death: views, and who else there is.
//!
//! Invariant: a member sends at most four datagrams of views every [`Pace::gossip`](super::Pace), however many there
//! are, and one in answer to a question. Left out: SWIM's own news, which foca spreads.

use std::ops::Bound;
use std::time::Duration;

use foca::{Member, State};

use super::frame::{self, Frame, PAGE_HEADER, PAGE_MAX, PEER_LEN};
use super::pace::transmissions;
use super::views::{Duty, Item};
use super::{DATAGRAM_MAX, Effect, Job, Members, Peer};
use crate::base::NodeId;

/// How many are told at once.
const FANOUT: usize = 4;
/// How often a view is passed on by each who learns it. A missed one is made up for by the next.
const SENDS: u8 = 4;
/// A member's view goes out at most this often, for each member that there is: what the cluster tells a second stays
/// the same.
const SPACING: Duration = Duration::from_millis(4);

impl Members {
    /// Passes views on.
    pub(super) fn gossip(&mut self, out: &mut Vec<Effect>) {
        self.clock.after(self.pace.gossip, Job::Gossip);
        let now = self.clock.now();
        if (self.own_changed && now >= self.tell_from) || now >= self.retell_at {
            self.tell_now();
        }
        let fan = self.some(FANOUT, self.me.node);
        for peer in fan {
            if !self.views.pending() {
                break;
            }
            let mut bytes = frame::write(&Frame::Views);
            self.views.fill(&mut bytes);
            out.push(Effect::Send { to: peer, bytes });
        }
    }

    /// Puts this node's own view among those to be passed on.
    pub(super) fn tell_now(&mut self) {
        let now = self.clock.now();
        let members = self.living.len();
        let spacing = (SPACING * members as u32).max(self.pace.gossip);
        self.own_changed = false;
        self.tell_from = now + spacing;
        // A new member is new to many when it first speaks: it repeats itself soon, then rarely.
        self.retell_at = now + self.pace.gossip * 10 * self.retold + spacing * 2;
        self.retold = (self.retold * 2).min(16);
        self.version += 1;
        let sends = if self.duty == Duty::Serving {
            SENDS
        } else {
            transmissions(members)
        };
        let item = Item {
            node: self.me.node,
            version: self.version,
            duty: self.duty,
            bytes: &self.own,
        };
        self.views.take(&item, sends);
    }

    /// Takes views that came with a datagram.
    pub(super) fn take_views(&mut self, items: &[Item<'_>], out: &mut Vec<Effect>) {
        for item in items {
            if item.node == self.me.node || !self.living.contains_key(&item.node) {
                continue;
            }
            let turned = self.views.duty(item.node) < item.duty;
            let sends = if turned {
                transmissions(self.living.len())
            } else {
                SENDS
            };
            if self.views.take(item, sends) {
                out.push(Effect::View {
                    node: item.node,
                    duty: self.views.duty(item.node),
                    bytes: item.bytes.to_vec(),
                });
            }
        }
    }

    /// Asks a random member whom it knows, in case news was missed.
    pub(super) fn pull(&mut self, out: &mut Vec<Effect>) {
        // Often at first, when many may come at once, and each time for all that somebody knows.
        self.syncing |= self.pulls < 20;
        self.pulls = (self.pulls * 2).min(20);
        self.clock.after(self.pace.gossip * self.pulls, Job::Pull);
        if let Some(&peer) = self.some(1, self.me.node).first() {
            self.send(peer, &Frame::Pull { from: self.cursor }, out);
        }
    }

    /// Answers whom this node knows, and what they say of themselves: as much as one datagram holds.
    pub(super) fn page(&self, to: Peer, from: u64, out: &mut Vec<Effect>) {
        let start = NodeId::new(from).unwrap_or(NodeId::NONE);
        let me = (self.me.node >= start).then_some((&self.me.node, &self.me));
        let behind = self
            .living
            .range((Bound::Excluded(self.me.node.max(start)), Bound::Unbounded));
        let before = self.living.range(start..self.me.node.max(start));
        let mut members: Vec<Peer> = Vec::with_capacity(PAGE_MAX);
        let mut views = Vec::new();
        let mut last = true;
        for (_, peer) in before.chain(me).chain(behind) {
            if peer.node == to.node {
                continue;
            }
            let len = views.len();
            if let Some((version, duty, bytes)) = self.views.get(peer.node) {
                frame::put_view(
                    &mut views,
                    &Item {
                        node: peer.node,
                        version,
                        duty,
                        bytes,
                    },
                );
            }
            let page = PAGE_HEADER + (members.len() + 1) * PEER_LEN;
            if members.len() == PAGE_MAX || page + views.len() > DATAGRAM_MAX {
                views.truncate(len);
                last = false;
                break;
            }
            members.push(*peer);
        }
        let mut bytes = frame::write(&Frame::Page { members, last });
        bytes.extend_from_slice(&views);
        out.push(Effect::Send { to, bytes });
    }

    /// Learns whom another knows.
    pub(super) fn learn(
        &mut self,
        from: Peer,
        members: &[Peer],
        last: bool,
        out: &mut Vec<Effect>,
    ) {
        for peer in members {
            if self.is_new(peer.node) && self.has_room() {
                self.apply(Member::new(*peer, 0, State::Alive), false, out);
            }
        }
        let next = members
            .last()
            .map_or(0, |peer| peer.node.get().wrapping_add(1));
        self.cursor = if last { 0 } else { next };
        self.syncing &= !last;
        if self.syncing && next > 0 {
            self.send(from, &Frame::Pull { from: next }, out);
        }
    }

    /// Looks for one that was lost: the partition may have healed.
    pub(super) fn knock(&mut self, out: &mut Vec<Effect>) {
        self.clock.after(self.pace.gossip * 20, Job::Knock);
        let n = self.chance.below(1 << 16);
        if let Some(peer) = self.graves.sought(self.clock.now(), n) {
            self.send(peer, &Frame::Knock, out);
        }
    }
}
