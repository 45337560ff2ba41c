//! Bundles of placement groups on this node: each has a ledger of its own, and calls of the group are started by that.
//!
//! What a bundle holds is a ticket in the node's ledger. Calls of the group wait in the bundle's ledger, never in the node's,
//! so they take no more than the bundle reserved, and nobody else takes any of it.
//!
//! Invariant: a call or actor of a group is in the ledger of exactly one bundle, from its admission to its end. A closed bundle
//! starts nothing, and its ticket is given back once nothing runs in it. Left out: which bundles there are (`core::groups`).

use std::collections::{BTreeMap, HashMap};

use super::admission::Admission;
use super::cell::RawRef;
use crate::base::{Capacity, Demand, Error, GroupId, Units};
use crate::core::{Effect, Ledger};

/// Tickets of bundles are numbered from here on: no call has so high a number.
pub const TICKETS: u64 = 1 << 63;
/// And from here on those of slots that are lent to other nodes.
pub const LEASES: u64 = TICKETS | 1 << 62;
/// What a part of one GPU is called in the ledger of a bundle that holds no more.
const PART: &str = "gpu of the bundle";

/// A bundle, by its group and its place there.
pub(super) type Key = (GroupId, u32);

struct Bundle {
    ledger: Ledger,
    ticket: u64,
    /// The devices that it holds, as the node numbers them.
    gpus: Vec<u32>,
    /// It holds a part of one.
    part: bool,
    closing: bool,
}

struct Call {
    key: Key,
    /// Kept so that it can be ended when the bundle closes.
    record: RawRef,
}

/// See the file.
#[derive(Default)]
pub(super) struct Bundles {
    open: BTreeMap<Key, Bundle>,
    calls: HashMap<u64, Call>,
    /// The devices of tickets that the node's ledger started.
    tickets: HashMap<u64, Vec<u32>>,
    /// Tickets that it has started just now.
    pub(super) started: Vec<u64>,
    /// Calls for which there is no bundle here.
    pub(super) homeless: Vec<(RawRef, Error)>,
    /// What is dropped once the lock is released.
    pub(super) dropped: Vec<RawRef>,
}

/// What a bundle held that closes.
#[derive(Default)]
pub(super) struct Closed {
    pub waiting: Vec<RawRef>,
    pub running: Vec<RawRef>,
}

impl Bundle {
    fn holds(&self) -> &Capacity {
        self.ledger.capacity()
    }

    /// What a call asks of it.
    fn translate(&self, demand: Demand) -> Demand {
        if !self.part || demand.gpu.is_zero() {
            return demand;
        }
        let part = demand.gpu;
        demand.with_gpu(Units::ZERO).with_custom(PART, part)
    }

    fn has_free(&self, demand: &Demand) -> bool {
        let free = self.ledger.free_now();
        let has = |name: &String, amount: Units| {
            let there = free.custom().iter().find(|(n, _)| n == name);
            there.is_some_and(|(_, has)| *has >= amount)
        };
        free.cpu >= demand.cpu
            && free.gpu >= demand.gpu
            && demand.custom().iter().all(|(n, a)| has(n, *a))
    }
}

/// A bundle's ledger starts at once what no executor need be idle for: nobody else wants what it holds.
fn never_background(priority: i32) -> i32 {
    const LOWEST: i32 = 1 << 20;
    priority.saturating_add(LOWEST).max(0)
}

impl Bundles {
    /// The node's ledger started a ticket.
    pub fn reserved(&mut self, ticket: u64, gpus: Vec<u32>) {
        self.tickets.insert(ticket, gpus);
        self.started.push(ticket);
    }

    /// The devices of a ticket, as the node numbers them.
    pub fn devices_of(&self, ticket: u64) -> Vec<u32> {
        self.tickets.get(&ticket).cloned().unwrap_or_default()
    }

    /// Calls may run in this bundle.
    pub fn open(&mut self, key: Key, ticket: u64, demand: &Demand) {
        let gpus = self.tickets.get(&ticket).cloned().unwrap_or_default();
        let part = !demand.gpu.is_zero() && !demand.gpu.is_whole();
        let whole = u32::try_from(demand.gpu.steps() / Units::PER_ONE).unwrap_or(u32::MAX);
        let mut capacity = Capacity::new(demand.cpu, if part { 0 } else { whole });
        for (name, amount) in demand.custom() {
            capacity = capacity.with_custom(name, *amount);
        }
        if part {
            capacity = capacity.with_custom(PART, demand.gpu);
        }
        let ledger = Ledger::new(capacity);
        let bundle = Bundle {
            ledger,
            ticket,
            gpus,
            part,
            closing: false,
        };
        self.open.insert(key, bundle);
    }

    /// The bundle in which a call would start soonest.
    fn find(&self, group: GroupId, at: Option<u32>, demand: &Demand) -> Option<Key> {
        let all = self.open.range((group, 0)..=(group, u32::MAX));
        let fitting = all.filter(|((_, place), bundle)| {
            let asked = at.is_none_or(|at| at == *place);
            asked
                && !bundle.closing
                && bundle
                    .holds()
                    .lacks(&bundle.translate(demand.clone()))
                    .is_none()
        });
        let soonest = fitting.min_by_key(|(_, bundle)| {
            let free = bundle.has_free(&bundle.translate(demand.clone()));
            (!free, bundle.ledger.queued())
        });
        soonest.map(|(key, _)| *key)
    }

    /// Puts a call in line for a bundle of its group. False: there is none.
    pub fn submit(
        &mut self,
        (group, at): (GroupId, Option<u32>),
        record: &RawRef,
        demand: Demand,
        priority: i32,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(key) = self.find(group, at, &demand) else {
            return false;
        };
        let record = record.clone();
        let id = record.id;
        self.calls.insert(id, Call { key, record });
        if let Some(bundle) = self.open.get_mut(&key) {
            let demand = bundle.translate(demand);
            bundle
                .ledger
                .submit(id, demand, never_background(priority), out);
        }
        true
    }

    /// The bundle of a call.
    fn of(&mut self, call: u64) -> Option<&mut Bundle> {
        let key = self.calls.get(&call)?.key;
        self.open.get_mut(&key)
    }

    /// The node's numbers of the devices that a call's ledger gave it.
    pub fn devices(&self, call: u64, given: Vec<u32>) -> Vec<u32> {
        let bundle = self.calls.get(&call).and_then(|c| self.open.get(&c.key));
        match bundle {
            None => given,
            Some(bundle) if bundle.part => bundle.gpus.clone(),
            Some(bundle) => {
                let at = |n: &u32| bundle.gpus.get(*n as usize).copied();
                given.iter().filter_map(at).collect()
            }
        }
    }

    /// How many bundles are open here, and calls in them.
    pub fn count(&self) -> (usize, usize) {
        (self.open.len(), self.calls.len())
    }
}

impl Admission {
    /// A started call ended, or an actor: what it holds is free. False if it is none.
    pub(super) fn finish(&mut self, id: u64, out: &mut Vec<Effect>) -> bool {
        let Some(bundle) = self.bundles.of(id) else {
            return self.ledger.finish(id, out);
        };
        let finished = bundle.ledger.finish(id, out);
        if finished && let Some(call) = self.bundles.calls.remove(&id) {
            self.bundles.dropped.push(call.record);
            self.end_if_empty(call.key, out);
        }
        finished
    }

    /// Takes a waiting call out of line. False: it does not wait.
    pub(super) fn cancel(&mut self, id: u64, out: &mut Vec<Effect>) -> bool {
        let Some(bundle) = self.bundles.of(id) else {
            return self.ledger.cancel(id, out);
        };
        let cancelled = bundle.ledger.cancel(id, out);
        if cancelled && let Some(call) = self.bundles.calls.remove(&id) {
            self.bundles.dropped.push(call.record);
        }
        cancelled
    }

    /// A started call blocks: its CPUs go to others of its ledger.
    pub(super) fn lend(&mut self, id: u64, out: &mut Vec<Effect>) {
        match self.bundles.of(id) {
            Some(bundle) => bundle.ledger.lend(id, out),
            None => self.ledger.lend(id, out),
        }
    }

    /// It goes on.
    pub(super) fn reclaim(&mut self, id: u64) {
        match self.bundles.of(id) {
            Some(bundle) => bundle.ledger.reclaim(id),
            None => self.ledger.reclaim(id),
        }
    }

    /// What a call of a group waits for, if it waits in a bundle.
    pub(super) fn waits_in_bundle(&self, id: u64) -> Option<String> {
        let (group, at) = self.bundles.calls.get(&id)?.key;
        let waiting = self.bundles.open.get(&(group, at))?.ledger.waiting(id)?;
        Some(format!(
            "{waiting} in bundle {at} of placement group {group}"
        ))
    }

    /// The bundle is no more: takes its calls out of line, and gives those that run too.
    pub(super) fn close_bundle(&mut self, key: Key, out: &mut Vec<Effect>) -> Closed {
        let mut closed = Closed::default();
        let Some(bundle) = self.bundles.open.get_mut(&key) else {
            return closed;
        };
        bundle.closing = true;
        let ids: Vec<u64> = self
            .bundles
            .calls
            .iter()
            .filter(|(_, call)| call.key == key)
            .map(|(id, _)| *id)
            .collect();
        // Out of line first, so that none starts for another that leaves.
        let mut nothing = Vec::new();
        for id in ids {
            if bundle.ledger.cancel(id, &mut nothing) {
                self.parked
                    .remove(&id)
                    .into_iter()
                    .for_each(|r| self.bundles.dropped.push(r));
                if let Some(call) = self.bundles.calls.remove(&id) {
                    closed.waiting.push(call.record);
                }
            } else if let Some(call) = self.bundles.calls.get(&id) {
                closed.running.push(call.record.clone());
            }
        }
        // What one that left made room for, in a line that is not empty yet, has been started: it is among those that run.
        for effect in nothing {
            if let Effect::Start { task, .. } = effect
                && let Some(record) = self.parked.remove(&task)
                && bundle.ledger.finish(task, &mut Vec::new())
            {
                self.bundles
                    .calls
                    .remove(&task)
                    .into_iter()
                    .for_each(|c| self.bundles.dropped.push(c.record));
                closed.running.retain(|r| r.id != task);
                closed.waiting.push(record);
            }
        }
        self.end_if_empty(key, out);
        closed
    }

    /// A closed bundle without calls gives its ticket back.
    fn end_if_empty(&mut self, key: Key, out: &mut Vec<Effect>) {
        let ended = |b: &Bundle| b.closing && b.ledger.running() == 0;
        if self.bundles.open.get(&key).is_some_and(ended)
            && let Some(bundle) = self.bundles.open.remove(&key)
        {
            self.give_ticket_back(bundle.ticket, out);
        }
    }

    /// Gives a ticket back, unless calls still run on it: then the last of them does.
    pub(super) fn release_ticket(&mut self, ticket: u64, out: &mut Vec<Effect>) {
        if !self.bundles.open.values().any(|b| b.ticket == ticket) {
            self.give_ticket_back(ticket, out);
        }
    }

    fn give_ticket_back(&mut self, ticket: u64, out: &mut Vec<Effect>) {
        self.bundles.tickets.remove(&ticket);
        if !self.ledger.finish(ticket, out) {
            self.ledger.cancel(ticket, out);
        }
    }
}
