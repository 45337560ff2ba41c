//! The object store of one node: create, fill, seal, read, drop.
//!
//! Invariant: bytes are written only through the one [`Draft`] of an object and read only once it
//! is [`Sealed`]; the arena gets them back exactly once. Left out: reference counts of the
//! cluster, spilling, other processes.

mod client;
mod object;
mod proto;
mod serve;
mod sizing;
mod socket;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::base::{Holder, Origin, StoreFull};
use crate::shm::{Arena, ArenaOptions, ArenaStats, HugePages, PageKind, Prefault, StorePages};

pub use crate::base::{BadObjectId, ObjectId, ObjectState, StoreError};
pub use client::{
    Client, Event, Object, ObjectInfo, StoreView, Subscription, Writing, content_hash,
};
pub(crate) use object::{Draft, Sealed};
pub use proto::ServedStats;
pub use serve::{Server, ServerOptions};
pub use sizing::default_capacity;

/// What a store is opened with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreOptions {
    /// Bytes of shared memory; 30 % of the machine's (or the container's) memory if not given.
    pub capacity: Option<u64>,
    /// How much to fault in ahead of use.
    pub prefault: Prefault,
    /// Which pages to ask for.
    pub huge_pages: HugePages,
}

/// A handle of the store; clones are the same store. The memory is unmapped when the last handle
/// and the last object are gone.
#[derive(Clone)]
pub(crate) struct Store {
    arena: Arc<Arena>,
}

impl Store {
    /// Maps the store's memory without touching it: well under a millisecond. Fails with
    /// `InvalidInput` if the capacity is 0 or more than there could ever be, with `Unsupported` if
    /// pages are required that are not to be had, or as the kernel does.
    pub fn open(options: StoreOptions) -> io::Result<Store> {
        let capacity = match options.capacity {
            Some(capacity) => capacity,
            None => sizing::default_capacity(sizing::DEFAULT_PERCENT)?,
        };
        let too_much = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        if let Some(why) = sizing::more_than_the_machine_has(capacity) {
            return Err(too_much(why));
        }
        let arena = Arena::create(ArenaOptions {
            capacity,
            huge_pages: options.huge_pages,
            prefault: options.prefault,
        })?;
        // Reserved pages are there. Others come as they are written, if there are any left.
        if arena.pages().kind != PageKind::Reserved
            && let Some(why) = sizing::more_than_is_allowed(arena.capacity())
        {
            return Err(too_much(why));
        }
        Ok(Store {
            arena: Arc::new(arena),
        })
    }

    /// Finds room for an object of `len` bytes, 0 included. Tens of nanoseconds when small; does
    /// not wait for room. Fails naming who holds the store.
    #[inline]
    pub fn create(&self, len: usize, origin: Origin) -> Result<Draft, StoreFull> {
        Draft::new(&self.arena, len, origin)
    }

    /// As [`create`](Self::create), on pages of its own: what another process may be lent to write.
    pub fn create_on_pages(&self, len: usize, origin: Origin) -> Result<Draft, StoreFull> {
        Draft::on_pages(&self.arena, len, origin)
    }

    /// The file of the store's memory, to be mapped by other processes.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.arena.file()
    }

    /// The unit in which its pages can be lent: what begins at a multiple of it may be.
    pub fn grain(&self) -> u64 {
        self.arena.grain()
    }

    /// What its pages are, and why.
    pub fn pages(&self) -> &StorePages {
        self.arena.pages()
    }

    /// Counts of the store's memory. Microseconds.
    pub fn stats(&self) -> ArenaStats {
        self.arena.stats()
    }

    /// The `n` origins whose objects hold most, biggest first. Cost: the number of origins.
    pub fn holders(&self, n: usize) -> Vec<Holder> {
        self.arena.holders(n)
    }
}

#[cfg(all(test, not(miri)))]
mod tests;
