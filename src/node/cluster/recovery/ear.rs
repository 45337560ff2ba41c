//! What the drainer of an actor tells its host.
//!
//! Invariant: a call that came from elsewhere is settled at once, since nobody here waits for it; one of this node's own when the
//! machine says so. Left out: what follows (`host`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::host::{Input, KeptHost};
use super::load;
use crate::base::snapshot::{History, Kept};
use crate::base::{ActorKey, Error};
use crate::core::recovery::host::Event;
use crate::exec::actor::{ActorRef, Backups, Wants};
use crate::exec::call::Outcome;
use crate::exec::far::{Parcel, ValueParcel};
use crate::exec::{Local, RawRef, cell};

/// What the drainer is given.
pub(super) struct Ear(pub Arc<KeptHost>);

impl Backups for Ear {
    fn kept(&self) -> (ActorKey, u64) {
        (self.0.actor, self.0.incarnation)
    }

    fn call(&self, record: u64) -> (u64, u64) {
        let call = self.0.call(record);
        (call.node.get(), call.number)
    }

    fn made(&self, actor: &ActorRef) {
        *self.0.cell.lock() = Some(actor.clone());
    }

    fn born(&self, local: &Local, init: Option<Parcel>) {
        let host = &self.0;
        let init = init.and_then(|parcel| load::Kept::new(0, parcel).ok());
        if let Some(init) = init {
            let _ = host.init.set(init);
        }
        host.begin(local);
    }

    fn turn(&self, local: &Local, record: &RawRef, call: Parcel) {
        // An argument that is lost fails the call, which then changes nothing.
        if !self.0.is_over()
            && !self.0.replays(record.id)
            && let Ok(kept) = load::Kept::new(record.caller(), call)
        {
            self.0
                .post(local, Input::Turn(self.0.call(record.id), kept));
        }
    }

    fn ended(&self, local: &Local, record: &RawRef, outcome: std::thread::Result<Outcome>) {
        if record.state() & cell::FOREIGN != 0 {
            // It came: nobody but whoever sent it waits.
            local.engine.settle_kept(local, record, outcome);
        } else {
            let call = self.0.forget_call(record.id);
            self.0
                .post(local, Input::Ended(call, record.clone(), outcome));
        }
    }

    fn wants(&self) -> Wants {
        Wants {
            state: self.0.wants_state.load(Ordering::Acquire),
            rest: self.0.rests.load(Ordering::Acquire),
        }
    }

    fn state(&self, local: &Local, state: Result<RawRef, Error>) {
        let value = state.and_then(|record| ValueParcel::of(&record));
        let input = match value {
            Ok(value) => {
                let bytes = value.bytes.len() as u64;
                Input::State(self.0.state_of(Some(value)), bytes)
            }
            Err(e) => {
                crate::exec::report::unobserved(&e);
                Input::NoState
            }
        };
        // Asked for once, whether or not somebody else is about to take it in.
        self.0.wants_state.store(false, Ordering::Release);
        self.0.post(local, input);
    }

    fn checkpoint(&self, local: &Local, record: &RawRef) {
        self.0.post(local, Input::Want(record.clone()));
    }

    fn unsure(&self, local: &Local) {
        self.0.post(local, Input::Machine(Event::Want));
    }

    fn anew(&self, local: &Local) {
        let state = self.0.state_of(None);
        self.0.post(local, Input::State(state, 1));
    }

    fn look(&self) -> (History, Kept) {
        let host = &self.0;
        let (history, mut kept) = host.shown.look(host.incarnation, host.terms.replicas);
        (kept.durable, kept.not_durable) = host.shown_outside();
        (history, kept)
    }
}
