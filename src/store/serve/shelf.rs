//! Where the served objects lie: the table's view of the store.
//!
//! Invariant: what the table holds is alive; dropping it gives its memory back. The one file here that
//! knows the store, so that the table above stays about names, pins and clients. Left out: those.

use std::panic::Location;

use crate::base::Origin;
use crate::store::proto::{Denial, ServedStats};
use crate::store::{Draft, Sealed, Store};

/// Up to this many bytes an object's contents are sent; from there on its pages are lent.
const SEND_MAX: u64 = 16 << 10;

/// The store, as the table uses it.
pub struct Shelf {
    store: Store,
}

/// An object being written.
pub struct Place {
    draft: Draft,
    /// Its pages are the client's to write.
    lent: bool,
}

/// A complete object.
pub struct Shelved {
    sealed: Sealed,
}

impl Shelf {
    pub fn new(store: Store) -> Shelf {
        Shelf { store }
    }

    /// Room for an object. Pages are lent, where that is allowed, if they would not be mostly wasted.
    pub fn place(&self, len: u64, may_lend: bool) -> Result<Place, Denial> {
        let capacity = self.store.stats().capacity;
        let size = usize::try_from(len).ok().filter(|_| len <= capacity);
        let Some(size) = size else {
            return Err(Denial::TooLarge { capacity });
        };
        let lent = may_lend && len > SEND_MAX.max(self.store.grain() / 2);
        let origin = Origin::Create(Location::caller());
        let draft = match lent {
            true => self.store.create_on_pages(size, origin),
            false => self.store.create(size, origin),
        };
        let draft = draft.map_err(|full| Denial::Full {
            capacity: full.capacity,
            used: full.used,
            largest_free: full.largest_free,
        })?;
        Ok(Place { draft, lent })
    }

    /// Fills in the counts of memory.
    pub fn count(&self, stats: &mut ServedStats) {
        let memory = self.store.stats();
        stats.capacity = memory.capacity;
        stats.used = memory.used;
        stats.reserved = memory.reserved;
        stats.pages = self.store.pages().to_string();
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
            sealed: self.draft.seal(),
        }
    }
}

impl Shelved {
    /// Where it begins in the store's memory.
    pub fn offset(&self) -> u64 {
        self.sealed.offset()
    }
}
