//! The object store of one node: create, fill, seal, read, drop.
//!
//! Invariant: bytes are written only through the one [`Draft`] of an object and read only once it
//! is [`Sealed`]; the arena gets them back exactly once. Left out: reference counts of the
//! cluster, spilling, other processes.

mod object;
pub(crate) mod sizing;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::base::{Holder, Origin, StoreFull};
use crate::shm::{Arena, ArenaOptions, ArenaStats, Prefault};

pub(crate) use object::{Draft, Sealed};

/// What a store is opened with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreOptions {
    /// Bytes of shared memory; 30 % of the machine's (or the container's) memory if not given.
    pub capacity: Option<u64>,
    /// How much to fault in ahead of use.
    pub prefault: Prefault,
}

/// A handle of the store; clones are the same store. The memory is unmapped when the last handle
/// and the last object are gone.
#[derive(Clone)]
pub(crate) struct Store {
    arena: Arc<Arena>,
}

impl Store {
    /// Maps the store's memory without touching it: well under a millisecond. Fails if the capacity
    /// is 0 or the kernel refuses the mapping.
    pub fn open(options: StoreOptions) -> io::Result<Store> {
        let capacity = match options.capacity {
            Some(capacity) => capacity,
            None => sizing::default_capacity()?,
        };
        let arena = Arena::create(ArenaOptions {
            capacity,
            prefault: options.prefault,
        })?;
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
