//! Objects that go to disk, in the recording: a slice for each segment that is written, a moment for each object that left.
//!
//! They come back on the thread that reads them, which notes that itself.
//!
//! Invariant: it is given only to the store of a node, whose every movable object lies in a record. Left out: what moves and when,
//! which the store decides.

use std::sync::Arc;

use parking_lot::Mutex;

use super::cell::id_around;
use crate::store::{Stored, Watch};
use crate::trace::{Deed, Event, Lane, Part, Recorder};

/// The spiller's lane, once it has moved something.
struct Moves {
    recorder: Arc<Recorder>,
    lane: Mutex<Option<Lane>>,
}

/// What tells `recorder` of the moves of a node's store.
pub fn watch(recorder: &Arc<Recorder>) -> Box<dyn Watch> {
    Box::new(Moves {
        recorder: Arc::clone(recorder),
        lane: Mutex::default(),
    })
}

impl Moves {
    /// Notes a deed from `since` until now, or now if that is 0.
    fn note(&self, deed: Deed, since: u64, object: u64, count: u32, bytes: u64) {
        let mut lane = self.lane.lock();
        // Here, so that it has the name of the spiller's thread.
        let lane = lane.get_or_insert_with(|| Lane::new(&self.recorder, Part::Store));
        if let Some(pen) = lane.pen() {
            let end = pen.now();
            pen.put(&Event::Object {
                deed,
                name: 0,
                line: count,
                begin: if since == 0 { end } else { since },
                end,
                object,
                bytes,
            });
        }
    }
}

impl Watch for Moves {
    fn now(&self) -> u64 {
        self.recorder.ticks()
    }

    fn left(&self, object: *const Stored, bytes: u64) {
        // SAFETY: it stays for this call, and lies in a record, as this module's invariant says.
        let id = unsafe { id_around(object) };
        self.note(Deed::Spill, 0, id, 1, bytes);
    }

    fn wrote(&self, since: u64, objects: u32, bytes: u64) {
        self.note(Deed::Segment, since, 0, objects, bytes);
    }
}
