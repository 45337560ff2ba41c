//! An object that may be moved to disk while nobody reads it.
//!
//! A [`Stored`] lies at one address from [`place`](Stored::place) to its drop and is known to the
//! arena's books by that address, so that whoever makes room finds it. Readers [`pin`](Stored::pin)
//! it for as long as they read.
//!
//! Invariant: [`word`](super::word) says where the bytes are; `at` is their address while they are
//! here and their [`Ticket`] while they are away, and changes only between the two marks of a
//! change. A Stored whose address is in the books is alive for as long as the lock of the books is
//! held, since its drop frees the extent under that lock first. Left out: how bytes come and go.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};

use super::object::{Draft, Memory, Sealed};
use super::spill::Ticket;
use super::word::{Seen, Word};
use super::{Came, Distant, Patience, Shared};
use crate::base::{Error, Origin};
use crate::shm::Live;

/// A sealed object at its final address.
pub struct Stored {
    store: Arc<Shared>,
    /// The bytes' address, or a boxed [`Ticket`].
    at: AtomicPtr<u8>,
    len: usize,
    pub(super) word: Word,
    /// The store's clock when it was last used.
    used: AtomicU32,
}

// SAFETY: as `Sealed`: the bytes are this value's alone, and a shared one only hands out `&[u8]`; the
// ticket is Send.
unsafe impl Send for Stored {}
// SAFETY: as above; `at` changes only as the word says.
unsafe impl Sync for Stored {}

impl Stored {
    /// Writes the object to where it will stay, and makes it known as one that may be moved to disk.
    ///
    /// # Safety
    /// `at` is valid for writes of a Stored and aligned, and what is there is neither moved nor used
    /// otherwise until it is dropped in place.
    #[inline]
    pub unsafe fn place(sealed: Sealed, at: *mut Stored) {
        let sealed = ManuallyDrop::new(sealed);
        let memory: &Memory = &sealed.memory;
        // SAFETY: the handle is taken apart: its `store` is read once and it is not dropped; the
        // caller's promise for `at`; the extent is live and ours.
        unsafe {
            let store = std::ptr::read(&memory.store);
            let used = store.clock.load(Relaxed);
            at.write(Stored {
                store,
                at: AtomicPtr::new(memory.address.as_ptr()),
                len: memory.len,
                word: Word::new(),
                used: AtomicU32::new(used),
            });
            memory.tag.set(at.cast_const().cast());
        }
    }

    /// As [`place`](Self::place), for an object of `len` bytes that another node has: it is away until somebody pins it.
    ///
    /// # Safety
    /// As for [`place`](Self::place).
    pub(crate) unsafe fn place_distant(
        store: &super::Store,
        len: usize,
        distant: Box<dyn Distant>,
        at: *mut Stored,
    ) {
        let store = Arc::clone(&store.shared);
        let ticket = Box::new(Ticket::Distant(distant));
        let used = store.clock.load(Relaxed);
        // SAFETY: the caller's promise.
        unsafe {
            at.write(Stored {
                store,
                at: AtomicPtr::new(Box::into_raw(ticket).cast()),
                len,
                word: Word::away(),
                used: AtomicU32::new(used),
            });
        }
    }

    /// The patience of its store.
    pub(crate) fn patience(&self) -> Patience<'static> {
        self.store.own_patience()
    }

    /// How many bytes it has.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where it begins in the store's memory. Only while it is pinned does this stay so.
    pub fn offset(&self) -> u64 {
        self.store.extent(self.at.load(Relaxed), self.len).offset
    }

    /// Counts a reader if the bytes are in memory: some nanoseconds. False if they are on disk.
    #[inline]
    pub fn try_pin(&self) -> bool {
        let here = self.word.pin();
        if !here {
            self.word.unpin();
        }
        here
    }

    /// Counts a reader, bringing the bytes back from disk or another node if they are there, and says from where. Blocks
    /// for that, and for room as long as `patience` says.
    ///
    /// # Errors
    /// [`Error::ObjectLost`] if the disk does not give them back as they were, [`Error::StoreFull`].
    pub(crate) fn pin(&self, patience: &Patience<'_>) -> Result<Came, Error> {
        if self.word.pin() {
            return Ok(Came::Here);
        }
        // The count stands: once the bytes are back they stay.
        let back = self.store.spill.bring_back(&self.store, self, patience);
        if back.is_err() {
            self.word.unpin();
        }
        back
    }

    /// Ends a [`pin`](Self::pin) or [`try_pin`](Self::try_pin).
    #[inline]
    pub fn unpin(&self) {
        self.used.store(self.store.clock.load(Relaxed), Relaxed);
        self.word.unpin();
        self.store.room.changed();
    }

    /// The bytes.
    ///
    /// # Safety
    /// The caller has pinned it and keeps that for as long as it uses them.
    #[inline]
    pub unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: pinned, so `at` is the address of `len` initialised bytes that nobody else's handle
        // names and that stay; the pin was an Acquire of whatever brought them back.
        unsafe { std::slice::from_raw_parts(self.at.load(Relaxed), self.len) }
    }

    /// Whether it would have to be brought back before it is read, as far as can be told now.
    pub fn is_away(&self) -> bool {
        self.word.look() != Seen::Here
    }

    /// Whether another node has the bytes and this one has not, as far as can be told now.
    pub(crate) fn is_distant(&self) -> bool {
        if !self.is_away() {
            return false;
        }
        let _books = self.store.spill.books();
        // SAFETY: away, and the books are held.
        self.word.look() == Seen::Away && matches!(unsafe { self.ticket() }, Ticket::Distant(_))
    }

    /// Where it is instead of in memory.
    ///
    /// # Safety
    /// The word says that it is away, and the caller has begun its return or holds the spiller's
    /// books.
    pub(super) unsafe fn ticket(&self) -> &Ticket {
        // SAFETY: away, so `at` is a boxed ticket, and by the caller's promise that stays.
        unsafe { &*self.at.load(Relaxed).cast::<Ticket>() }
    }

    /// Writes down that the bytes are on disk; their memory is the caller's then. Between
    /// [`Word::end_move`] and [`Word::moved`].
    pub(super) fn set_away(&self, ticket: Box<Ticket>) {
        self.at.store(Box::into_raw(ticket).cast(), Relaxed);
    }

    /// Writes down that the bytes are here; returns the ticket.
    ///
    /// # Safety
    /// The word says that it is away, and the caller has begun its return.
    pub(super) unsafe fn set_here(&self, draft: Draft) -> Box<Ticket> {
        let sealed = ManuallyDrop::new(draft.seal());
        let memory: &Memory = &sealed.memory;
        debug_assert_eq!(memory.len, self.len);
        let ticket = self.at.swap(memory.address.as_ptr(), Relaxed);
        // SAFETY: the handle is taken apart, its count of the store dropped once; the extent is live and now ours; the
        // swapped out pointer was a boxed ticket.
        unsafe {
            drop(std::ptr::read(&memory.store));
            memory.tag.set(std::ptr::from_ref(self).cast());
            Box::from_raw(ticket.cast::<Ticket>())
        }
    }
}

impl Drop for Stored {
    #[inline]
    fn drop(&mut self) {
        if self.word.die() {
            let extent = self.store.extent(*self.at.get_mut(), self.len);
            // SAFETY: the extent is this object's, nobody reads it any more, and no move has it.
            unsafe { self.store.free(extent) };
        } else {
            self.drop_slowly();
        }
    }
}

impl Stored {
    /// A move has the bytes, or had when the drop began; or they are on disk.
    #[cold]
    fn drop_slowly(&mut self) {
        let store = Arc::clone(&self.store);
        let mut books = store.spill.books();
        let at = *self.at.get_mut();
        if self.word.moving() {
            // The bytes are being read: whoever moves them frees them.
            let extent = store.extent(at, self.len);
            store.arena.with_live(extent.offset, |live| live.disown());
            books.orphan(extent.offset);
            return;
        }
        match self.word.look() {
            Seen::Here => {
                drop(books);
                // SAFETY: as in `drop`: the move has ended without effect.
                unsafe { store.free(store.extent(at, self.len)) };
            }
            Seen::Away => {
                // SAFETY: away and nobody else has this object: `at` is a boxed ticket.
                let ticket = unsafe { Box::from_raw(at.cast::<Ticket>()) };
                books.forget(&ticket);
                drop(books);
                drop(ticket);
            }
            // Whoever changes it borrows it, and moves make their change under the lock held here.
            Seen::Changing => unreachable!("an object that is brought back is borrowed"),
        }
    }
}

/// What walks over the books may know of a Stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Where it begins.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
    /// Who made it.
    pub origin: Origin,
    /// How much was allocated since it was used last, by the store's clock.
    pub age: u32,
    /// Which object it is.
    stored: NonNull<Stored>,
}

// SAFETY: the pointer is used only as `claimed` and `stored` say.
unsafe impl Send for Candidate {}

/// What a walk finds about one extent.
pub(super) enum Found {
    /// Somebody writes or reads it, or it may not move.
    Busy,
    /// It could be moved now.
    Idle(Candidate),
}

/// Looks at one extent, under the lock of its books.
pub(super) fn inspect(live: &Live, now: u32) -> Found {
    let Some(stored) = NonNull::new(live.owner().cast_mut().cast::<Stored>()) else {
        return Found::Busy;
    };
    // SAFETY: only `place` and `set_here` set owners, to a Stored; it is alive under this lock.
    let object = unsafe { stored.as_ref() };
    if !object.word.idle() {
        return Found::Busy;
    }
    Found::Idle(Candidate {
        offset: live.offset,
        len: live.len,
        origin: live.origin,
        age: now.wrapping_sub(object.used.load(Relaxed)),
        stored,
    })
}

impl Candidate {
    /// One that stands for no object.
    #[cfg(test)]
    pub fn for_test(offset: u64, len: u64, age: u32) -> Candidate {
        Candidate {
            offset,
            len,
            origin: Origin::Result("f"),
            age,
            stored: NonNull::dangling(),
        }
    }

    /// Begins its move, if the extent is still this object's and idle. Under the lock of the extent's
    /// books.
    pub fn claim(&self, live: &Live) -> bool {
        std::ptr::eq(live.owner(), self.stored.as_ptr().cast())
            && live.len == self.len
            // SAFETY: as in `inspect`.
            && unsafe { self.stored.as_ref() }.word.begin_move()
    }

    /// The object whose move was begun.
    ///
    /// # Safety
    /// The caller holds the spiller's books and the move was not disowned.
    pub unsafe fn stored(&self) -> &Stored {
        // SAFETY: an object whose move has begun is dropped only after `disown`, which takes the
        // lock of the books first.
        unsafe { self.stored.as_ref() }
    }
}

/// The bytes of an object while it is moved.
pub(super) struct Moving {
    store: Arc<Shared>,
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: read-only bytes that stay until the move ends.
unsafe impl Send for Moving {}
// SAFETY: as above.
unsafe impl Sync for Moving {}

impl Moving {
    /// The bytes of a claimed candidate.
    ///
    /// # Safety
    /// The candidate was claimed, and its extent is not freed before this is dropped.
    pub unsafe fn of(store: &Arc<Shared>, candidate: &Candidate) -> Moving {
        let extent = crate::shm::Extent {
            offset: candidate.offset,
            len: candidate.len,
        };
        Moving {
            store: Arc::clone(store),
            address: store.arena.address(extent),
            len: candidate.len as usize,
        }
    }
}

impl AsRef<[u8]> for Moving {
    fn as_ref(&self) -> &[u8] {
        debug_assert!(self.len as u64 <= self.store.arena.capacity());
        // SAFETY: sealed bytes inside the mapping, which `store` keeps; they are not freed while
        // this lives, by the promise of `of`.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.len) }
    }
}
