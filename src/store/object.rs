//! An object's bytes, while they are written and after.
//!
//! One of the two files of this room with `unsafe`: it turns an extent of the arena into slices.
//! Invariant: an extent has exactly one handle, [`Draft`], [`Sealed`] or
//! [`Stored`](super::Stored), which frees it when it goes; only a Draft, by exclusive reference,
//! writes. Left out: where the memory comes from.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::Shared;
use crate::shm::{Extent, Found, Tag, copy_into, copy_into_cold};

/// Untouched bytes from which on it pays to treat them apart.
const COLD_WORTH: usize = 64 << 10;

/// The memory of one object: sole owner of its extent.
pub(super) struct Memory {
    pub(super) store: Arc<Shared>,
    pub(super) address: NonNull<u8>,
    pub(super) len: usize,
    pub(super) tag: Tag,
}

// SAFETY: the extent belongs to this value alone, so it may move to, and be shared between, threads
// as a Box<[u8]> may.
unsafe impl Send for Memory {}
// SAFETY: as above: a shared Memory only hands out `&[u8]`.
unsafe impl Sync for Memory {}

impl Memory {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes from `address` lie inside a mapping that `store` keeps alive, always
        // initialised (zeros or older bytes of this process), and no other handle names them.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.len) }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the exclusive reference makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.len) }
    }

    fn extent(&self) -> Extent {
        self.store.extent(self.address.as_ptr(), self.len)
    }
}

impl Drop for Memory {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the extent came from this store's arena in `Draft::of`, this is its only handle,
        // and the borrows it gave out have ended.
        unsafe { self.store.free(self.extent()) }
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
    pub(super) fn of(store: &Arc<Shared>, found: Found) -> Draft {
        let len = found.extent.len as usize;
        let memory = Memory {
            store: store.clone(),
            address: store.arena.address(found.extent),
            len,
            tag: found.tag,
        };
        Draft {
            memory,
            cold_from: found.cold_from,
            fresh: found.cold_from < len,
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
        let page = self.memory.store.arena.pages().size;
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
            self.memory.store.arena.settle();
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
///
/// It stays in memory. To let it make room it becomes a [`Stored`](super::Stored).
pub struct Sealed {
    pub(super) memory: Memory,
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
