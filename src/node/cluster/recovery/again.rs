//! Calls in the log that run again, after the node that ran them first died.
//!
//! Invariant: they run before any other call, and none of them is logged once more. Left out: the mailbox (`exec`), and the log.

use std::sync::Arc;

use super::host::{Call, KeptHost};
use super::load::Load;
use crate::base::Error;
use crate::core::recovery::Entry;
use crate::exec::Local;

impl KeptHost {
    /// Runs a logged call again, before any other.
    pub fn replay(self: &Arc<KeptHost>, local: &Local, entry: &Entry<Load>) -> Result<(), Error> {
        let Load::Call(kept) = &entry.load else {
            return Ok(());
        };
        let parcel = kept.parcel(local)?;
        if !crate::exec::far::parcel::belongs(parcel.function, self.entry) {
            return Err(Error::Cluster {
                why: Arc::from("its history names a method of another actor's"),
            });
        }
        let came = Call {
            id: entry.call,
            settled: 0,
            number: 0,
            caller: kept.caller,
            parcel,
        };
        self.accept(local, came, true);
        Ok(())
    }

    /// Whether the turn has come of a call that is in the log already.
    pub fn replays(&self, record: u64) -> bool {
        let mut replays = self.replays.lock();
        !replays.is_empty() && replays.remove(&record)
    }
}
