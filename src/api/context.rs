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
/// its next await. A call that runs on a thread is only told: see [`check_cancelled`]. Calls that depend on it fail.
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

/// The ids of the GPUs that the call running here was given; empty if it asked for none.
pub fn gpu_ids() -> Vec<u32> {
    current(|r| r.extra().and_then(|e| e.gpus.get().cloned()))
        .flatten()
        .unwrap_or_default()
}
