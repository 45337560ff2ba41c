//! The slots that this node lends: held by its ledger, used by calls of others.
//!
//! Invariant: one thread at a time tells the ledger what to do, in the order of the decisions. Left out: the decisions
//! (`core::leases::grantor`), and slots of other nodes.

use std::sync::Arc;

use super::{Act, Cluster, Follow};
use crate::core::leases::{LeaseMsg, grantor};
use crate::exec::{Local, RawRef};
use crate::node::cluster::books::Books;

impl Cluster {
    pub(super) fn tell_grantor(
        &self,
        books: &mut Books,
        follow: &mut Follow,
        effect: grantor::Effect,
    ) {
        use grantor::Effect;
        match effect {
            Effect::Send { to, msg } => {
                if let LeaseMsg::Refused { calls, .. } = &msg {
                    for call in calls {
                        if let Some(record) = books.running.remove(&(to, *call)) {
                            books.leasing.came.remove(&record.id);
                            follow.dropped.push(record);
                        }
                    }
                }
                self.send_lease(books, to, msg);
            }
            Effect::Start { from, call, ticket } => {
                let Some(record) = books.running.get(&(from, call)) else {
                    // Its submitter died.
                    return;
                };
                let leasing = &mut books.leasing;
                if let Some(came) = leasing.came.get_mut(&record.id) {
                    came.started = Some(self.now());
                }
                if record.is_future() && record.demand().is_none() {
                    leasing.grantor.blocked(from, call, &mut leasing.held);
                }
                follow.starts.push((record.clone(), ticket));
            }
            Effect::Reserve {
                ticket,
                demand,
                priority,
            } => {
                let acts = &mut books.leasing.acts;
                acts.push_back(Act::Reserve(ticket, demand, priority));
            }
            Effect::Release { ticket } => books.leasing.acts.push_back(Act::Release(ticket)),
            Effect::Lend { ticket } => books.leasing.acts.push_back(Act::Lend(ticket)),
            Effect::Reclaim { ticket } => books.leasing.acts.push_back(Act::Reclaim(ticket)),
            // Whoever tells of the death cancels what runs.
            Effect::Abandon { .. } => {}
        }
    }

    /// Has the ledger do what it is to do. One thread is at that, which said so when it was decided.
    pub(super) fn act(self: &Arc<Cluster>, local: &Local) {
        let engine = &local.engine;
        loop {
            let acts = {
                let mut books = self.books.lock();
                let acts = std::mem::take(&mut books.leasing.acts);
                books.leasing.acting = !acts.is_empty();
                acts
            };
            if acts.is_empty() {
                return;
            }
            for act in acts {
                match act {
                    Act::Reserve(ticket, demand, priority) => {
                        engine.reserve_ticket(local, ticket, demand, priority);
                    }
                    Act::Release(ticket) => engine.release_ticket(local, ticket),
                    Act::Lend(ticket) => engine.lend_ticket(local, ticket),
                    Act::Reclaim(ticket) => engine.reclaim_ticket(local, ticket),
                }
            }
        }
    }

    /// A leased call has its arguments here.
    pub(in super::super) fn leased_arrived(self: &Arc<Cluster>, local: &Local, record: &RawRef) {
        self.with(local, |books, _| {
            let leasing = &mut books.leasing;
            if let Some(came) = leasing.came.get(&record.id) {
                let (from, lease, number) = (came.from, came.lease, came.number);
                let now = self.now();
                leasing
                    .grantor
                    .arrived(now, from, lease, number, &mut leasing.held);
            }
        });
    }

    /// The ledger started a slot's ticket.
    pub(in super::super) fn ticket_reserved(self: &Arc<Cluster>, local: &Local, ticket: u64) {
        self.with(local, |books, _| {
            let leasing = &mut books.leasing;
            leasing.grantor.reserved(ticket, &mut leasing.held);
        });
    }

    /// Leased calls block, or go on.
    pub(in super::super) fn leased_blocked(
        self: &Arc<Cluster>,
        local: &Local,
        calls: &[u64],
        blocked: bool,
    ) {
        self.with(local, |books, _| {
            let leasing = &mut books.leasing;
            for call in calls {
                let Some(came) = leasing.came.get(call) else {
                    continue;
                };
                let (from, number) = (came.from, came.number);
                if blocked {
                    leasing.grantor.blocked(from, number, &mut leasing.held);
                } else {
                    leasing.grantor.unblocked(from, number, &mut leasing.held);
                }
            }
        });
    }
}
