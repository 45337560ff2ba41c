//! Calls that run apart from the drainer: shared methods side by side, async methods, and calls whose arguments came.
//!
//! Invariant: a call that the gate let in leaves it exactly once, however it ends. Left out: letting them in (`run`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::call::StateRef;
use super::super::cell::{RawRef, Record, finished};
use super::super::engine::Engine;
use super::super::local::Local;
use super::run::{access, panicked, perform};
use super::{ActorCell, ActorRef, LIVE, Life, host, life};
use crate::core::gate::Kind as Access;

/// Runs a shared call apart from the drainer: the gate has let it in.
pub(in super::super) fn run_apart(engine: &Arc<Engine>, local: &Local, record: &RawRef) {
    let Some(actor) = record.target() else { return };
    if record.claim() {
        // The gate keeps exclusive calls and death away while shared calls run.
        let state = StateRef(actor.state.load(Ordering::Relaxed));
        let within = local.books().enters(actor.id);
        let outcome = perform(local, record, state);
        local.books().enters(within);
        if panicked(&outcome) {
            method_panicked(actor, record);
        }
        super::conclude(engine, local, record, outcome);
    }
    leave(engine, local, actor, access(record.entry.kind));
}

/// A call that runs apart from the drainer panicked. To be said before the call is settled, so that whoever sees the
/// failure meets the actor after its restart.
#[cold]
pub(in super::super) fn method_panicked(actor: &ActorRef, record: &Record) {
    if actor.more.get().is_some_and(|m| m.restart_on_panic) {
        life::condemn(actor, true, &format!("{} panicked", record.entry.name));
    }
}

/// Why an async call under way must end now: its actor is to die or to be made again.
#[cfg(feature = "async")]
pub(in super::super) fn interrupted(actor: &ActorRef) -> Option<crate::base::Error> {
    let more = actor.more.get()?;
    (more.verdict.load(Ordering::SeqCst) != LIVE).then(|| {
        let sentence = more.sentence.lock().clone();
        actor.died_of(sentence)
    })
}

/// A call that ran apart has ended: whoever waits for the gate goes on.
pub(in super::super) fn leave(
    engine: &Arc<Engine>,
    local: &Local,
    actor: &ActorRef,
    access: Access,
) {
    let Some(more) = actor.more.get() else { return };
    let Some(gate) = more.gate.get() else { return };
    let (resume, idle) = {
        let mut gate = gate.lock();
        let resume = gate.leave(access);
        (resume, !gate.busy())
    };
    if idle && actor.life() == Life::Dead {
        // The runtime closed while it ran.
        life::drop_state(actor);
    } else if resume
        || (idle && more.verdict.load(Ordering::SeqCst) != LIVE)
        || (idle && more.isolate && host::dead_host(actor).is_some())
    {
        engine.push_actor(local, actor.clone());
    }
}

/// Gives up a shared call that the gate has let in and nobody has begun: the runtime closes.
pub(in super::super) fn forsake_apart(engine: &Arc<Engine>, local: &Local, record: &RawRef) {
    engine.fail_queued(local, record, crate::base::Error::ShutDown);
    if let Some(actor) = record.target() {
        leave(engine, local, actor, access(record.entry.kind));
    }
}

impl ActorCell {
    /// The arguments of a call are settled: it may run when its turn comes.
    pub(in super::super) fn call_is_ready(&self, record: &RawRef) -> bool {
        record.make_ready()
    }
}

impl ActorRef {
    /// See [`ActorCell::call_is_ready`]; wakes the drainer if it holds the call.
    pub(in super::super) fn call_ready(&self, local: &Local, record: &RawRef) {
        self.call_is_ready(record);
        if self.life() == Life::Dead {
            return;
        }
        let more = self.more();
        more.resolved.lock().push((record.caller, record.id));
        let engine = Arc::clone(&local.engine);
        let poke = super::mailbox::control(local, self, false);
        engine.post(local, self, poke);
        if finished(record.state()) && more.gate.get().is_some_and(|g| g.lock().parked()) {
            // Cancelled; it may be the very one that the gate waits for, with others behind it.
            engine.push_actor(local, self.clone());
        }
    }
}
