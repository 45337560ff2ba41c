//! The latest failures of a running program, equal ones counted together.
//!
//! Invariant: at most [`MOST`] kinds of failure are kept, those that happened last; noting one costs a lock and a short
//! search, and makes no text. Left out: failures that only pass on another's (a call whose argument failed), and ends that
//! the program asked for: cancelling, stopping, shutting down.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::Error;
use crate::base::query::Query;
use crate::base::snapshot::{ErrorEntry, Id, List, Micros};

/// The most kinds of failure that are kept.
const MOST: usize = 256;
/// The most bytes of a cause that are shown.
const CAUSE_MAX: usize = 4096;

#[derive(Debug, Clone)]
enum Cause {
    Error(Error),
    Text(Arc<str>),
}

#[derive(Debug, Clone)]
struct Mishap {
    function: &'static str,
    cause: Cause,
    call: u64,
    first: Micros,
    last: Micros,
    count: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Mishaps {
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    /// The one that happened last is the last.
    entries: Vec<Mishap>,
    dropped: u64,
}

impl Mishaps {
    /// A call failed.
    pub fn failed(&self, function: &'static str, call: u64, error: &Error, now: Micros) {
        if kind(error).is_some() {
            self.add(function, Cause::Error(error.clone()), call, now);
        }
    }

    /// An actor died, and nobody had asked for it.
    pub fn died(&self, actor: &'static str, cause: &str, now: Micros) {
        self.add(actor, Cause::Text(Arc::from(cause)), 0, now);
    }

    fn add(&self, function: &'static str, cause: Cause, call: u64, now: Micros) {
        let mut log = self.log.lock();
        let known = log
            .entries
            .iter()
            .rposition(|m| m.function == function && same(&m.cause, &cause));
        let entry = match known {
            Some(i) => {
                let known = log.entries.remove(i);
                Mishap {
                    cause,
                    call,
                    last: now,
                    count: known.count + 1,
                    ..known
                }
            }
            None => {
                if log.entries.len() == MOST {
                    log.entries.remove(0);
                    log.dropped += 1;
                }
                Mishap {
                    function,
                    cause,
                    call,
                    first: now,
                    last: now,
                    count: 1,
                }
            }
        };
        log.entries.push(entry);
    }

    /// Those that are asked for, latest first.
    pub fn list(&self, query: &Query) -> List<ErrorEntry> {
        let (mut entries, dropped) = {
            let log = self.log.lock();
            (log.entries.clone(), log.dropped)
        };
        entries.reverse();
        let mut list = List {
            incomplete: dropped > 0,
            ..List::default()
        };
        for m in entries {
            let takes = query.takes_function(m.function)
                && query.takes_state(m.kind())
                && query.takes_id(m.call);
            if takes {
                list.offer(query.bound(), || m.entry());
            }
        }
        list
    }
}

impl Mishap {
    fn kind(&self) -> &'static str {
        match &self.cause {
            Cause::Error(e) => kind(e).unwrap_or("failed"),
            Cause::Text(_) => "actor died",
        }
    }

    fn entry(&self) -> ErrorEntry {
        let mut cause = match &self.cause {
            Cause::Error(e) => e.to_string(),
            Cause::Text(t) => t.to_string(),
        };
        if cause.len() > CAUSE_MAX {
            cause.truncate(cause.floor_char_boundary(CAUSE_MAX));
            cause.push_str(" ...");
        }
        ErrorEntry {
            function: self.function.to_owned(),
            kind: self.kind().to_owned(),
            cause,
            call: (self.call != 0).then_some(Id(self.call)),
            first: self.first,
            last: self.last,
            count: self.count,
        }
    }
}

/// What kind of failure it is; `None` for what is not kept.
fn kind(error: &Error) -> Option<&'static str> {
    use crate::base::FailureKind;
    Some(match error {
        Error::TaskFailed(f) => match f.kind {
            FailureKind::Panicked => "panicked",
            FailureKind::Returned => "returned an error",
        },
        Error::WorkerDied(_) => "worker died",
        Error::StoreFull(_) => "store full",
        Error::Infeasible(_) => "infeasible",
        Error::BadAmount { .. } => "bad amount",
        Error::Decode { .. } => "decode",
        Error::Encode { .. } => "encode",
        Error::MailboxFull { .. } => "mailbox full",
        Error::DependencyFailed { .. }
        | Error::Cancelled { .. }
        | Error::ShutDown
        // Noted once, as the actor's.
        | Error::ActorDied { .. } => return None,
        _ => "failed",
    })
}

fn same(a: &Cause, b: &Cause) -> bool {
    match (a, b) {
        (Cause::Text(a), Cause::Text(b)) => a == b,
        (Cause::Error(Error::TaskFailed(a)), Cause::Error(Error::TaskFailed(b))) => {
            a.kind == b.kind && a.location == b.location && a.message == b.message
        }
        // Their numbers differ each time; what they are does not.
        (Cause::Error(a), Cause::Error(b)) => {
            std::mem::discriminant(a) == std::mem::discriminant(b)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Failure, FailureKind};

    fn failure(message: &str) -> Error {
        Error::TaskFailed(Arc::new(Failure {
            kind: FailureKind::Panicked,
            function: "f",
            message: message.into(),
            type_name: "str",
            sources: Vec::new(),
            location: "a.rs:1:2".into(),
            attempts: 1,
            backtrace: None,
        }))
    }

    #[test]
    fn equal_failures_are_one_entry_and_the_latest_comes_first() {
        let mishaps = Mishaps::default();
        mishaps.failed("f", 1, &failure("no"), 10);
        mishaps.died("A", "its machine burned", 15);
        mishaps.failed("f", 2, &failure("no"), 20);
        mishaps.failed("f", 3, &failure("other"), 12);
        mishaps.failed("f", 4, &Error::ShutDown, 13);
        mishaps.failed("f", 5, &Error::Cancelled { function: "f" }, 14);
        let list = mishaps.list(&Query::default());
        let short: Vec<_> = list
            .items
            .iter()
            .map(|e| (e.kind.as_str(), e.first, e.last, e.count, e.call))
            .collect();
        assert_eq!(
            short,
            [
                ("panicked", 12, 12, 1, Some(Id(3))),
                ("panicked", 10, 20, 2, Some(Id(2))),
                ("actor died", 15, 15, 1, None),
            ]
        );
        assert!(list.items[1].cause.contains("no"));
        let died = mishaps.list(&Query::default().state("actor died"));
        assert_eq!(died.items.len(), 1);
    }

    #[test]
    fn no_program_fills_it_without_bound() {
        let mishaps = Mishaps::default();
        for i in 0..10_000 {
            mishaps.failed("f", i, &failure(&format!("{i} {}", "x".repeat(9_000))), i);
        }
        let list = mishaps.list(&Query::default().limit(10));
        assert_eq!(list.items.len(), 10);
        assert_eq!(list.total(), MOST as u64);
        assert!(list.incomplete && list.items[0].cause.contains("9999 "));
        assert!(list.items.iter().all(|e| e.cause.len() < CAUSE_MAX + 10));
    }
}
