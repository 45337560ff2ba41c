//! Running one call of an actor, or its constructor, on this thread.
//!
//! Invariant: the caller has claimed the call and holds the state. Left out: whose turn it is (`run`).

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::super::call::{Outcome, StateRef};
use super::super::super::cell::RawRef;
use super::super::super::entry::Run;
use super::super::super::events;
use super::super::super::local::Local;
use super::super::{HOSTED, host};

/// Runs a claimed call with the actor's state.
#[inline]
pub(in super::super) fn perform(
    local: &Local,
    record: &RawRef,
    state: StateRef,
) -> std::thread::Result<Outcome> {
    if state.0 == HOSTED {
        let mut state = HOSTED;
        return host::perform_there(local, record, &mut state);
    }
    let Run::Sync(run) = record.entry.run else {
        return Ok(Ok(()));
    };
    let before = local.current.replace(std::ptr::from_ref(&**record));
    // SAFETY: claimed, and out of the mailbox, so the link is ours: see `Local::each_current`.
    unsafe { record.set_outer(before) };
    let timed = local.begin(record);
    events::enter(local, record);
    // SAFETY: claimed; the state is this actor's, alive, and access to it was admitted.
    let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { run(local, record, state) }));
    local.current.set(before);
    local.end(record, timed);
    outcome
}

/// Runs the constructor on this thread.
pub(in super::super) fn construct_here(
    local: &Local,
    init: &RawRef,
    state: &mut *mut (),
) -> std::thread::Result<Outcome> {
    let Run::Sync(run) = init.entry.run else {
        return Ok(Ok(()));
    };
    let before = local.current.replace(std::ptr::from_ref(&**init));
    events::enter(local, init);
    // SAFETY: in no mailbox, and run by this thread alone: see `Local::each_current`.
    unsafe { init.set_outer(before) };
    let timed = local.begin(init);
    let out = StateRef(std::ptr::from_mut(state).cast());
    // SAFETY: the record holds this constructor's arguments, which the actor alone reads, under the run lock; `out` is a
    // place for one pointer.
    let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { run(local, init, out) }));
    local.current.set(before);
    local.end(init, timed);
    if matches!(outcome, Ok(Ok(()))) {
        local.books().done(init.entry);
    }
    outcome
}
