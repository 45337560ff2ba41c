//! An object's bytes, while they are written and after.
//!
//! The one file of this room with `unsafe`: it turns an extent of the arena into slices. Invariant:
//! an extent has exactly one handle, [`Draft`] or [`Sealed`], which frees it when it goes; only a
//! Draft, by exclusive reference, writes. Left out: where the memory comes from.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::base::{Origin, StoreFull};
use crate::shm::{Arena, Extent, copy_into, copy_into_cold};

/// Untouched bytes from which on it pays to treat them apart.
const COLD_WORTH: usize = 64 << 10;

/// The memory of one object: sole owner of its extent.
struct Memory {
    arena: Arc<Arena>,
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: the extent belongs to this value alone, so it may move to, and be shared between, threads
// as a Box<[u8]> may.
unsafe impl Send for Memory {}
// SAFETY: as above: a shared Memory only hands out `&[u8]`.
unsafe impl Sync for Memory {}

impl Memory {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes from `address` lie inside a mapping that `arena` keeps alive, always
        // initialised (zeros or older bytes of this process), and no other handle names them.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.len) }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the exclusive reference makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.len) }
    }

    fn extent(&self) -> Extent {
        let offset = self.address.as_ptr().addr() - self.arena.base().as_ptr().addr();
        Extent {
            offset: offset as u64,
            len: self.len as u64,
        }
    }
}

impl Drop for Memory {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the extent came from this arena in `Draft::new`, this is its only handle, and the
        // borrows it gave out have ended.
        unsafe { self.arena.free(self.extent()) }
    }
}

/// An object being written: exclusive, readable and writable in place, 64-byte aligned.
///
/// The contents are unspecified until written: zeros, or bytes of earlier objects of this process.
/// Dropping it without sealing frees it.
pub struct Draft {
    memory: Memory,
    /// Bytes from here on lie on pages nobody has touched, as far as is known.
    cold_from: usize,
    /// There were such bytes: the arena waits to hear that they are written.
    fresh: bool,
}

impl Draft {
    #[inline]
    pub(super) fn new(arena: &Arc<Arena>, len: usize, origin: Origin) -> Result<Draft, StoreFull> {
        let (extent, cold_from) = arena.alloc_hinted(len, origin)?;
        Ok(Draft::of(arena, extent, cold_from))
    }

    pub(super) fn on_pages(
        arena: &Arc<Arena>,
        len: usize,
        origin: Origin,
    ) -> Result<Draft, StoreFull> {
        let (extent, cold_from) = arena.alloc_pages(len, origin)?;
        Ok(Draft::of(arena, extent, cold_from))
    }

    #[inline]
    fn of(arena: &Arc<Arena>, extent: Extent, cold_from: usize) -> Draft {
        let len = extent.len as usize;
        let address = arena.address(extent);
        let memory = Memory {
            arena: arena.clone(),
            address,
            len,
        };
        Draft {
            memory,
            cold_from,
            fresh: cold_from < len,
        }
    }

    /// Where it begins in the store's memory.
    pub fn offset(&self) -> u64 {
        self.memory.extent().offset
    }

    /// Copies `bytes` to position `pos` at memory speed; on several threads from 64 MiB on.
    ///
    /// # Panics
    /// If they do not fit there; nothing is written then.
    #[inline]
    pub fn write_at(&mut self, pos: usize, bytes: &[u8]) {
        let len = self.len();
        let end = pos.checked_add(bytes.len()).filter(|end| *end <= len);
        let Some(end) = end else {
            panic!(
                "{} bytes at {pos} do not fit an object of {len}",
                bytes.len()
            )
        };
        let cold = end.saturating_sub(self.cold_from.max(pos));
        if cold < COLD_WORTH {
            return copy_into(&mut self.memory.bytes_mut()[pos..end], bytes);
        }
        let warm = bytes.len() - cold;
        let page = self.memory.arena.pages().size;
        let (warm_to, cold_to) = self.memory.bytes_mut()[pos..end].split_at_mut(warm);
        copy_into(warm_to, &bytes[..warm]);
        copy_into_cold(cold_to, &bytes[warm..], page);
        // A write further on leaves untouched pages behind it, which then only cost their faults.
        self.cold_from = end;
    }

    /// Ends writing: from here on the bytes never change. Free of cost, or a mutex if
    /// the pages were fresh.
    #[inline]
    pub fn seal(self) -> Sealed {
        if self.fresh {
            self.memory.arena.settle();
        }
        Sealed {
            memory: self.memory,
        }
    }
}

impl Deref for Draft {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.memory.bytes()
    }
}

impl DerefMut for Draft {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.bytes_mut()
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Draft({} bytes at {:p})",
            self.len(),
            self.memory.address
        )
    }
}

/// An object that is complete: immutable, shared freely between threads, freed when dropped.
pub struct Sealed {
    memory: Memory,
}

impl Sealed {
    /// Address of the first byte; a multiple of 64, the same until the drop.
    #[inline]
    pub fn address(&self) -> *const u8 {
        self.memory.address.as_ptr()
    }

    /// Where it begins in the store's memory.
    pub fn offset(&self) -> u64 {
        self.memory.extent().offset
    }
}

impl Deref for Sealed {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.memory.bytes()
    }
}

impl AsRef<[u8]> for Sealed {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Sealed({} bytes at {:p})",
            self.len(),
            self.memory.address
        )
    }
}
