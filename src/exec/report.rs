//! Failures that nobody looked at: said once, when the last reference to them goes.
//!
//! Invariant: an accepted call's failure is seen by somebody or reported here, never silently lost.
//! Left out: cancellations, shutdown and dead actors' calls, which the program asked for.

use std::io::Write;
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

/// Whether the program did not ask for it.
fn matters(error: &Error) -> bool {
    match error {
        // Whoever depended on the failed call has taken its failure over.
        Error::DependencyFailed { cause, .. } => matters(cause),
        Error::TaskFailed(_)
        | Error::WorkerDied(_)
        | Error::StoreFull(_)
        | Error::Infeasible(_)
        | Error::BadAmount { .. }
        | Error::Encode { .. }
        | Error::Decode { .. } => true,
        _ => false,
    }
}

/// Tells of a failure that nobody has seen.
#[cold]
pub fn unobserved(error: &Error) {
    if !matters(error) {
        return;
    }
    let reporter = REPORTER.read().clone();
    match reporter {
        Some(report) => {
            // The report runs wherever a reference is dropped; a panic there must not unwind through a drop.
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| report(error)));
            if let Err(payload) = told {
                super::panics::discard(payload);
            }
        }
        // Not `eprintln`, which panics where standard error is closed.
        None => {
            let said = writeln!(
                std::io::stderr(),
                "mobula: a call failed and nobody took its result: {error}"
            );
            drop(said);
        }
    }
}
