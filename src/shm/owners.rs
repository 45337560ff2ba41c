//! Whose page is it: from an offset to the chunk or run that holds it, in one load.
//!
//! Invariant: a page's entry names a chunk while the page belongs to it, or says "a long object
//! begins here" while one does; every other entry is 0. Entries change only under the lock of the
//! owner. The table is zeroed lazily by the kernel: four bytes of address space per page, resident
//! only where used. Left out: everything the owner knows about the page.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::extents::PAGE;

/// Who holds the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody that could free an object here.
    None,
    /// A long object begins at this page.
    Long,
    /// The page is part of this chunk of this shard.
    Chunk {
        /// Number of the shard.
        shard: usize,
        /// Number of the chunk within the shard.
        chunk: u32,
    },
}

const LONG: u32 = u32::MAX;
/// Bits of an entry that hold the shard; the rest is the chunk's number plus one.
const SHARD_BITS: u32 = 8;
/// The most shards the table can tell apart.
pub const SHARDS_MAX: usize = 1 << SHARD_BITS;

/// One entry for each page of the arena.
pub struct Owners {
    pages: Box<[AtomicU32]>,
}

impl Owners {
    /// No page has an owner. No memory is touched.
    pub fn new(pages: usize) -> Owners {
        let zeroed = Box::<[AtomicU32]>::new_zeroed_slice(pages);
        // SAFETY: all zero bits are a valid AtomicU32.
        Owners {
            pages: unsafe { zeroed.assume_init() },
        }
    }

    /// Who holds the page at this offset.
    ///
    /// Relaxed suffices: whoever frees an object got it, directly or not, from the thread that
    /// allocated it, and that hand-over orders this load after the entry's store.
    #[inline]
    pub fn at(&self, offset: u64) -> Owner {
        match self
            .pages
            .get((offset / PAGE) as usize)
            .map_or(0, |p| p.load(Relaxed))
        {
            0 => Owner::None,
            LONG => Owner::Long,
            entry => Owner::Chunk {
                shard: entry as usize & (SHARDS_MAX - 1),
                chunk: (entry >> SHARD_BITS) - 1,
            },
        }
    }

    /// Names the owner of the `len` bytes from `offset`; both multiples of a page.
    pub fn set(&self, offset: u64, len: u64, owner: Owner) {
        let entry = match owner {
            Owner::None => 0,
            Owner::Long => LONG,
            Owner::Chunk { shard, chunk } => {
                assert!(shard < SHARDS_MAX && chunk < (LONG >> SHARD_BITS) - 1);
                (chunk + 1) << SHARD_BITS | shard as u32
            }
        };
        let pages = (offset / PAGE) as usize..((offset + len) / PAGE) as usize;
        for page in &self.pages[pages] {
            page.store(entry, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_owners_by_page() {
        let owners = Owners::new(100);
        let chunk = Owner::Chunk {
            shard: 255,
            chunk: 70_000,
        };
        owners.set(2 * PAGE, 3 * PAGE, chunk);
        owners.set(9 * PAGE, PAGE, Owner::Long);
        assert_eq!(owners.at(2 * PAGE - 1), Owner::None);
        assert_eq!(owners.at(2 * PAGE), chunk);
        assert_eq!(owners.at(5 * PAGE - 1), chunk);
        assert_eq!(owners.at(5 * PAGE), Owner::None);
        assert_eq!(owners.at(9 * PAGE), Owner::Long);
        owners.set(2 * PAGE, 3 * PAGE, Owner::None);
        assert_eq!(owners.at(3 * PAGE), Owner::None);
        assert_eq!(owners.at(u64::MAX), Owner::None, "outside is nobody's");
    }
}
