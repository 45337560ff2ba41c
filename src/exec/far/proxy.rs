//! Records that stand for objects of other nodes.
//!
//! There is one for each object that this node has references to, however often it was sent: a reference that comes in again
//! is another count of the same record. The table knows each without holding it; when its last reference goes, the record
//! takes itself out of the table and whoever keeps books with the object's owner is told.
//!
//! An object of this node whose last reference matters to others, since they keep replicas of it, is in the table as itself.
//!
//! Invariant: a record in the table is not freed while the table's lock is held, since it takes itself out under it first. All
//! references to one object are of one type. Left out: messages.

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::super::INLINE_MAX;
use super::super::cell::{self, BODY, Blank, Phase, RawRef, Record};
use super::super::entry::{FnEntry, Kind};
use super::super::local::Local;
use super::super::options::Extra;
use crate::base::{Demand, ObjectKey};

/// What stands for the function of an object that another node owns.
static FAR: FnEntry = FnEntry::inert("an object of another node", Kind::Object);

/// Told when the last reference to an object of another node went.
pub type Gone = dyn Fn(ObjectKey) + Send + Sync;

/// One object's.
struct Known {
    record: NonNull<Record>,
    /// Records of this object that have not been freed yet: one that is being freed may already have a successor.
    records: u32,
    tag: u64,
    /// Somebody ends the record, or has.
    ends: bool,
}

/// The table.
pub struct Proxies {
    known: Mutex<HashMap<ObjectKey, Known>>,
    gone: Box<Gone>,
}

// SAFETY: the pointers are followed under the lock only, to records, which are Send and Sync.
unsafe impl Send for Proxies {}
// SAFETY: as above.
unsafe impl Sync for Proxies {}

/// What a reference from elsewhere is here.
pub enum Found {
    /// There was none: this record is claimed, and whoever made it has it settled.
    New(RawRef),
    /// It was known.
    Known(RawRef),
    /// It was known as one of another type.
    OtherType,
}

impl Proxies {
    /// An empty table.
    pub fn new(gone: Box<Gone>) -> Arc<Proxies> {
        Arc::new(Proxies {
            known: Mutex::default(),
            gone,
        })
    }

    /// The record that stands for the object, whose type has the number `tag`.
    pub fn find(self: &Arc<Proxies>, local: &Local, key: ObjectKey, tag: u64) -> Found {
        let mut known = self.known.lock();
        if let Some(k) = known.get(&key) {
            if k.tag != tag {
                return Found::OtherType;
            }
            // SAFETY: in the table, under its lock: see the invariant.
            if let Some(record) = unsafe { RawRef::try_from_weak(k.record) } {
                return Found::Known(record);
            }
        }
        let record = self.make(local, key);
        let k = known.entry(key).or_insert(Known {
            record: record.as_ptr(),
            records: 0,
            tag,
            ends: false,
        });
        k.record = record.as_ptr();
        k.ends = false;
        k.records += 1;
        Found::New(record)
    }

    /// The record that stands for the object, if there is one.
    pub fn get(&self, key: ObjectKey) -> Option<RawRef> {
        let known = self.known.lock();
        // SAFETY: as in `find`.
        known
            .get(&key)
            .and_then(|k| unsafe { RawRef::try_from_weak(k.record) })
    }

    /// Whether there is a record of it.
    pub fn has(&self, key: ObjectKey) -> bool {
        self.known.lock().contains_key(&key)
    }

    /// Takes the right to end the record that stands for the object, once.
    pub fn claim(&self, key: ObjectKey) -> bool {
        let mut known = self.known.lock();
        known
            .get_mut(&key)
            .is_some_and(|k| !std::mem::replace(&mut k.ends, true))
    }

    /// Every object known.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.known.lock().keys().copied().collect()
    }

    /// What an object of this node carries that is to be in the table under this key.
    pub fn ticket(self: &Arc<Proxies>, key: ObjectKey) -> Box<Extra> {
        let ticket = Ticket {
            table: Arc::downgrade(self),
            key,
        };
        Box::new(Extra {
            demand: None,
            ticket: Some(Box::new(ticket)),
            ..Extra::of_actor(Demand::NONE)
        })
    }

    /// Puts an object of this node into the table, which carries its ticket: it stands for itself there, until its last reference
    /// goes.
    pub fn know(&self, record: &RawRef) {
        let Some(key) = key_of(record) else { return };
        let known = Known {
            record: record.as_ptr(),
            records: 1,
            tag: 0,
            ends: true,
        };
        self.known.lock().insert(key, known);
    }

    fn make(self: &Arc<Proxies>, local: &Local, key: ObjectKey) -> RawRef {
        let blank = Blank {
            entry: &FAR,
            refs: 1,
            phase: Phase::Running,
            caller: 0,
            id: local.next_object(crate::trace::NOT_RECORDED),
            target: None,
            extra: Some(self.ticket(key)),
            caps: None,
        };
        // SAFETY: no slots.
        unsafe { cell::with_args(blank, 0, &[], BODY, INLINE_MAX) }
    }
}

/// The object that a record stands for, if it is one of another node.
pub fn key_of(record: &RawRef) -> Option<ObjectKey> {
    let ticket = record.extra()?.ticket.as_ref()?;
    ticket.downcast_ref::<Ticket>().map(|t| t.key)
}

/// In each record: takes it out of the table.
struct Ticket {
    table: Weak<Proxies>,
    key: ObjectKey,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(table) = self.table.upgrade() else {
            return;
        };
        let gone = {
            let mut known = table.known.lock();
            let Some(k) = known.get_mut(&self.key) else {
                return;
            };
            k.records -= 1;
            let last = k.records == 0;
            if last {
                known.remove(&self.key);
            }
            last
        };
        if gone {
            (table.gone)(self.key);
        }
    }
}
