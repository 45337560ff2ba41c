//! A word in the allocator's books for whoever owns a live extent.
//!
//! The owner sets it once, without a lock, to where it keeps what it knows about the extent; who
//! walks the books finds owners through it. Invariant: the word is null from the allocation until
//! the owner sets it and again from the moment the extent is free, which happens under the lock of
//! the books: a word read under that lock that is not null belongs to an extent that is live for
//! as long as the lock is held. Left out: what the word means.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering::Acquire, Ordering::Release};

use crate::base::Origin;

/// The place of an extent's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(NonNull<AtomicPtr<()>>);

// SAFETY: it only names an atomic; `set` and `get` say when that may be touched.
unsafe impl Send for Tag {}
// SAFETY: as above.
unsafe impl Sync for Tag {}

impl Tag {
    pub(super) fn of(word: &AtomicPtr<()>) -> Tag {
        Tag(NonNull::from(word))
    }

    /// Sets the word. What was written before can be seen by whoever reads it.
    ///
    /// # Safety
    /// The extent is live and the caller's.
    #[inline]
    pub unsafe fn set(self, owner: *const ()) {
        // SAFETY: the books keep the word where it is while the extent is live.
        unsafe { self.0.as_ref() }.store(owner.cast_mut(), Release);
    }

    /// Reads it. Only the books hand tags of others' extents out, and only under their lock.
    pub(super) fn get(self) -> *const () {
        // SAFETY: a tag is made from a live extent's books and this is called under their lock.
        unsafe { self.0.as_ref() }.load(Acquire)
    }
}

/// Room that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where it begins.
    pub offset: u64,
    /// The owner's word.
    pub tag: Tag,
}

/// A live extent, seen under the lock of the books.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// Where it begins.
    pub offset: u64,
    /// The length asked for.
    pub len: u64,
    /// Who asked.
    pub origin: Origin,
    pub(super) tag: Tag,
}

impl Live {
    /// What its owner has set; null if nothing.
    pub fn owner(&self) -> *const () {
        self.tag.get()
    }

    /// Takes the owner out of the books: it ends before the extent does.
    pub fn disown(&self) {
        // SAFETY: live, since this is seen under the lock of the books.
        unsafe { self.tag.set(std::ptr::null()) };
    }
}
