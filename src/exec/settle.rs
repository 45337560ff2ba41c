//! Outcomes: what came of a call goes into its record, and whoever waits is told. Cancelling is one of them.
//!
//! Invariant: only the holder of a record's claim ends it. Left out: what waiters do then.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::call::{CallError, Outcome};
use super::cell::{self, Phase, RawRef, Record, finished};
use super::engine::Engine;
use super::events;
use super::local::Local;
use super::waiter::{Waiter, WaiterKind};
use crate::base::{Error, Failure, FailureKind};
use crate::trace::Outcome as End;

/// The call is recorded, and about to end well; the caller holds the claim.
#[cold]
#[inline(never)]
fn record_done(local: &Local, record: &RawRef) {
    // SAFETY: the caller holds the claim.
    let bytes = unsafe { record.result_size() };
    events::exited(local, record, End::Done, bytes);
}

impl Engine {
    /// Puts what came of a claimed call into its record and tells whoever waits.
    #[inline(always)]
    pub(super) fn settle(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        outcome: Result<Outcome, Box<dyn Any + Send>>,
    ) {
        if let Ok(Ok(())) = outcome {
            local.books().done(record.entry);
            if events::recorded(record.id) {
                record_done(local, record);
            }
            if record.extra().is_some() {
                self.release(local, record);
            }
            if let Some(waiters) = record.finish(Phase::Done) {
                self.fire(local, Some(waiters), false);
            }
            return;
        }
        self.settle_failure(local, record, outcome);
    }

    #[cold]
    #[inline(never)]
    fn settle_failure(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        outcome: Result<Outcome, Box<dyn Any + Send>>,
    ) {
        let attempts = record
            .extra()
            .map_or(1, |e| e.attempts.load(Ordering::Relaxed).max(1));
        let error = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(CallError::Runtime(e))) => e,
            Ok(Err(CallError::Function(mut failure))) if failure.kind != FailureKind::Panicked => {
                failure.function = record.entry.name;
                failure.location = format!("{}:{}", record.entry.file, record.entry.line);
                failure.attempts = attempts;
                Error::TaskFailed(Arc::new(failure))
            }
            panicked => {
                let mut failure = match panicked {
                    // In a worker process, which told of it.
                    Ok(Err(CallError::Function(failure))) => failure,
                    Err(payload) => super::panics::failure(payload),
                    Ok(_) => return,
                };
                let retries = record.extra().map_or(0, |e| e.panic_retries);
                let cancelled = record.state() & cell::CANCEL != 0;
                // SAFETY: claimed. They are gone if it was the result that panicked while it was archived.
                let again = unsafe { record.has_args() };
                if again
                    && attempts <= retries
                    && record.target().is_none()
                    && !cancelled
                    && !self.is_closing()
                {
                    local.books().retried();
                    // Its resources stay with it; another thread may take the next attempt.
                    events::again(local, record);
                    record.unclaim();
                    self.push_again(local, record.clone());
                    return;
                }
                failure.function = record.entry.name;
                failure.attempts = attempts;
                Error::TaskFailed(Arc::new(failure))
            }
        };
        self.release(local, record);
        self.end_with(local, record, Arc::new(error));
    }

    /// Counts a call that failed, and keeps why.
    #[cold]
    pub(super) fn note_failure(&self, local: &Local, record: &Record, error: &Error) {
        local.books().failed(record.entry);
        let now = super::inspect::now();
        self.mishaps
            .failed(record.entry.name, record.id, error, now);
    }

    /// Counts a call that was refused as it was made; whoever made it has not seen that yet.
    #[cold]
    pub(super) fn note_refusal(&self, local: &Local, record: &Record) {
        if let Some(error) = record.peek_error() {
            self.note_failure(local, record, &error);
        }
    }

    fn push_again(self: &Arc<Engine>, local: &Local, record: RawRef) {
        let own = record.demand().is_some() || super::far::leased::is_leased(&record);
        if own && !record.is_future() {
            self.push_started(local, record);
        } else {
            self.push_task(local, record);
        }
    }

    /// Gives back what the ledger holds for a call.
    pub(super) fn release(self: &Arc<Engine>, local: &Local, record: &RawRef) {
        let own = record.target().is_none() && record.demand().is_some();
        if own && !super::far::leased::is_leased(record) {
            let id = record.id;
            self.with_ledger(local, |a, out| a.finish(id, out));
        }
    }

    /// Ends a claimed call with an error.
    pub(super) fn end_with(self: &Arc<Engine>, local: &Local, record: &RawRef, error: Arc<Error>) {
        self.note_failure(local, record, &error);
        events::failed(local, record, &error);
        // SAFETY: the caller holds the claim and has finished with the arguments.
        unsafe {
            record.drop_args();
            record.set_error(error);
        }
        let waiters = record.finish(Phase::Failed);
        self.fire(local, waiters, true);
    }

    /// Ends a call that waits for something, if it still does.
    pub(super) fn fail_waiting(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        error: Error,
    ) -> bool {
        let claimed = record.claim_waiting();
        if claimed {
            self.waits_no_longer(record);
            self.end_with(local, record, Arc::new(error));
        }
        claimed
    }

    /// A call ends although arguments may be missing.
    fn waits_no_longer(&self, record: &Record) {
        if record.deps.load(Ordering::Relaxed) > 0 {
            self.waiting.end(record.id);
        }
    }

    /// Ends a call that is queued, if nobody has claimed it.
    pub(super) fn fail_queued(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        error: Error,
    ) -> bool {
        let claimed = record.claim();
        if claimed {
            self.release(local, record);
            self.end_with(local, record, Arc::new(error));
        }
        claimed
    }

    /// Tells the waiters, oldest first.
    #[inline(never)]
    fn fire(self: &Arc<Engine>, local: &Local, newest: Option<Box<Waiter>>, failed: bool) {
        let mut oldest: *mut Waiter = std::ptr::null_mut();
        let mut next = newest.map_or(std::ptr::null_mut(), Box::into_raw);
        while !next.is_null() {
            // SAFETY: the list is ours: its links are boxes leaked by `add_waiter`, turned around here.
            unsafe {
                let after = std::mem::replace(&mut (*next).next, oldest);
                oldest = next;
                next = after;
            }
        }
        while !oldest.is_null() {
            // SAFETY: as above; each is boxed again exactly once.
            let waiter = unsafe { Box::from_raw(oldest) };
            oldest = waiter.next;
            match waiter.kind {
                WaiterKind::Thread(thread) => thread.unpark(),
                WaiterKind::Waker(waker) => wake(waker),
                WaiterKind::Latch(latch) => latch.hit(failed),
                WaiterKind::Dependent(record) => self.input_done(local, record),
                WaiterKind::Call(f) => f(),
            }
        }
    }

    /// Cancels a call; what came of it.
    pub fn cancel(self: &Arc<Engine>, local: &Local, record: &RawRef) -> Cancel {
        let why = || Error::Cancelled {
            function: record.entry.name,
        };
        if record.claim_waiting() {
            self.waits_no_longer(record);
            let id = record.id;
            if record.demand().is_some() {
                let parked = self.with_ledger(local, |a, out| {
                    a.cancel(id, out);
                    a.parked.remove(&id)
                });
                drop(parked);
            }
            self.cancel_claimed(local, record, why());
            return Cancel::Dequeued;
        }
        if record.claim() {
            self.release(local, record);
            self.cancel_claimed(local, record, why());
            return Cancel::Dequeued;
        }
        if finished(record.state()) || finished(record.set_flag(cell::CANCEL)) {
            return Cancel::TooLate;
        }
        self.tell_worker(record);
        if let Some(far) = self.far() {
            far.cancel(local, record);
        }
        #[cfg(feature = "async")]
        self.futures.wake(record);
        Cancel::Requested
    }

    /// Ends the process of a call that was cancelled; a method's process holds the actor and is only told.
    fn tell_worker(&self, record: &RawRef) {
        if let Some(actor) = record.target() {
            if let Some(host) = actor.hosted() {
                host.tell_cancelled(record.id);
            }
        } else if let Some(extra) = record.extra()
            && let Some(host) = &*extra.host.lock()
        {
            host.kill();
        }
    }

    /// As [`end_with`](Self::end_with), but leaves the arguments: others may be looking at which inputs there are.
    fn cancel_claimed(self: &Arc<Engine>, local: &Local, record: &RawRef, error: Error) {
        local.books().cancelled();
        self.note_failure(local, record, &error);
        events::failed(local, record, &error);
        // SAFETY: claimed. The error's place is apart from the arguments, which `set_error` leaves to be freed with the
        // record: see `Record::set_error`.
        unsafe { record.set_error_keeping_args(Arc::new(error)) };
        let waiters = record.finish(Phase::Failed);
        self.fire(local, waiters, true);
        if let Some(actor) = record.target() {
            // It may be held for its arguments, with later calls of its caller behind it.
            let actor = actor.clone();
            actor.call_ready(local, record);
        }
    }
}

/// Wakes a future; a waker of the user's that panics must take neither this thread nor the other waiters with it.
pub(super) fn wake(waker: std::task::Waker) {
    let woken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
    if let Err(payload) = woken {
        super::panics::discard(payload);
    }
}

/// What cancelling did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// It had not begun and never will.
    Dequeued,
    /// It runs, and was told.
    Requested,
    /// It had ended.
    TooLate,
}

/// A failure from an error that a remote function returned.
pub fn failure<E: Into<Box<dyn std::error::Error + Send + Sync>>>(error: E) -> CallError {
    let type_name = std::any::type_name::<E>();
    let error: Box<dyn std::error::Error + Send + Sync> = error.into();
    if let Some(e @ Error::Cancelled { .. }) = error.downcast_ref::<Error>() {
        return CallError::Runtime(e.clone());
    }
    let failure = Failure::returned(&*error, type_name);
    debug_assert_eq!(failure.kind, FailureKind::Returned);
    CallError::Function(failure)
}
