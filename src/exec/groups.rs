//! Placement groups, as the engine and the program see them.
//!
//! Invariant: a call of a group is given to whoever knows the groups before it is admitted here; what that says about bundles of
//! this node is carried out here. Left out: where bundles are, which `node` knows.

use std::sync::Arc;
use std::time::Instant;

use super::actor;
use super::cell::RawRef;
use super::engine::Engine;
use super::entry::ActorEntry;
use super::far::Elsewhere;
use super::local::Local;
use super::options::Options;
use crate::base::{Demand, Error, GroupId, GroupSpec, NodeId};

pub use super::bundles::TICKETS;

/// The placement groups of the cluster, or of this node if it is alone.
pub trait Groups: Send + Sync {
    /// Makes a group, which this node coordinates.
    ///
    /// # Errors
    /// That it could not be even if nothing ran.
    fn create(&self, local: &Local, spec: GroupSpec) -> Result<GroupId, Error>;

    /// Removes a group of this node's.
    fn remove(&self, local: &Local, group: GroupId);

    /// Where the bundles of a group of this node's are; `None`: it was removed.
    fn placed(&self, group: GroupId) -> Option<Vec<Option<NodeId>>>;

    /// Waits until all bundles of a group of this node's are reserved. False: not in time.
    ///
    /// # Errors
    /// It was removed, or the runtime ends.
    fn wait_ready(&self, group: GroupId, deadline: Option<Instant>) -> Result<bool, Error>;

    /// A call of a group whose arguments are settled. False: it runs in a bundle of this node. True: elsewhere or later, or it
    /// failed. Must not block.
    fn place(&self, local: &Local, record: &RawRef) -> bool;

    /// A call of a group that could not be run elsewhere: it is placed anew, soon.
    fn place_later(&self, local: &Local, record: RawRef);

    /// How another node is to make an actor of a group; `None` if it is made here. May wait for the group to be ready.
    ///
    /// # Errors
    /// No node may.
    fn place_actor(
        &self,
        local: &Local,
        entry: &'static ActorEntry,
        options: &Options,
        demand: &Demand,
    ) -> Result<Option<Elsewhere>, Error>;

    /// The node's ledger started a ticket.
    fn reserved(&self, local: &Local, ticket: u64);

    /// The runtime ends: what waits for a group fails.
    fn close(&self, local: &Local);
}

/// Why a call cannot run in a group.
pub fn no_group(group: GroupId, why: &str) -> Error {
    Error::Group {
        why: Arc::from(format!("{group} {why}")),
    }
}

/// Without whoever knows them there are no groups: in a worker process, and without the feature `cluster`.
pub fn none() -> Error {
    Error::Group {
        why: Arc::from(
            "groups are made where the node runs, not in worker processes, and need the feature `cluster`",
        ),
    }
}

impl Engine {
    /// Who knows the groups.
    pub fn groups(&self) -> Option<&Arc<dyn Groups>> {
        self.groups.get()
    }

    /// Says who knows the groups. False if that had been said before.
    pub fn set_groups(&self, groups: Arc<dyn Groups>) -> bool {
        self.groups.set(groups).is_ok()
    }

    /// Whether a call of a group runs elsewhere, or later.
    pub(super) fn place_in_group(&self, local: &Local, record: &RawRef) -> bool {
        match self.groups() {
            Some(groups) => groups.place(local, record),
            None => false,
        }
    }

    /// Submits a ticket to the node's ledger.
    pub fn reserve_ticket(
        self: &Arc<Engine>,
        local: &Local,
        ticket: u64,
        demand: Demand,
        priority: i32,
    ) {
        self.with_ledger(local, |a, out| {
            a.ledger.submit(ticket, demand, priority, out)
        });
    }

    /// Takes a ticket out of it.
    pub fn release_ticket(self: &Arc<Engine>, local: &Local, ticket: u64) {
        self.with_ledger(local, |a, out| a.release_ticket(ticket, out));
    }

    /// Opens a bundle on what its ticket holds.
    pub fn open_bundle(
        self: &Arc<Engine>,
        local: &Local,
        (group, bundle): (GroupId, u32),
        ticket: u64,
        demand: &Demand,
    ) {
        self.with_ledger(local, |a, _| {
            a.bundles.open((group, bundle), ticket, demand)
        });
    }

    /// Closes a bundle: what waits in it fails, actors end, and calls that run are told.
    pub fn close_bundle(self: &Arc<Engine>, local: &Local, group: GroupId, bundle: u32) {
        let closed = self.with_ledger(local, |a, out| a.close_bundle((group, bundle), out));
        let why = || no_group(group, "was removed, or the node that made it is dead");
        let running = closed.running.into_iter().map(|record| (record, true));
        let waiting = closed.waiting.into_iter().map(|record| (record, false));
        for (record, runs) in waiting.chain(running) {
            match record.target() {
                Some(actor) => actor::condemn_of_group(actor, &why().to_string()),
                None if runs => {
                    let begun = !self.fail_queued(local, &record, why())
                        && !self.fail_waiting(local, &record, why());
                    if begun {
                        self.cancel(local, &record);
                    }
                }
                None => {
                    self.fail_waiting(local, &record, why());
                }
            }
        }
    }

    /// Ends a call that waits for its group.
    pub fn fail_of_group(self: &Arc<Engine>, local: &Local, record: &RawRef, why: Error) {
        self.fail_waiting(local, record, why);
    }

    /// Admits a call of a group to a bundle of this node.
    pub fn admit_of_group(self: &Arc<Engine>, local: &Local, record: RawRef) {
        self.inputs_ready_here(local, record);
    }

    /// Bundles that are open here, and the calls and actors in them.
    pub fn bundles(&self) -> (usize, usize) {
        self.admission.lock().bundles.count()
    }

    /// Waits for something that is no call, with this thread's CPU lent to others.
    pub fn wait_apart<R>(
        self: &Arc<Engine>,
        local: &Local,
        what: &'static str,
        wait: impl FnOnce() -> R,
    ) -> R {
        let _block = self.block(local, (what, 0, 1));
        wait()
    }
}
