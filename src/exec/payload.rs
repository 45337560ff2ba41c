//! What a record's body holds: a call's arguments, then its outcome; or the object others refer to.
//!
//! Arguments are slots, then their inline archives. An outcome is an archive in the body itself when it has room there,
//! in a block of its own when it has not, in the store when it is large; or an error.
//!
//! Invariant: the tag says what the body holds. It and what it stands for are written by the record's creator before
//! the record is shared, then by whoever holds the claim of the running call, then by nobody until the record is freed.
//! Left out: creation and counts (`cell`), who holds the claim (`phase`), what archives mean (`call`).

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;

use super::cell::{BODY, Record};
use super::memory;
use super::phase::{OBSERVED, Phase, phase};
use crate::base::Error;
use crate::store::{Sealed, Stored};
use crate::value::Cap;

/// What one argument's slot takes.
pub const SLOT: usize = size_of::<Slot>();
/// The offset of boxed values in their block: congruent to [`BODY`] modulo 64.
pub const PAD: usize = BODY % memory::ALIGN;

/// One argument.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Slot {
    pub(super) tag: SlotTag,
    /// Where the inline archive ends, from the record's address.
    pub(super) end: u32,
    /// A `RawRef` or a boxed list of them, owned by the slot.
    pub(super) ptr: *mut (),
}

impl Slot {
    /// Writes the slot as bytes.
    #[inline]
    pub(super) fn write_to(self, bytes: &mut [u8]) {
        assert!(bytes.len() == SLOT);
        // SAFETY: as many bytes as a slot has; alignment is not assumed. Pointers keep their provenance, being copied whole.
        unsafe { bytes.as_mut_ptr().cast::<Slot>().write_unaligned(self) }
    }

    /// Reads it back.
    ///
    /// # Panics
    /// If there are not that many bytes. They must be what `write_to` wrote.
    #[inline]
    pub(super) fn read_from(bytes: &[u8]) -> Slot {
        assert!(bytes.len() == SLOT);
        // SAFETY: as many bytes as a slot has, written by `write_to`.
        unsafe { bytes.as_ptr().cast::<Slot>().read_unaligned() }
    }
}

/// What a slot holds.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotTag {
    /// An archive inside the record.
    Inline,
    /// One object.
    Ref,
    /// Many objects that together are one `Vec`.
    Many,
}

/// What the body holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Tag {
    /// A call's arguments.
    Args,
    /// Nothing: the arguments are gone and the outcome is not there yet.
    Empty,
    /// The value's archive.
    Inline,
    /// Nothing: the archive is in a block of its own.
    Boxed,
    /// A [`Stored`].
    Stored,
    /// A `&'static [u8]`: in another process's store, which keeps it.
    Foreign,
    /// Nothing: there is an error.
    Failed,
}

/// The part of the header that describes the body.
#[repr(C)]
pub(super) struct Payload {
    /// Where the archive ends.
    end: UnsafeCell<u32>,
    /// The block's size in units of [`memory::ALIGN`].
    cap: u16,
    tag: UnsafeCell<Tag>,
    nargs: UnsafeCell<u8>,
    /// The boxed archive, or the error as a raw `Arc`.
    out: UnsafeCell<*mut ()>,
    /// References inside the arguments' or the value's archive.
    caps: UnsafeCell<Option<Box<Box<[Cap]>>>>,
}

impl Payload {
    #[inline(always)]
    pub(super) fn new(
        tag: Tag,
        nargs: u8,
        end: u32,
        cap: usize,
        caps: Option<Box<[Cap]>>,
    ) -> Payload {
        assert!(cap <= LARGEST_BLOCK);
        Payload {
            end: UnsafeCell::new(end),
            cap: (cap / memory::ALIGN) as u16,
            tag: UnsafeCell::new(tag),
            nargs: UnsafeCell::new(nargs),
            out: UnsafeCell::new(std::ptr::null_mut()),
            caps: UnsafeCell::new(caps.map(Box::new)),
        }
    }

    /// The error of a record that failed before it began.
    pub(super) fn failed(cap: usize, error: Error) -> Payload {
        let mut payload = Payload::new(Tag::Failed, 0, 0, cap, None);
        *payload.out.get_mut() = Arc::into_raw(Arc::new(error)).cast_mut().cast();
        payload
    }

    /// The size of the record's block.
    #[inline(always)]
    pub(super) fn cap(&self) -> usize {
        usize::from(self.cap) * memory::ALIGN
    }
}

/// The largest block that `cap` can express: 4 MiB, where the largest record has some 8 KiB.
const LARGEST_BLOCK: usize = u16::MAX as usize * memory::ALIGN;

impl Record {
    /// The arguments.
    ///
    /// # Safety
    /// The caller is the creator, holds the claim, or knows that the phase is `Waiting` or `Queued` and cannot move on.
    #[inline]
    pub unsafe fn slots(&self) -> &[Slot] {
        // SAFETY: by the caller's promise nobody writes these fields now.
        unsafe {
            if *self.payload.tag.get() != Tag::Args {
                return &[];
            }
            let first = self.base().add(BODY).cast::<Slot>();
            std::slice::from_raw_parts(first, usize::from(*self.payload.nargs.get()))
        }
    }

    /// The inline archive that ends at `end`; it is safe to read its root only.
    ///
    /// # Safety
    /// As for [`slots`](Self::slots), and `end` came from a slot.
    #[inline]
    pub unsafe fn inline_arg(&self, end: u32) -> &[u8] {
        // SAFETY: the record's block holds `end` bytes, initialised from BODY on; the header before them is not read
        // because only the root at the end and what it points to (behind BODY) are.
        unsafe {
            let base = self.base();
            std::slice::from_raw_parts(base.add(BODY), end as usize - BODY)
        }
    }

    /// References inside the inline arguments or the value.
    ///
    /// # Safety
    /// The caller holds the claim, or the phase is `Done`.
    #[inline]
    pub unsafe fn caps(&self) -> &[Cap] {
        // SAFETY: by the caller's promise nobody writes it now.
        unsafe { (*self.payload.caps.get()).as_deref().map_or(&[], |b| b) }
    }

    /// Whether the arguments are still there, for another attempt.
    ///
    /// # Safety
    /// The caller holds the claim.
    pub(super) unsafe fn has_args(&self) -> bool {
        // SAFETY: the claim.
        unsafe { *self.payload.tag.get() == Tag::Args }
    }

    /// Lets go of the arguments, after the function has used them.
    ///
    /// # Safety
    /// The caller holds the claim and no borrow of an argument is alive.
    #[inline]
    pub unsafe fn drop_args(&self) {
        // SAFETY: the claim makes the caller the only one who touches these fields; each slot is dropped once, since
        // the tag changes before the first, even if a drop panics.
        unsafe {
            if *self.payload.tag.get() == Tag::Args {
                let slots = self.slots();
                *self.payload.tag.get() = Tag::Empty;
                slots.iter().for_each(|slot| super::call::drop_slot(*slot));
                if (*self.payload.caps.get()).is_some() {
                    drop((*self.payload.caps.get()).take());
                }
            }
        }
    }

    /// Bytes that a result may take inside the record.
    #[inline]
    pub fn room(&self) -> usize {
        self.payload.cap() - BODY
    }

    /// Puts a small value in place: `archive` was written at positions from [`BODY`].
    ///
    /// # Safety
    /// The caller holds the claim and has dropped the arguments.
    #[inline]
    pub unsafe fn set_inline(&self, archive: &[u8], caps: Option<Box<[Cap]>>) {
        debug_assert!(archive.len() <= self.room());
        // SAFETY: the claim, and the payload has room.
        unsafe {
            let base = self.base();
            std::ptr::copy_nonoverlapping(archive.as_ptr(), base.add(BODY), archive.len());
            *self.payload.end.get() = (BODY + archive.len()) as u32;
            *self.payload.tag.get() = Tag::Inline;
            if caps.is_some() {
                *self.payload.caps.get() = caps.map(Box::new);
            }
        }
    }

    /// Puts a value in a block of its own: as `set_inline`, for values that the record has no room for.
    ///
    /// # Safety
    /// As for [`set_inline`](Self::set_inline).
    pub unsafe fn set_boxed(&self, archive: &[u8], caps: Option<Box<[Cap]>>) {
        let block = memory::take(PAD + archive.len());
        // SAFETY: the claim; the block has room, and is congruent to BODY modulo 64 at PAD.
        unsafe {
            block.as_ptr().write_bytes(0, PAD);
            std::ptr::copy_nonoverlapping(archive.as_ptr(), block.as_ptr().add(PAD), archive.len());
            *self.payload.out.get() = block.as_ptr().cast();
            *self.payload.end.get() = (PAD + archive.len()) as u32;
            *self.payload.tag.get() = Tag::Boxed;
            *self.payload.caps.get() = caps.map(Box::new);
        }
    }

    /// Puts a value that is in the store.
    ///
    /// # Safety
    /// As for [`set_inline`](Self::set_inline).
    pub unsafe fn set_stored(&self, sealed: Sealed, caps: Option<Box<[Cap]>>) {
        // SAFETY: the claim; every record has at least 32 bytes of payload.
        unsafe {
            let base = self.base();
            Stored::place(sealed, base.add(BODY).cast());
            *self.payload.tag.get() = Tag::Stored;
            *self.payload.caps.get() = caps.map(Box::new);
        }
    }

    /// Puts a value that another node has, until somebody reads it.
    ///
    /// # Safety
    /// As for [`set_inline`](Self::set_inline).
    pub(crate) unsafe fn set_distant(
        &self,
        store: &crate::store::Store,
        len: usize,
        distant: Box<dyn crate::store::Distant>,
    ) {
        // SAFETY: the claim; every record has at least 32 bytes of payload.
        unsafe {
            let base = self.base();
            Stored::place_distant(store, len, distant, base.add(BODY).cast());
            *self.payload.tag.get() = Tag::Stored;
        }
    }

    /// Puts a value that is in another process's store.
    ///
    /// # Safety
    /// As for [`set_inline`](Self::set_inline).
    pub unsafe fn set_foreign(&self, bytes: &'static [u8], caps: Option<Box<[Cap]>>) {
        // SAFETY: the claim; every record has at least 32 bytes of payload.
        unsafe {
            self.base().add(BODY).cast::<&'static [u8]>().write(bytes);
            *self.payload.tag.get() = Tag::Foreign;
            *self.payload.caps.get() = caps.map(Box::new);
        }
    }

    /// Where the value is in another process's store, if it is there; call when the phase is `Done`.
    pub fn foreign(&self) -> Option<&'static [u8]> {
        debug_assert_eq!(phase(self.state()), Phase::Done);
        // SAFETY: as in `bytes`.
        unsafe {
            (*self.payload.tag.get() == Tag::Foreign)
                .then(|| *self.base().add(BODY).cast::<&'static [u8]>().cast_const())
        }
    }

    /// A value that is not in a store, as an archive whose positions count from [`BODY`]; call when the phase is `Done`.
    pub fn archive(&self) -> &[u8] {
        // SAFETY: as in `bytes`; what is in a store is refused.
        unsafe {
            let tag = *self.payload.tag.get();
            assert!(!matches!(tag, Tag::Stored), "its archive is in the store");
            &self.bytes()[if tag == Tag::Boxed { PAD } else { 0 }..]
        }
    }

    /// Where the last inline argument ends.
    ///
    /// # Safety
    /// As for [`slots`](Self::slots).
    pub unsafe fn args_end(&self) -> u32 {
        // SAFETY: by the caller's promise nobody writes it now.
        unsafe { *self.payload.end.get() }
    }

    /// Puts an error.
    ///
    /// # Safety
    /// As for [`set_inline`](Self::set_inline).
    pub unsafe fn set_error(&self, error: Arc<Error>) {
        // SAFETY: the claim.
        unsafe {
            *self.payload.out.get() = Arc::into_raw(error).cast_mut().cast();
            *self.payload.tag.get() = Tag::Failed;
        }
    }

    /// Puts an error, leaving the arguments to be freed with the record: others may still be reading which they are.
    ///
    /// # Safety
    /// The caller holds the claim; no outcome was put before.
    pub unsafe fn set_error_keeping_args(&self, error: Arc<Error>) {
        // SAFETY: the claim; `out` is no part of the arguments.
        unsafe { *self.payload.out.get() = Arc::into_raw(error).cast_mut().cast() };
    }

    /// Bytes of the result that was put, if one was.
    ///
    /// # Safety
    /// The caller holds the claim.
    pub(super) unsafe fn result_size(&self) -> usize {
        // SAFETY: the claim; the tag says what the body holds.
        unsafe {
            let end = *self.payload.end.get() as usize;
            match *self.payload.tag.get() {
                Tag::Inline => end - BODY,
                Tag::Boxed => end - PAD,
                Tag::Stored => (&*self.base().add(BODY).cast::<Stored>()).len(),
                Tag::Args | Tag::Empty | Tag::Failed | Tag::Foreign => 0,
            }
        }
    }

    /// Bytes of the value; 0 before there is one.
    pub fn value_size(&self) -> usize {
        if phase(self.state()) != Phase::Done {
            return 0;
        }
        // SAFETY: `Done` records are immutable, so nobody's claim is in the way.
        unsafe { self.result_size() }
    }

    /// The archive of the value; call when the phase is `Done`.
    ///
    /// # Safety
    /// If the value is in the store, the caller has pinned it and keeps that for as long as it uses the bytes.
    #[inline]
    pub unsafe fn bytes(&self) -> &[u8] {
        debug_assert_eq!(phase(self.state()), Phase::Done);
        // SAFETY: `Done` records are immutable. The tag says which payload there is; the archive's root is at its end.
        // What is stored is pinned, by the caller's promise.
        unsafe {
            let base = self.base();
            match *self.payload.tag.get() {
                Tag::Inline => std::slice::from_raw_parts(
                    base.add(BODY),
                    *self.payload.end.get() as usize - BODY,
                ),
                Tag::Boxed => std::slice::from_raw_parts(
                    (*self.payload.out.get()).cast::<u8>().cast_const(),
                    *self.payload.end.get() as usize,
                ),
                Tag::Stored => (*base.add(BODY).cast::<Stored>()).bytes(),
                Tag::Foreign => *base.add(BODY).cast::<&'static [u8]>(),
                Tag::Args | Tag::Empty | Tag::Failed => &[],
            }
        }
    }

    /// The value's bytes in the shared store, if it is there and not inside the record.
    #[inline]
    pub fn stored(&self) -> Option<&Stored> {
        if phase(self.state()) != Phase::Done {
            return None;
        }
        // SAFETY: as in `bytes`.
        unsafe {
            (*self.payload.tag.get() == Tag::Stored)
                .then(|| &*self.base().add(BODY).cast::<Stored>().cast_const())
        }
    }

    /// The error, marked as seen; call when the phase is `Failed`.
    pub fn error(&self) -> Error {
        self.set_flag(OBSERVED);
        self.peek_error()
            .map_or(Error::ShutDown, |e| Error::clone(&e))
    }

    /// The error, shared, not marked as seen.
    pub fn peek_error(&self) -> Option<Arc<Error>> {
        if phase(self.state()) != Phase::Failed {
            return None;
        }
        // SAFETY: `Failed` records are immutable and `out` is an Arc that the record owns.
        unsafe {
            let raw = (*self.payload.out.get()).cast::<Error>().cast_const();
            Arc::increment_strong_count(raw);
            Some(Arc::from_raw(raw))
        }
    }

    /// Whether freeing the body takes more than giving its block back.
    ///
    /// # Safety
    /// The caller owns the record.
    #[inline]
    pub(super) unsafe fn is_deep(&self) -> bool {
        // SAFETY: owned, so nobody writes.
        unsafe {
            (*self.payload.caps.get()).is_some()
                || match *self.payload.tag.get() {
                    Tag::Inline | Tag::Empty | Tag::Foreign => false,
                    Tag::Args => {
                        !(*self.payload.out.get()).is_null()
                            || self.slots().iter().any(|s| s.tag != SlotTag::Inline)
                    }
                    Tag::Boxed | Tag::Stored | Tag::Failed => true,
                }
        }
    }
}

/// Lets go of whatever the body holds.
///
/// # Safety
/// The caller owns the record.
pub(super) unsafe fn drop_payload(r: &Record) {
    // SAFETY: owned; the tag says what is there.
    unsafe {
        match *r.payload.tag.get() {
            Tag::Args => {
                r.drop_args();
                let error = (*r.payload.out.get()).cast::<Error>().cast_const();
                if !error.is_null() {
                    drop(Arc::from_raw(error));
                }
            }
            Tag::Boxed => {
                let block = NonNull::new_unchecked((*r.payload.out.get()).cast::<u8>());
                memory::give(block, *r.payload.end.get() as usize);
            }
            Tag::Stored => {
                let stored = r.base().add(BODY).cast::<Stored>();
                super::events::freed(r, (&*stored).len());
                stored.drop_in_place();
            }
            Tag::Failed => {
                let error = Arc::from_raw((*r.payload.out.get()).cast::<Error>().cast_const());
                if r.state() & OBSERVED == 0 {
                    super::report::unobserved(&error);
                }
            }
            Tag::Empty | Tag::Inline | Tag::Foreign => {}
        }
        drop((*r.payload.caps.get()).take());
    }
}
