//! Calls of other nodes that run here in the slots of a lease: a ticket of the node's ledger, not the call, holds what they ask for.
//!
//! Invariant: a leased call is started by who lends the slots, once its arguments are there, and holds nothing under its own
//! number. Left out: who may have how many slots (`core::leases`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::cell::{FOREIGN, RawRef, Record};
use super::super::engine::Engine;
use super::super::local::Local;
use crate::base::{Demand, Units};

pub use super::super::bundles::LEASES;

/// Whether a call that has not ended came from another node, to run in a lease.
pub fn is_leased(record: &Record) -> bool {
    record.state() & FOREIGN != 0 && record.target().is_none() && record.group().is_none()
}

/// Whether it is leased, and its ticket holds at least one CPU.
pub(in crate::exec) fn has_cpu(record: &Record) -> bool {
    is_leased(record) && record.demand().is_none_or(|d| d.cpu >= Units::ONE)
}

impl Engine {
    /// Starts a leased call whose arguments are there, unless it was cancelled.
    pub fn start_leased(self: &Arc<Engine>, local: &Local, record: RawRef, ticket: u64) {
        if let Some(extra) = record.extra()
            && extra.demand.as_ref().is_some_and(|d| !d.gpu.is_zero())
        {
            let gpus = self.admission.lock().bundles.devices_of(ticket);
            let _ = extra.gpus.set(gpus);
        }
        if !record.make_ready() {
            return;
        }
        super::super::events::ready(local, &record, true);
        if record.is_future() && !self.is_closing() {
            return self.launch(local, record);
        }
        self.started.push(record);
        // An executor that has just ended such a call looks there next.
        let looks = local.executor && local.apart.get() && local.current.get().is_null();
        if !looks {
            self.crew.notify_started(self);
        }
        if self.is_closing() {
            self.drain_all(local);
        }
    }

    /// What runs on this ticket is blocked: its CPUs go to others.
    pub fn lend_ticket(self: &Arc<Engine>, local: &Local, ticket: u64) {
        self.with_ledger(local, |a, out| a.ledger.lend(ticket, out));
    }

    /// It goes on.
    pub fn reclaim_ticket(self: &Arc<Engine>, local: &Local, ticket: u64) {
        self.with_ledger(local, |a, _| a.ledger.reclaim(ticket));
    }

    /// This node's own work: CPUs that its common calls hold or wait for, and what its other tasks hold, with what the first of
    /// them in line waits for.
    pub fn own_load(&self) -> (u32, Demand) {
        let (leased, held) = self.admission.lock().ledger.load_below(LEASES);
        let outboxes = self.outboxes.read();
        let queued = outboxes.iter().map(|o| o.tasks.len()).sum::<usize>() + self.tasks.len();
        let cpus = u32::try_from(leased).unwrap_or(u32::MAX);
        let queued = u32::try_from(queued).unwrap_or(u32::MAX);
        (cpus.saturating_add(queued), held)
    }

    /// Has whoever knows the other nodes told when an executor finds nothing to do here.
    pub fn tell_when_dry(&self, tell: bool) {
        if self.tells_dry.load(Ordering::Relaxed) != tell {
            self.tells_dry.store(tell, Ordering::Relaxed);
        }
    }

    /// An executor found nothing to do.
    #[inline]
    pub(in crate::exec) fn dry(&self) {
        if self.tells_dry.load(Ordering::Relaxed)
            && self.tells_dry.swap(false, Ordering::Relaxed)
            && let Some(far) = self.far()
        {
            far.dry();
        }
    }

    /// The leased calls on this thread's stack stand still, or go on.
    pub(in crate::exec) fn block_leased(&self, local: &Local, calls: &[u64], blocked: bool) {
        if let Some(far) = self.far() {
            far.blocked(local, calls, blocked);
        }
    }
}
