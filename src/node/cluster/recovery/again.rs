//! Calls in the log that run again, after the node that ran them first died.
//!
//! Invariant: they run before any other call, and none of them is logged once more. Left out: the mailbox (`exec`), and the log.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::host::{Call, KeptHost};
use super::load::Load;
use crate::base::Error;
use crate::core::recovery::{Entry, Settled};
use crate::exec::far::parcel;
use crate::exec::{Local, events};
use crate::trace::Deed;

impl KeptHost {
    /// Runs a logged call again, before any other.
    pub fn replay(self: &Arc<KeptHost>, local: &Local, entry: &Entry<Load>) -> Result<(), Error> {
        let Load::Call(kept) = &entry.load else {
            return Ok(());
        };
        let call = kept.parcel(local)?;
        // A checkpoint changes nothing, and is in no log.
        if !parcel::is_method_of(call.function, self.entry) {
            return Err(Error::Cluster {
                why: Arc::from("its history names a method of another actor's"),
            });
        }
        let came = Call {
            id: entry.call,
            settled: Settled::default(),
            number: 0,
            caller: kept.caller,
            parcel: call,
        };
        self.accept(local, came, true);
        Ok(())
    }

    /// Whether the turn has come of a call that is in the log already.
    pub fn replays(&self, record: u64) -> bool {
        let mut replays = self.replay.records.lock();
        !replays.is_empty() && replays.remove(&record)
    }

    /// One of them has ended.
    pub fn replayed(&self, local: &Local) {
        let replay = &self.replay;
        if replay.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(cell) = self.cell()
        {
            let begin = replay.since.load(Ordering::Relaxed);
            let calls = replay.all.load(Ordering::Relaxed);
            events::kept(local, Deed::Replay, &cell, begin, calls, 0);
        }
    }
}

/// How far an actor's replay is.
#[derive(Default)]
pub(super) struct Replay {
    /// Calls in the mailbox that are in the log already, by their records.
    pub records: Mutex<HashSet<u64>>,
    /// How many there are in all, and how many of them have not ended.
    all: AtomicU64,
    left: AtomicU64,
    /// When the first could begin.
    since: AtomicU64,
}

impl Replay {
    /// So many calls are in the log.
    pub fn is_to_run(&self, calls: u64) {
        self.all.store(calls, Ordering::Relaxed);
        self.left.store(calls, Ordering::Release);
    }

    /// The actor has been made.
    pub fn begins(&self) {
        self.since.store(events::now(), Ordering::Relaxed);
    }
}
