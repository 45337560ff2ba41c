//! Handles of this node to actors whose history is kept: how they come, and what is heard of their actors.
//!
//! Invariant: one caller here for each actor, from the first handle until its last call is settled. Left out: what it does with calls
//! (`caller`).

use std::sync::Arc;

use super::Early;
use super::caller::{Asked, KeptCaller};
use super::end::End;
use super::host::Input;
use super::load::{Came, Load, actor as actor_key};
use super::results::Again;
use crate::base::{ActorKey, Error, NodeId, ObjectKey};
use crate::core::recovery::caller::Event;
use crate::exec::actor::HandleRef;
use crate::exec::entry::ActorEntry;
use crate::exec::far::ValueParcel;
use crate::exec::{Local, RawRef};
use crate::node::cluster::Cluster;
use crate::node::cluster::books::Books;
use crate::node::cluster::effects::Todo;
use crate::wire::Outcome;

impl Cluster {
    /// A handle to an actor whose history is kept, which is at that key as far as is known. One reference was imported for the key.
    pub(in crate::node::cluster) fn kept_handle(
        self: &Arc<Cluster>,
        books: &mut Books,
        todo: &mut Todo,
        local: &Local,
        (actor, incarnation, key): (ActorKey, u64, ObjectKey),
        entry: &'static ActorEntry,
        name: Option<&str>,
    ) -> HandleRef {
        let caller = self.caller_of(actor, incarnation, actor_key(key), entry);
        caller.keys.lock().insert(key);
        let mut cell = caller.cell.lock();
        if let Some(known) = &cell.0
            && let Some(handle) = HandleRef::upgrade(known)
        {
            cell.1 -= 1;
            return handle;
        }
        let far = Box::new(End(Arc::clone(&caller)));
        let handle = local.engine.far_handle(local, entry, name, far);
        if let Some(old) = cell.0.replace(handle.actor().clone()) {
            todo.later.actor(old);
        }
        drop(cell);
        // What has happened to it before.
        let host = actor_key(key).host;
        let gone = host != self.me && books.view.is_gone(host);
        let moved = self.recovery.moved_to(actor);
        let cluster = Arc::clone(self);
        todo.keeps.push(Box::new(move |local| {
            if let Some((incarnation, at)) = moved {
                let event = Event::Moved { incarnation, at };
                caller.post(local, Asked::Machine(event));
            }
            if gone {
                caller.post(local, Asked::Machine(Event::Died(host)));
            }
            if let Some(cause) = cluster.recovery.end_of(actor) {
                cluster.caller_ended(local, actor, &cause);
            }
        }));
        handle
    }

    fn caller_of(
        self: &Arc<Cluster>,
        actor: ActorKey,
        incarnation: u64,
        at: ActorKey,
        entry: &'static ActorEntry,
    ) -> Arc<KeptCaller> {
        let mut callers = self.recovery.callers.lock();
        let next = self.recovery.next_number();
        let new = || KeptCaller::new(self, actor, (at, incarnation), next, entry);
        let caller = Arc::clone(callers.entry(actor).or_insert_with(new));
        // Counted here, so that it is not forgotten before it has a cell.
        caller.cell.lock().1 += 1;
        caller
    }

    /// Nobody here has a handle any more, and nothing is to come.
    pub(super) fn forget_caller(&self, caller: &Arc<KeptCaller>, next: u64) {
        let mut callers = self.recovery.callers.lock();
        let same = callers
            .get(&caller.actor)
            .is_some_and(|c| Arc::ptr_eq(c, caller));
        // A new handle may have come meanwhile.
        if same && caller.cell.lock().1 == 0 {
            self.recovery.used_up_to(next);
            callers.remove(&caller.actor);
        }
    }

    /// Puts what came of a call into its record.
    pub(super) fn settle_told(
        self: &Arc<Cluster>,
        local: &Local,
        record: RawRef,
        outcome: Load,
        again: Option<Again>,
    ) {
        match outcome {
            Load::Told(from, outcome) => {
                let outcome = Arc::try_unwrap(outcome).unwrap_or_else(|o| (*o).clone());
                self.settle_outcome(local, record, from, outcome, again);
            }
            Load::Came(came) => match &*came {
                Came::Value(value) => self.settle(local, record, value.clone()),
                Came::Failed(why) => {
                    let from = self.me;
                    let failed = Outcome::Failed(why.clone());
                    self.settle_outcome(local, record, from, failed, None);
                }
                Came::Large(_, there) => match ValueParcel::of(there) {
                    Ok(value) => self.settle(local, record, value),
                    Err(e) => local.engine.settle_error(local, &record, e),
                },
            },
            _ => local.engine.settle_error(local, &record, Error::ShutDown),
        }
    }

    /// The actor is there, says whoever hosts it.
    pub(super) fn on_moved(
        self: &Arc<Cluster>,
        local: &Local,
        actor: ActorKey,
        incarnation: u64,
        at: ActorKey,
    ) {
        self.recovery.note_moved(actor, incarnation, at);
        if let Some(caller) = self.recovery.caller(actor) {
            let event = Event::Moved { incarnation, at };
            caller.post(local, Asked::Machine(event));
        }
    }

    /// The actor has ended, says whoever hosted it.
    pub(super) fn caller_ended(self: &Arc<Cluster>, local: &Local, actor: ActorKey, cause: &str) {
        self.recovery.ended(actor, cause);
        if let Some(caller) = self.recovery.caller(actor) {
            caller.post(local, Asked::Ended(cause.to_owned()));
        }
    }

    /// What came of a call of this node.
    pub(super) fn on_outcome(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        (actor, number): (ActorKey, u64),
        outcome: Outcome,
    ) {
        match self.recovery.caller(actor) {
            Some(caller) => {
                let outcome = Load::Told(from, Arc::new(outcome));
                caller.post(local, Asked::Outcome(number, outcome));
            }
            None => self.unwanted(local, from, 0, outcome),
        }
    }

    /// A call of a handle of this node to an actor that is here, or a question for what one gave.
    pub(super) fn kept_call_here(
        self: &Arc<Cluster>,
        local: &Local,
        actor: ActorKey,
        at: ActorKey,
        input: Input,
    ) {
        if let Some(early) = self.recovery.claiming.lock().get_mut(&at) {
            return early.push(Early::Here(actor, input));
        }
        self.take_call_here(local, actor, at, input);
    }

    /// One whose actor is here, or is not about to come.
    pub(super) fn take_call_here(
        self: &Arc<Cluster>,
        local: &Local,
        actor: ActorKey,
        at: ActorKey,
        input: Input,
    ) {
        match self.recovery.host(actor) {
            Some(host) if host.at == at && !host.is_over() => host.post(local, input),
            _ => {
                if let Some(caller) = self.recovery.caller(actor) {
                    caller.post(local, Asked::Machine(Event::NotHere(at)));
                }
            }
        }
    }
}
