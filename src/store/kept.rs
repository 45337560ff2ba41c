//! An object of the store for owners other than records.
//!
//! ```text
//! let kept = Kept::new(draft.seal());          // may be moved to disk from here on
//! let offset = kept.hold(&store.patience())?;  // in memory, in place, until `release`
//! ```
//!
//! Invariant: the object lies in a box of its own, so that its address stays. Left out: who counts
//! references to it.

#[cfg(test)]
use std::ops::Deref;
use std::ptr::NonNull;

use super::{Patience, Sealed, Stored};
use crate::base::Error;

/// A boxed [`Stored`], by a pointer: the arena's books have its address too.
pub struct Kept(NonNull<Stored>);

// SAFETY: as a `Box<Stored>`.
unsafe impl Send for Kept {}
// SAFETY: as above.
unsafe impl Sync for Kept {}

impl Kept {
    /// Keeps a sealed object: from here on it makes room when nobody reads it.
    pub fn new(sealed: Sealed) -> Kept {
        debug_assert!(
            sealed.memory.store.spill.watch.is_none(),
            "who watches this store takes the object for a record's"
        );
        let place = NonNull::from(Box::leak(Box::<Stored>::new_uninit())).cast::<Stored>();
        // SAFETY: the box is valid and aligned, and is never moved out of again.
        unsafe { Stored::place(sealed, place.as_ptr()) };
        Kept(place)
    }

    fn stored(&self) -> &Stored {
        // SAFETY: placed by `new`, dropped by `drop` alone.
        unsafe { self.0.as_ref() }
    }

    /// Bytes.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.stored().len()
    }

    /// Its bytes, in memory and in place for as long as the guard lives. Some nanoseconds if they
    /// are in memory; else they are read from disk, for which this blocks.
    ///
    /// # Errors
    /// [`Error::ObjectLost`], [`Error::StoreFull`].
    #[cfg(test)]
    pub(crate) fn pin(&self, patience: &Patience<'_>) -> Result<Pinned<'_>, Error> {
        self.stored().pin(patience)?;
        Ok(Pinned(self.stored()))
    }

    /// Keeps its bytes in memory and in place until one [`release`](Self::release); returns where they begin in the
    /// store's memory. Some nanoseconds if they are there; else they are read from disk, for which this blocks.
    ///
    /// # Errors
    /// [`Error::ObjectLost`], [`Error::StoreFull`].
    pub(crate) fn hold(&self, patience: &Patience<'_>) -> Result<u64, Error> {
        self.stored().pin(patience)?;
        Ok(self.stored().offset())
    }

    /// As [`hold`](Self::hold) if that takes no reading from disk.
    pub fn try_hold(&self) -> Option<u64> {
        self.stored().try_pin().then(|| self.stored().offset())
    }

    /// Ends one [`hold`](Self::hold).
    pub fn release(&self) {
        self.stored().unpin();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: placed by `new` in a leaked box.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// See [`Kept::pin`].
#[cfg(test)]
pub struct Pinned<'a>(&'a Stored);

#[cfg(test)]
impl Pinned<'_> {
    /// Where the object begins in the store's memory.
    pub fn offset(&self) -> u64 {
        self.0.offset()
    }
}

#[cfg(test)]
impl Deref for Pinned<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: pinned by this guard.
        unsafe { self.0.bytes() }
    }
}

#[cfg(test)]
impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.0.unpin();
    }
}
