//! Driving the ledger: calls that ask for more than the common task wait in it, and what it decides is done here.
//!
//! Invariant: the ledger's decisions are carried out after its lock is released, each once. Left out: deciding, which is
//! [`crate::core::ledger`]'s.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::bundles::{Bundles, LEASES, TICKETS};
use super::cell::RawRef;
use super::engine::Engine;
use super::local::Local;
use crate::base::{Demand, Error};
use crate::core::{Effect, Ledger};

/// The ledger and the records that wait in it, by id.
pub(super) struct Admission {
    pub(super) ledger: Ledger,
    pub(super) parked: HashMap<u64, RawRef>,
    pub(super) bundles: Bundles,
}

impl Admission {
    /// Puts a call in line.
    pub(super) fn park(
        &mut self,
        record: &RawRef,
        demand: Demand,
        priority: i32,
        out: &mut Vec<Effect>,
    ) {
        match record.group() {
            None => self.ledger.submit(record.id, demand, priority, out),
            Some(group) => {
                if !self.bundles.submit(group, record, demand, priority, out) {
                    let why = "has no bundle here in which it could run";
                    let homeless = (record.clone(), super::groups::no_group(group.0, why));
                    return self.bundles.homeless.push(homeless);
                }
            }
        }
        self.parked.insert(record.id, record.clone());
    }
}

/// What the ledger decided.
enum Decision {
    /// It may start, with these GPUs.
    Start(RawRef, Vec<u32>),
    /// It never will.
    Refuse(RawRef, Error),
    /// Executors are told to look.
    Look,
    /// What a bundle or a lent slot holds is there.
    Ticket(u64),
}

impl Engine {
    /// Asks the ledger.
    pub(super) fn admit(self: &Arc<Engine>, local: &Local, record: RawRef) {
        let Some(extra) = record.extra() else { return };
        let Some(demand) = extra.demand.clone() else {
            return;
        };
        let priority = extra.priority;
        let parked = self.with_ledger(local, |a, out| {
            // Looked at under the lock: a shutdown empties the table after it has said that it closes.
            let open = !self.is_closing();
            if open {
                a.park(&record, demand, priority, out);
            }
            open
        });
        if !parked {
            self.fail_waiting(local, &record, Error::ShutDown);
        }
    }

    /// Queues a call that has its resources: it may run beside whatever runs.
    pub(super) fn push_started(self: &Arc<Engine>, local: &Local, record: RawRef) {
        self.started.push(record);
        self.crew.notify_started(self);
        if self.is_closing() {
            self.drain_all(local);
        }
    }

    /// Changes the ledger and does what follows.
    pub(super) fn with_ledger<R>(
        self: &Arc<Engine>,
        local: &Local,
        change: impl FnOnce(&mut Admission, &mut Vec<Effect>) -> R,
    ) -> R {
        let mut effects = Vec::new();
        let mut todo = Vec::new();
        let dropped;
        let result = {
            let mut a = self.admission.lock();
            let result = change(&mut a, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Start { task, gpus } => {
                        if task & TICKETS != 0 {
                            a.bundles.reserved(task, gpus);
                        } else if let Some(record) = a.parked.remove(&task) {
                            let gpus = a.bundles.devices(task, gpus);
                            todo.push(Decision::Start(record, gpus));
                        }
                    }
                    Effect::Refuse { task, why } => {
                        if let Some(record) = a.parked.remove(&task) {
                            todo.push(Decision::Refuse(record, Error::from(why)));
                        }
                    }
                    Effect::Offer => todo.push(Decision::Look),
                }
            }
            let pressed = a.ledger.pressed() || a.ledger.free_cpu_steps() < 0;
            self.pressed.store(pressed, Ordering::Relaxed);
            let bundles = &mut a.bundles;
            todo.extend(bundles.started.drain(..).map(Decision::Ticket));
            let homeless = bundles.homeless.drain(..);
            todo.extend(homeless.map(|(record, why)| Decision::Refuse(record, why)));
            dropped = std::mem::take(&mut bundles.dropped);
            result
        };
        drop(dropped);
        if !todo.is_empty() {
            self.follow(local, todo);
        }
        result
    }

    /// What follows from the ledger's decisions, outside its lock.
    fn follow(self: &Arc<Engine>, local: &Local, todo: Vec<Decision>) {
        for decision in todo {
            match decision {
                Decision::Look => self.crew.notify_injected(),
                Decision::Ticket(ticket) if ticket >= LEASES => {
                    if let Some(far) = self.far() {
                        far.reserved(local, ticket);
                    }
                }
                Decision::Ticket(ticket) => {
                    if let Some(groups) = self.groups() {
                        groups.reserved(local, ticket);
                    }
                }
                Decision::Refuse(record, why) => match record.target() {
                    Some(actor) => super::actor::condemn_of_group(actor, &why.to_string()),
                    None => {
                        self.fail_waiting(local, &record, why);
                    }
                },
                Decision::Start(record, gpus) => {
                    super::events::ready(local, &record, true);
                    if let Some(extra) = record.extra() {
                        let _ = extra.gpus.set(gpus);
                    }
                    if let Some(actor) = record.target() {
                        let actor = actor.clone();
                        actor.admitted(local, &record);
                    } else if !record.make_ready() {
                        let id = record.id;
                        self.with_ledger(local, |a, out| a.finish(id, out));
                    } else if record.is_future() {
                        self.launch(local, record);
                    } else {
                        self.push_started(local, record);
                    }
                }
            }
        }
    }
}
