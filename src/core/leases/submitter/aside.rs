//! Calls that come back: refused, without a lease, or waiting for too long.
//!
//! Invariant: a call that comes back keeps its place in line, or is handed back and no longer here. Left out: calls that
//! were sent and may have run, which only the death of their node ends.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{At, BATCH, Effect, Known, Lease, MAX_REFUSALS, PATIENCE, Submitter};
use crate::base::NodeId;
use crate::core::leases::{BACKOFF, Ending, MAX_SLOTS};

impl Submitter {
    pub(super) fn refused(
        &mut self,
        now: Duration,
        from: NodeId,
        number: u32,
        slots: u32,
        calls: &[u64],
        out: &mut Vec<Effect>,
    ) {
        if let Some((_, lease)) = self.lease(from, number)
            && now >= lease.mute
        {
            lease.slots = slots.min(MAX_SLOTS);
            lease.refusals += 1;
            if lease.refusals > MAX_REFUSALS {
                // It says that it has slots, and runs nothing.
                lease.slots = 0;
                lease.want = 0;
                lease.refusals = 0;
                lease.mute = now + BACKOFF;
            }
        }
        let mut shapes = BTreeSet::new();
        for call in calls {
            let theirs = |known: &Known| matches!(known.at, At::Sent { to, lease, .. } if to == from && lease == number);
            if !self.calls.get(call).is_some_and(theirs) {
                continue;
            }
            let Some((id, node, _)) = self.unsend(*call) else {
                continue;
            };
            if let Some(known) = self.calls.get_mut(call) {
                known.at = At::Queued(Some(node));
            }
            self.queue(now, *call, out);
            shapes.insert(id);
        }
        for id in shapes {
            self.pump_all(now, id, out);
        }
        if let Some((id, _)) = self.lease(from, number) {
            self.level(id, from);
        }
    }

    /// Unbound calls came back: whoever has room takes them.
    fn pump_all(&mut self, now: Duration, id: u32, out: &mut Vec<Effect>) {
        while let Some(shape) = self.shapes.get(&id)
            && !shape.free.is_empty()
            && let Some((_, node)) = shape.roomy.first().copied()
        {
            let before = shape.free.len();
            self.pump(now, id, node, out);
            if self.shapes.get(&id).is_none_or(|s| s.free.len() == before) {
                break;
            }
        }
    }

    pub(super) fn lease_ended(
        &mut self,
        now: Duration,
        from: NodeId,
        number: u32,
        why: &Ending,
        out: &mut Vec<Effect>,
    ) {
        let Some((id, lease)) = self.lease(from, number) else {
            return;
        };
        let wait = match why {
            Ending::Lapsed => Duration::ZERO,
            Ending::Full | Ending::Draining | Ending::Infeasible(_) => BACKOFF,
        };
        // A lease of another number takes its place; what was sent under the old one still comes to an end.
        let old = std::mem::take(lease);
        let renewed = Lease {
            bound: old.bound,
            hinted: old.hinted,
            pace: old.pace,
            looked: now,
            mute: now + wait,
            level: old.level,
            ..Lease::default()
        };
        *lease = renewed;
        self.next.1 = self.next.1.wrapping_add(1);
        let next = self.next.1;
        self.by_lease.remove(&(from, number));
        self.by_lease.insert((from, next), id);
        if let Some((_, lease)) = self.lease(from, next) {
            lease.number = next;
        }
        self.level(id, from);
        match why {
            Ending::Lapsed | Ending::Full => self.pump(now, id, from, out),
            Ending::Draining | Ending::Infeasible(_) => self.hand_back_all(id, from, out),
        }
        self.tidy(id);
    }

    /// Hands back what was to go to a node that takes nothing; its lease stays, so that it is not asked again too soon.
    fn hand_back_all(&mut self, id: u32, node: NodeId, out: &mut Vec<Effect>) {
        let Some(shape) = self.shapes.get(&id) else {
            return;
        };
        let bound = shape
            .leases
            .get(&node)
            .into_iter()
            .flat_map(|l| l.bound.values());
        let meant = |call: &u64| {
            self.calls
                .get(call)
                .is_some_and(|c| c.at == At::Queued(Some(node)))
        };
        let free = shape.free.values().filter(|call| meant(call));
        let calls: Vec<u64> = bound.chain(free).copied().collect();
        for call in calls {
            self.unqueue(call);
            self.forget(call);
            out.push(Effect::Place { call });
        }
    }

    /// Ends the lease of a dead node.
    pub(super) fn give_up(&mut self, id: u32, node: NodeId, out: &mut Vec<Effect>) {
        self.hand_back_all(id, node, out);
        self.drop_lease(id, node);
    }

    fn drop_lease(&mut self, id: u32, node: NodeId) {
        let Some(shape) = self.shapes.get_mut(&id) else {
            return;
        };
        if let Some(lease) = shape.leases.remove(&node) {
            self.by_lease.remove(&(node, lease.number));
            if let Some(level) = lease.level {
                shape.roomy.remove(&(level, node));
            }
        }
    }

    /// Forgets leases that were given back.
    pub(super) fn drop_unused(&mut self, now: Duration, id: u32) {
        let Some(shape) = self.shapes.get(&id) else {
            return;
        };
        let unused = |l: &Lease| l.want == 0 && l.need() == 0 && now >= l.mute;
        let all = shape.leases.iter().filter(|(_, lease)| unused(lease));
        let nodes: Vec<NodeId> = all.map(|(node, _)| *node).collect();
        for node in nodes {
            self.drop_lease(id, node);
        }
    }

    /// Hands back unbound calls that nobody takes.
    pub(super) fn hand_back(&mut self, now: Duration, id: u32, out: &mut Vec<Effect>) {
        let waits = |shape: &super::Shape| now.saturating_sub(shape.moved) > PATIENCE;
        if !self.shapes.get(&id).is_some_and(waits) {
            return;
        }
        for _ in 0..BATCH {
            let Some(call) = self.first_free(now, id) else {
                break;
            };
            self.forget(call);
            out.push(Effect::Place { call });
        }
    }

    /// Forgets a shape that nothing has any more.
    pub(super) fn tidy(&mut self, id: u32) {
        if let Some(shape) = self.shapes.get(&id)
            && shape.leases.is_empty()
            && shape.calls == 0
        {
            let key = (shape.demand.clone(), shape.priority);
            self.by_demand.remove(&key);
            self.shapes.remove(&id);
        }
    }
}
