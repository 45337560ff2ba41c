//! Failures that nobody looked at: said once, when the last reference to them goes.
//!
//! Invariant: an accepted call's failure is seen by somebody or reported here, never silently lost.
//! Left out: cancellations, shutdown and dead actors' calls, which the program asked for.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::base::Error;

/// What is told of unobserved failures.
pub type Reporter = Arc<dyn Fn(&Error) + Send + Sync>;

static REPORTER: RwLock<Option<Reporter>> = RwLock::new(None);

/// Sends reports to `reporter` from now on; to standard error if none.
pub fn set_reporter(reporter: Option<Reporter>) {
    *REPORTER.write() = reporter;
}

/// Tells of a failure that nobody has seen.
#[cold]
pub fn unobserved(error: &Error) {
    if !matches!(
        error,
        Error::TaskFailed(_) | Error::StoreFull(_) | Error::Encode { .. }
    ) {
        return;
    }
    let reporter = REPORTER.read().clone();
    match reporter {
        Some(report) => {
            // The report runs wherever a reference is dropped; a panic there must not unwind through a drop.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| report(error)));
        }
        None => eprintln!("mobula: a call failed and nobody took its result: {error}"),
    }
}
