//! Where the served objects lie: the server's view of the store.
//!
//! Invariant: nothing here waits, but for the two functions that say so, which helpers call. The one
//! file of the server that knows the store, so that the table above stays about names, pins and
//! clients. Left out: those.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::base::{Error, Origin, StoreFull};
use crate::store::proto::{Denial, ServedStats};
use crate::store::{Draft, Kept, Patience, Store};

/// Up to this many bytes an object's contents are sent; from there on its pages are lent.
const SEND_MAX: u64 = 16 << 10;

/// The store, as the server uses it. Clones are the same.
#[derive(Clone)]
pub struct Shelf {
    store: Store,
}

/// An object being written.
pub struct Place {
    draft: Draft,
    /// Its pages are the client's to write.
    lent: bool,
}

/// What is to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    len: u64,
    lent: bool,
}

/// A complete object, which may be on disk while nobody holds it.
#[derive(Clone)]
pub struct Shelved {
    kept: Arc<Kept>,
}

impl Shelf {
    pub fn new(store: Store) -> Shelf {
        Shelf { store }
    }

    /// What an object of this length takes. Pages are lent, where that is allowed, if they would not
    /// be mostly wasted.
    pub fn want(&self, len: u64, may_lend: bool) -> Result<Wanted, Denial> {
        let capacity = self.store.stats().capacity;
        if len > capacity {
            return Err(Denial::TooLarge { capacity });
        }
        let lent = may_lend && len > SEND_MAX.max(self.store.grain() / 2);
        Ok(Wanted { len, lent })
    }

    /// Room for an object; `None` if it has to be waited for.
    pub fn try_place(&self, wanted: Wanted) -> Result<Option<Place>, Denial> {
        let len = wanted.len as usize;
        let draft = match wanted.lent {
            true => self.store.try_create_on_pages(len, origin()),
            false => self.store.try_create(len, origin()),
        };
        let place = |draft| wanted.with(draft);
        match draft {
            None if self.store.patience().longest.is_zero() => {
                self.place(wanted, &AtomicBool::new(false)).map(Some)
            }
            draft => Ok(draft.map(place)),
        }
    }

    /// Waits for room, for as long as the store's patience says, or until it is given up.
    pub fn place(&self, wanted: Wanted, given_up: &AtomicBool) -> Result<Place, Denial> {
        let hopeless = || given_up.load(Relaxed);
        let patience = Patience {
            hopeless: &hopeless,
            ..self.store.patience()
        };
        let len = wanted.len as usize;
        let draft = match wanted.lent {
            true => self
                .store
                .create_on_pages_patiently(len, origin(), &patience),
            false => self.store.create_patiently(len, origin(), &patience),
        };
        draft.map(|draft| wanted.with(draft)).map_err(|e| full(&e))
    }

    /// Fills in the counts of memory and disk.
    pub fn count(&self, stats: &mut ServedStats) {
        let memory = self.store.stats();
        stats.capacity = memory.capacity;
        stats.used = memory.used;
        stats.reserved = memory.reserved;
        stats.pages = self.store.pages().to_string();
        let disk = self.store.spill_stats();
        stats.on_disk = disk.bytes;
        stats.objects_on_disk = disk.objects;
        stats.moved_to_disk = disk.moved;
        stats.restored = disk.restored;
        stats.disk = match (disk.place, disk.off) {
            (Some(place), None) => place,
            (Some(place), Some(why)) => format!("{place}: nothing is moved there now: {why}"),
            (None, why) => why.map(|why| why.to_string()).unwrap_or_default(),
        };
    }
}

fn origin() -> Origin {
    Origin::Create(Location::caller())
}

fn full(full: &StoreFull) -> Denial {
    Denial::Full {
        capacity: full.capacity,
        used: full.used,
        largest_free: full.largest_free,
    }
}

impl Wanted {
    fn with(self, draft: Draft) -> Place {
        Place {
            draft,
            lent: self.lent,
        }
    }
}

impl Place {
    /// Whether its pages are the client's to write.
    pub fn lent(&self) -> bool {
        self.lent
    }

    pub fn offset(&self) -> u64 {
        self.draft.offset()
    }

    /// Copies a piece in; false if it does not fit, or the pages are lent.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> bool {
        let end = at.checked_add(bytes.len() as u64);
        let fits = end.is_some_and(|end| end <= self.draft.len() as u64);
        if !fits || self.lent {
            return false;
        }
        self.draft.write_at(at as usize, bytes);
        true
    }

    pub fn seal(self) -> Shelved {
        Shelved {
            kept: Arc::new(Kept::new(self.draft.seal())),
        }
    }
}

impl Shelved {
    /// Keeps it in place, if it is in memory, until the [`release`](Self::release); says where.
    pub fn try_hold(&self) -> Option<u64> {
        self.kept.try_hold()
    }

    /// As [`try_hold`](Self::try_hold), reading it from disk, and waiting for room for it.
    pub fn hold(&self, shelf: &Shelf) -> Result<u64, Denial> {
        self.kept
            .hold(&shelf.store.patience())
            .map_err(|e| match e {
                Error::StoreFull(e) => full(&e),
                e => Denial::Lost { why: e.to_string() },
            })
    }

    /// Ends a hold.
    pub fn release(&self) {
        self.kept.release();
    }
}
