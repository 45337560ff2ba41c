//! What a call knows of itself, and what others may do to it.
//!
//! Invariant: outside of calls these answer as for a call that nobody cancelled. Left out: actor's handles of themselves.

use super::ObjectRef;
use crate::base::{Error, Result};
use crate::exec::{self, Local, local};

/// What [`cancel`] did.
pub use crate::exec::Cancel;

/// Cancels a call.
///
/// A call that has not begun never will, and whoever waits for it gets [`Error::Cancelled`]. An async call is dropped at
/// its next await. A call that runs on a thread is only told: see [`check_cancelled`]. Calls that depend on it fail. Of one that runs
/// on another node, what it called on further nodes is cancelled too.
///
/// # Errors
/// [`Error::NotInitialized`] or [`Error::ShutDown`] without a runtime.
pub fn cancel<T>(r: &ObjectRef<T>) -> Result<Cancel> {
    local::with(|local| local.engine.cancel(local, &r.raw))
}

fn current<R>(f: impl FnOnce(&exec::cell::Record) -> R) -> Option<R> {
    local::with(|local: &Local| local.current_record(f))
        .ok()
        .flatten()
}

fn told(call: &exec::cell::Record) -> bool {
    call.state() & exec::cell::CANCEL != 0 || exec::isolate::told_to_cancel()
}

/// Whether the call that runs here was told to cancel.
pub fn is_cancelled() -> bool {
    current(told).unwrap_or(false)
}

/// Returns from a call that was told to cancel: `mobula::check_cancelled()?`. A few nanoseconds.
///
/// # Errors
/// [`Error::Cancelled`] if so; returned from the function, it becomes the call's outcome.
pub fn check_cancelled() -> Result<()> {
    match current(|r| told(r).then_some(r.name())).flatten() {
        Some(function) => Err(Error::Cancelled { function }),
        None => Ok(()),
    }
}

/// Names a call of an actor whose history other nodes keep, for ever: it is the same when the call runs again elsewhere.
///
/// Shown as text it can be the key under which an outside system knows that it has done what the call asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    actor: (u64, u64),
    caller: u64,
    number: u64,
}

impl std::fmt::Display for CallId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (host, actor) = self.actor;
        let (caller, number) = (self.caller, self.number);
        write!(f, "{host:016x}-{actor:016x}-{caller:016x}-{number}")
    }
}

/// The id of the call that runs here, if it is a method of an actor whose history other nodes keep (`max_restarts` above 0, in a
/// cluster): what it does outside of its state can be done once by it, since a call may run again when a node dies. `None` in
/// any other call, inside a worker process, and outside of calls. Takes a lock.
///
/// ```
/// assert_eq!(mobula::call_id(), None, "no call runs here");
/// ```
pub fn call_id() -> Option<CallId> {
    current(|record| {
        let (actor, caller, number) = record.target()?.kept_call(record.id)?;
        Some(CallId {
            actor: (actor.host.get(), actor.number),
            caller,
            number,
        })
    })
    .flatten()
}

/// The ids of the GPUs that the call running here was given; empty if it asked for none.
pub fn gpu_ids() -> Vec<u32> {
    current(|r| r.extra().and_then(|e| e.gpus.get().cloned()))
        .flatten()
        .unwrap_or_default()
}
