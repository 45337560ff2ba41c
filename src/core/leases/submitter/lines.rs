//! Calls in line, and how they leave it: into the slots of a lease.
//!
//! Invariant: a queued call is in exactly one line, of its shape or of the node it is bound to; what a lease is counted to
//! need is what is sent, bound to it, or waits with it as the chosen node. Left out: whose slots there are.

use std::time::Duration;

use super::{At, Effect, Lease, Submitter, want};
use crate::base::NodeId;
use crate::core::leases::MAX_SLOTS;

impl Submitter {
    /// Puts a known call in line, asks for slots, and sends what there is room for.
    pub(super) fn queue(&mut self, now: Duration, call: u64, out: &mut Vec<Effect>) {
        let Some(known) = self.calls.get(&call) else {
            return;
        };
        let (id, bound, place, at) = (known.shape, known.bound, known.place, known.at);
        let At::Queued(node) = at else { return };
        let Some(shape) = self.shapes.get_mut(&id) else {
            return;
        };
        if !bound {
            if shape.free.is_empty() {
                shape.moved = now;
            }
            shape.free.insert(place, call);
        }
        let Some(node) = node else { return };
        let next = &mut self.next.1;
        let by_lease = &mut self.by_lease;
        let lease = shape.leases.entry(node).or_insert_with(|| {
            *next = next.wrapping_add(1);
            by_lease.insert((node, *next), id);
            Lease {
                number: *next,
                looked: now,
                ..Lease::default()
            }
        });
        if bound {
            lease.bound.insert(place, call);
        } else {
            lease.hinted += 1;
        }
        self.pump(now, id, node, out);
    }

    /// Takes a queued call out of line.
    pub(super) fn unqueue(&mut self, call: u64) {
        let Some(known) = self.calls.get(&call) else {
            return;
        };
        let At::Queued(node) = known.at else { return };
        let Some(shape) = self.shapes.get_mut(&known.shape) else {
            return;
        };
        if !known.bound {
            shape.free.remove(&known.place);
        }
        if let Some(lease) = node.and_then(|node| shape.leases.get_mut(&node)) {
            if known.bound {
                lease.bound.remove(&known.place);
            } else {
                lease.hinted = lease.hinted.saturating_sub(1);
            }
        }
    }

    /// Takes the first unbound call of a shape out of line.
    pub(super) fn first_free(&mut self, now: Duration, id: u32) -> Option<u64> {
        let shape = self.shapes.get_mut(&id)?;
        let call = *shape.free.first_key_value()?.1;
        shape.moved = now;
        self.unqueue(call);
        Some(call)
    }

    /// Sends to one lease what it has room for, and asks for more slots if it needs them.
    pub(super) fn pump(&mut self, now: Duration, id: u32, node: NodeId, out: &mut Vec<Effect>) {
        loop {
            let Some(shape) = self.shapes.get_mut(&id) else {
                return;
            };
            let Some(lease) = shape.leases.get_mut(&node) else {
                return;
            };
            if !lease.has_room() {
                break;
            }
            let next = match (lease.bound.first_key_value(), shape.free.first_key_value()) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            let Some((_, call)) = next else { break };
            let call = *call;
            if !self.calls.get(&call).is_some_and(|c| c.bound) {
                shape.moved = now;
            }
            self.unqueue(call);
            self.run(now, id, node, call, out);
        }
        self.level(id, node);
        let Some(shape) = self.shapes.get_mut(&id) else {
            return;
        };
        let Some(lease) = shape.leases.get_mut(&node) else {
            return;
        };
        let need = lease.need();
        lease.peak = lease.peak.max(need);
        if need > lease.want && now >= lease.mute {
            // A little more than needed, so that a growing need is not told one by one.
            lease.want = (need + need / 4).min(MAX_SLOTS);
            lease.told = now;
            out.push(want(node, &shape.demand, shape.priority, lease));
        }
    }

    /// Sends one call that is in no line.
    pub(super) fn run(
        &mut self,
        now: Duration,
        id: u32,
        node: NodeId,
        call: u64,
        out: &mut Vec<Effect>,
    ) {
        let lease = self
            .shapes
            .get_mut(&id)
            .and_then(|s| s.leases.get_mut(&node));
        let (Some(lease), Some(known)) = (lease, self.calls.get_mut(&call)) else {
            return;
        };
        let fresh = lease.ahead() < lease.slots;
        lease.sent += 1;
        lease.peak = lease.peak.max(lease.need());
        let number = lease.number;
        known.at = At::Sent {
            to: node,
            lease: number,
            since: now,
            fresh,
        };
        self.sent.entry(node).or_default().insert(call);
        out.push(Effect::Run {
            call,
            node,
            lease: number,
        });
        self.level(id, node);
    }

    /// Keeps the order of the leases with room.
    pub(super) fn level(&mut self, id: u32, node: NodeId) {
        let Some(shape) = self.shapes.get_mut(&id) else {
            return;
        };
        let Some(lease) = shape.leases.get_mut(&node) else {
            return;
        };
        let level = lease
            .has_room()
            .then(|| lease.ahead() * 8 / lease.slots.max(1));
        if level != lease.level {
            if let Some(old) = lease.level {
                shape.roomy.remove(&(old, node));
            }
            if let Some(new) = level {
                shape.roomy.insert((new, node));
            }
            lease.level = level;
        }
    }

    /// A sent call is there no more. Says its shape, where it was, and how it had been sent; it is in no line then.
    pub(super) fn unsend(&mut self, call: u64) -> Option<(u32, NodeId, At)> {
        let known = self.calls.get_mut(&call)?;
        let was = known.at;
        let At::Sent {
            to, lease: number, ..
        } = was
        else {
            return None;
        };
        let id = known.shape;
        if let Some(all) = self.sent.get_mut(&to) {
            all.remove(&call);
            if all.is_empty() {
                self.sent.remove(&to);
            }
        }
        let lease = self.shapes.get_mut(&id).and_then(|s| s.leases.get_mut(&to));
        if let Some(lease) = lease.filter(|lease| lease.number == number) {
            lease.sent -= 1;
        }
        Some((id, to, was))
    }
}
