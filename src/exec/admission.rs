//! Driving the ledger: calls that ask for more than the common task wait in it, and what it decides is done here.
//!
//! Invariant: the ledger's decisions are carried out after its lock is released, each once. Left out: deciding, which is
//! [`crate::core::ledger`]'s.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cell::RawRef;
use super::engine::Engine;
use super::local::Local;
use crate::base::{Demand, Error};
use crate::core::{Effect, Ledger};

/// The ledger and the records that wait in it, by id.
pub(super) struct Admission {
    pub(super) ledger: Ledger,
    pub(super) parked: HashMap<u64, RawRef>,
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
        self.parked.insert(record.id, record.clone());
        self.ledger.submit(record.id, demand, priority, out);
    }
}

/// A record that may start with these GPUs, or is refused; without one, executors are told to look.
type Decision = (Option<RawRef>, Vec<u32>, Option<Error>);

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
        let result = {
            let mut a = self.admission.lock();
            let result = change(&mut a, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Start { task, gpus } => {
                        if let Some(record) = a.parked.remove(&task) {
                            todo.push((Some(record), gpus, None));
                        }
                    }
                    Effect::Refuse { task, why } => {
                        if let Some(record) = a.parked.remove(&task) {
                            todo.push((Some(record), Vec::new(), Some(Error::from(why))));
                        }
                    }
                    Effect::Offer => todo.push((None, Vec::new(), None)),
                }
            }
            let pressed = a.ledger.pressed() || a.ledger.free_cpu_steps() < 0;
            self.pressed.store(pressed, Ordering::Relaxed);
            result
        };
        if !todo.is_empty() {
            self.follow(local, todo);
        }
        result
    }

    /// What follows from the ledger's decisions, outside its lock.
    fn follow(self: &Arc<Engine>, local: &Local, todo: Vec<Decision>) {
        for (record, gpus, refused) in todo {
            match (record, refused) {
                (None, _) => self.crew.notify_injected(),
                (Some(record), Some(why)) => {
                    self.fail_waiting(local, &record, why);
                }
                (Some(record), None) => {
                    super::events::ready(local, &record, true);
                    if let Some(extra) = record.extra() {
                        let _ = extra.gpus.set(gpus);
                    }
                    if let Some(actor) = record.target() {
                        let actor = actor.clone();
                        actor.admitted(local, &record);
                    } else if !record.make_ready() {
                        let id = record.id;
                        self.with_ledger(local, |a, out| a.ledger.finish(id, out));
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
