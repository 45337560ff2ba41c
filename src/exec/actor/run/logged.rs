//! Executing calls of an actor that keeps its history.
//!
//! Invariant: a call is in the log before it runs, and is not once it is known to have left nothing behind. Left out: the log
//! (`history`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::super::call::{CallError, StateRef};
use super::super::super::cell::{CANCEL, RawRef};
use super::super::super::engine::Engine;
use super::super::super::entry::Kind;
use super::super::{history, mailbox};
use super::{Drain, RELEASED, Step, give_unit, panicked, perform};

impl Drain<'_> {
    /// As [`run_here`](Self::run_here), for an actor that keeps its history.
    #[inline(never)]
    pub(super) fn run_logged(
        &self,
        engine: &Arc<Engine>,
        record: &RawRef,
        state: StateRef,
    ) -> Step {
        let (actor, local) = (self.actor, self.local);
        let shown = &actor.more().shown;
        let history = || self.inner().history.as_deref_mut();
        if record.entry.kind == Kind::Checkpoint {
            let saved = history().map_or(Ok(()), |h| h.save(engine, local, actor, state));
            let given = saved.and_then(|()| give_unit(local, record));
            engine.settle(local, record, Ok(given.map_err(CallError::Runtime)));
            return Step::Done;
        }
        let logged = history::changes(record.entry.kind);
        if logged && let Some(history) = history() {
            history.note(local, record, shown);
        }
        let outcome = perform(local, record, state);
        if let Ok(Err(CallError::Runtime(e))) = &outcome
            && let Some(history) = history()
        {
            // It has not run, or died with the process: what it changed is gone.
            if logged {
                history.forget(record.id, shown);
            }
            if !actor.is_condemned() && history.runs_again(record.id, e) {
                record.unclaim();
                // It is not to be held behind later calls of its caller.
                record.deps.store(RELEASED, Ordering::Relaxed);
                mailbox::reserve_again(actor);
                return Step::Again(record.clone());
            }
        }
        // It may have stopped half-way, where it would not when it runs again.
        let halved = record.state() & CANCEL != 0;
        let panicked = panicked(&outcome);
        engine.settle(local, record, outcome);
        if panicked && actor.more().restart_on_panic {
            return self.after_panic(engine, record);
        }
        if logged && let Some(history) = history().filter(|h| halved || h.is_due()) {
            // What went wrong has been said; the log goes on.
            let _ = history.save(engine, local, actor, state);
        }
        Step::Done
    }
}
