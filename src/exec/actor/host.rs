//! Actors whose state a worker process has: made, called and dropped there.
//!
//! Invariant: from its constructor on such an actor has one process, which ends with the state. A process that died is
//! seen by the drainer before the next call, and is the actor's fall. Left out: talking to the process (`isolate`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::call::{CallError, Outcome};
use super::super::cell::RawRef;
use super::super::engine::Engine;
use super::super::isolate::{self, Process};
use super::super::local::Local;
use super::{ActorCell, ActorRef, DIE, HOSTED, LIVE, Life};
use crate::base::Error;

/// Runs the constructor in a process of the actor's own.
pub(super) fn construct_there(
    engine: &Arc<Engine>,
    local: &Local,
    actor: &ActorRef,
    init: &RawRef,
    state: &mut *mut (),
) -> Outcome {
    let host = isolate::driver::construct(engine, local, actor, init)?;
    host.host(actor);
    let more = actor.more();
    *more.host.lock() = Some(Arc::clone(&host));
    *state = HOSTED;
    if more.verdict.load(Ordering::SeqCst) == DIE {
        host.kill(); // passed while there was nothing to kill
    }
    local.books().done(init.entry);
    Ok(())
}

/// The actor's process, if it is dead.
pub(super) fn dead_host(actor: &ActorCell) -> Option<Arc<Process>> {
    actor.hosted().filter(|host| host.dead())
}

/// What became of an actor's process, as a cause of death.
pub(super) fn host_death(host: &Process) -> String {
    host.watched.report("", 1).as_cause()
}

/// The actor's process has ended: the drainer sees to it.
pub(in super::super) fn host_died(actor: &ActorRef) {
    if actor.life() != Life::Dead {
        super::mailbox::poke(actor);
    }
}

/// Runs a claimed call in the process that has the actor's state. `state` is null afterwards if the call consumed it.
#[inline(never)]
pub(super) fn perform_there(
    local: &Local,
    record: &RawRef,
    state: &mut *mut (),
) -> std::thread::Result<Outcome> {
    let Some(actor) = record.target() else {
        return Ok(Ok(()));
    };
    let Some(host) = actor.hosted() else {
        return Ok(Err(CallError::Runtime(actor.death())));
    };
    let ended = isolate::driver::method(local, record, &host);
    if ended.taken {
        *state = std::ptr::null_mut();
    }
    Ok(match ended.outcome {
        Err(CallError::Runtime(Error::WorkerDied(_))) if local.engine.is_closing() => {
            Err(CallError::Runtime(Error::ShutDown))
        }
        // It was killed on purpose.
        Err(CallError::Runtime(Error::WorkerDied(_))) if actor.is_condemned() => {
            let sentence = actor.more().sentence.lock().clone();
            Err(CallError::Runtime(actor.died_of(sentence)))
        }
        outcome => outcome,
    })
}

/// Has the actor's process drop the state, and ends the process.
pub(super) fn drop_there(actor: &ActorCell) {
    let Some(host) = actor.more.get().and_then(|m| m.host.lock().take()) else {
        return;
    };
    drop(host.unhost());
    if let Err(CallError::Function(mut f)) = isolate::driver::end_host(&host) {
        f.function = actor.entry.name;
        super::super::report::unobserved(&Error::TaskFailed(Arc::new(f)));
    }
}

impl ActorCell {
    /// The worker process that has the state, if one has.
    pub(in super::super) fn hosted(&self) -> Option<Arc<Process>> {
        self.more.get().and_then(|m| m.host.lock().clone())
    }

    /// Whether a verdict was passed that has not been carried out.
    pub(super) fn is_condemned(&self) -> bool {
        self.more
            .get()
            .is_some_and(|m| m.verdict.load(Ordering::SeqCst) != LIVE)
    }
}
