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
use super::super::super::events;
use super::super::{history, mailbox};
use crate::base::Error;

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
        let backups = actor.backups();
        if record.entry.kind == Kind::Checkpoint {
            let saved = history().map_or(Ok(()), |h| h.save(engine, local, actor, state));
            if let Err(e) = &saved
                && self.comes_again(record, e)
            {
                return Step::Again(record.clone());
            }
            if let (Ok(()), Some(backups)) = (&saved, backups) {
                backups.checkpoint(local, record);
                return Step::Done;
            }
            let given = saved.and_then(|()| give_unit(local, record));
            engine.settle(local, record, Ok(given.map_err(CallError::Runtime)));
            return Step::Done;
        }
        let logged = history::changes(record.entry.kind);
        if logged && let Some(history) = history() {
            history.note(local, record, shown);
        }
        super::super::backups::turn(local, actor, record);
        let outcome = perform(local, record, state);
        // It may have stopped half-way, where it would not when it runs again; or have run, and its result found no room.
        let mut unsure = record.state() & CANCEL != 0;
        if let Ok(Err(CallError::Runtime(e))) = &outcome {
            let died = matches!(
                e,
                Error::WorkerDied(_) | Error::ActorDied { .. } | Error::ShutDown
            );
            if died && let Some(history) = history() {
                // What it changed died with the process.
                history.forget(record.id, shown);
            }
            unsure = !died || backups.is_some();
            if self.comes_again(record, e) {
                return Step::Again(record.clone());
            }
        }
        let panicked = panicked(&outcome);
        super::super::conclude(engine, local, record, outcome);
        if unsure
            && logged
            && let Some(backups) = backups
        {
            backups.unsure(local);
        }
        if panicked && actor.more().restart_on_panic {
            return self.after_panic(engine, record);
        }
        if logged && let Some(history) = history().filter(|h| unsure || h.is_due()) {
            let saved = history.save(engine, local, actor, state);
            if unsure && let Err(e) = saved {
                history.give_up(actor, &e);
            }
        }
        Step::Done
    }

    /// Whether a call that its process died under comes once more; then its claim is given back.
    fn comes_again(&self, record: &RawRef, error: &Error) -> bool {
        let ours = self.actor.is_condemned();
        let history = self.inner().history.as_deref_mut();
        let again = history.is_some_and(|h| h.runs_again(record.id, ours, error));
        if again {
            self.local.books().retried();
            events::again(self.local, record);
            record.unclaim();
            // It is not to be held behind later calls of its caller.
            record.deps.store(RELEASED, Ordering::Relaxed);
            mailbox::reserve_again(self.actor);
        }
        again
    }
}
