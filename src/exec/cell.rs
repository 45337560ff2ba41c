//! The record: one block of memory that is a call's arguments, then its result, and the object others refer to.
//!
//! ```text
//! 0        64      96            96+16n        args_end          cap
//! | counts | more  | n slots     | inline args |     free        |     a call before it ran
//! | counts | more  | archive of the result ... end |             |     afterwards, when it is small
//! ```
//! Positions inside archives count from the record's address, which is 64-byte aligned, so the bytes move between
//! scratch and record by plain copies.
//!
//! Life: `Waiting` (arguments not ready) -> `Queued` -> `Running` -> `Done` or `Failed`. Only the phase's holder moves
//! it: whoever readied it, then whoever claimed it. After `Done` or `Failed` the record is immutable until its last
//! [`RawRef`] goes.
//!
//! Invariant: non-atomic fields are written by the creator before the record is shared, then only by the claimer while
//! `Running`, then by nobody; `waiters` only under `lock`. Left out: scheduling, see `engine`.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use parking_lot::lock_api::RawMutex as _;
use parking_lot::RawMutex;

use super::actor::ActorRef;
use super::entry::FnEntry;
use super::memory;
use super::options::Extra;
use super::waiter::Waiter;
use crate::base::Error;
use crate::store::Sealed;
use crate::value::{Cap, CapKind};

/// Where a call stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Phase {
    /// Some argument, or a resource, is not there yet.
    Waiting = 0,
    /// Ready to run, claimed by nobody.
    Queued = 1,
    /// Claimed.
    Running = 2,
    /// The value is there.
    Done = 3,
    /// The error is there.
    Failed = 4,
}

const PHASE: u32 = 7;
/// Somebody is in the list of waiters.
pub const HAS_WAITERS: u32 = 8;
/// Cancellation was asked for while it ran.
pub const CANCEL: u32 = 16;
/// Somebody has seen the error.
pub const OBSERVED: u32 = 32;
/// A panic's retry or an actor's restart put it back: the queue entry may be a second one.
pub const SHARED_QUEUE: u32 = 64;

/// The phase inside a state word.
#[inline(always)]
pub fn phase(state: u32) -> Phase {
    match state & PHASE {
        0 => Phase::Waiting,
        1 => Phase::Queued,
        2 => Phase::Running,
        3 => Phase::Done,
        _ => Phase::Failed,
    }
}

/// Whether a state word says that the call ended.
#[inline(always)]
pub fn finished(state: u32) -> bool {
    state & PHASE >= Phase::Done as u32
}

/// Where the payload begins.
pub const BODY: usize = 96;
/// What one argument's slot takes.
pub const SLOT: usize = size_of::<Slot>();

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

/// What the payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Tag {
    Args,
    Empty,
    Inline,
    Boxed,
    Stored,
    Failed,
}

/// The header; see the module's picture. It ends where the payload begins, so that a shared reference to it says
/// nothing about the payload's bytes, which are reached through [`Record::base`].
#[repr(C, align(32))]
pub struct Record {
    refs: AtomicU32,
    state: AtomicU32,
    /// The function called.
    pub entry: &'static FnEntry,
    lock: RawMutex,
    tag: UnsafeCell<Tag>,
    nargs: UnsafeCell<u8>,
    pub(super) deps: AtomicU32,
    waiters: UnsafeCell<*mut Waiter>,
    /// The next call in a mailbox.
    pub(super) next: UnsafeCell<*mut Record>,
    extra: UnsafeCell<Option<Box<Extra>>>,
    target: Option<ActorRef>,
    out: UnsafeCell<*mut ()>,
    pub(super) caller: u64,
    /// A number, unique in this process.
    pub id: u64,
    end: UnsafeCell<u32>,
    cap: u32,
    caps: UnsafeCell<Option<Box<Box<[Cap]>>>>,
}

const _: () = assert!(size_of::<Record>() == BODY);

// SAFETY: see the module's invariant for who writes what when; the payload's types are Send and Sync.
unsafe impl Send for Record {}
// SAFETY: as above.
unsafe impl Sync for Record {}

/// A counted reference to a record.
pub struct RawRef(NonNull<Record>);

// SAFETY: records are Send + Sync and the count is atomic.
unsafe impl Send for RawRef {}
// SAFETY: as above.
unsafe impl Sync for RawRef {}

impl std::ops::Deref for RawRef {
    type Target = Record;
    #[inline(always)]
    fn deref(&self) -> &Record {
        // SAFETY: self holds a count.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for RawRef {
    #[inline]
    fn clone(&self) -> RawRef {
        self.refs.fetch_add(1, Ordering::Relaxed);
        RawRef(self.0)
    }
}

impl Drop for RawRef {
    #[inline]
    fn drop(&mut self) {
        if self.refs.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            // SAFETY: the last count is gone, so this thread owns the record.
            unsafe { destroy(self.0) };
        }
    }
}

impl RawRef {
    /// The pointer, with its count.
    #[inline]
    pub fn into_raw(self) -> *mut Record {
        std::mem::ManuallyDrop::new(self).0.as_ptr()
    }

    /// Takes a count over.
    ///
    /// # Safety
    /// `ptr` came from [`into_raw`](Self::into_raw) and its count was not taken over before.
    #[inline]
    pub unsafe fn from_raw(ptr: *mut Record) -> RawRef {
        // SAFETY: into_raw never returns null.
        RawRef(unsafe { NonNull::new_unchecked(ptr) })
    }

    /// Whether both are the same object.
    #[inline]
    pub fn same(&self, other: &Record) -> bool {
        std::ptr::eq(self.0.as_ptr(), other)
    }
}

static OBJECT: CapKind = CapKind {
    name: "an object",
    acquire: |p| {
        // SAFETY: caps of this kind hold a count, from which another is made.
        let held = std::mem::ManuallyDrop::new(unsafe { RawRef::from_raw(p.as_ptr().cast()) });
        std::mem::forget(RawRef::clone(&held));
    },
    // SAFETY: the cap's count is given up.
    release: |p| drop(unsafe { RawRef::from_raw(p.as_ptr().cast()) }),
};

impl RawRef {
    /// The reference as one that can travel inside a value.
    pub fn into_cap(self) -> Cap {
        let raw = NonNull::new(self.into_raw().cast()).expect("references are not null");
        // SAFETY: the count moves into the cap.
        unsafe { Cap::from_raw(raw, &OBJECT) }
    }

    /// A reference to the object a cap refers to; `None` if it refers to something else.
    pub fn from_cap(cap: &Cap) -> Option<RawRef> {
        let raw = cap.as_kind(&OBJECT)?;
        // SAFETY: the cap holds a count, from which another is made; the borrowed one is not dropped.
        let held = std::mem::ManuallyDrop::new(unsafe { RawRef::from_raw(raw.as_ptr().cast()) });
        Some(RawRef::clone(&held))
    }
}

/// What a new record begins with.
pub struct Blank {
    pub entry: &'static FnEntry,
    pub refs: u32,
    pub phase: Phase,
    pub caller: u64,
    pub id: u64,
    pub target: Option<ActorRef>,
    pub extra: Option<Box<Extra>>,
    pub caps: Option<Box<[Cap]>>,
}

/// A record with arguments: `payload` is the slots, then inline archives up to position `end`, then padding to a whole
/// number of 32 bytes.
///
/// # Safety
/// The payload begins with `nargs` slots, and the caller gives up what they own.
#[inline]
pub unsafe fn with_args(
    blank: Blank,
    nargs: usize,
    payload: &[u8],
    end: usize,
    result_size: usize,
) -> RawRef {
    debug_assert!(payload.len() % 32 == 0 && BODY + payload.len() >= end);
    let cap = memory::rounded((BODY + payload.len()).max(BODY + result_size));
    let block = memory::take(cap);
    // SAFETY: the block has `cap` bytes, at least a record and the payload, and is ours alone.
    unsafe {
        write_header(block, blank, Tag::Args, nargs as u8, end as u32, cap as u32);
        copy_by_32(payload, block.as_ptr().add(BODY));
    }
    RawRef(block.cast())
}

/// Copies without a call: payloads are short.
///
/// # Safety
/// `to` is valid for as many bytes as `from` has, a multiple of 32.
#[inline(always)]
unsafe fn copy_by_32(from: &[u8], to: *mut u8) {
    let mut at = 0;
    while at < from.len() {
        // SAFETY: a piece of 32 bytes at `at` lies inside both.
        unsafe {
            // As MaybeUninit, a copied pointer keeps its provenance.
            let piece = from.as_ptr().add(at).cast::<MaybeUninit<[u8; 32]>>().read_unaligned();
            to.add(at).cast::<MaybeUninit<[u8; 32]>>().write_unaligned(piece);
        }
        at += 32;
    }
}

/// A record that is a value already: an archive whose positions count from [`BODY`] of the record.
#[inline]
pub fn with_inline_value(blank: Blank, archive: &[u8]) -> RawRef {
    let end = BODY + archive.len();
    let cap = memory::rounded(end);
    let block = memory::take(cap);
    // SAFETY: as in `with_args`.
    unsafe {
        write_header(block, blank, Tag::Inline, 0, end as u32, cap as u32);
        std::ptr::copy_nonoverlapping(archive.as_ptr(), block.as_ptr().add(BODY), archive.len());
    }
    RawRef(block.cast())
}

/// A record whose value is in the store.
#[inline]
pub fn with_stored_value(blank: Blank, sealed: Sealed) -> RawRef {
    const { assert!(size_of::<Sealed>() <= 32 && align_of::<Sealed>() <= 32) };
    let cap = memory::rounded(BODY + size_of::<Sealed>());
    let block = memory::take(cap);
    // SAFETY: as in `with_args`; the payload has room and alignment for a `Sealed`.
    unsafe {
        write_header(block, blank, Tag::Stored, 0, 0, cap as u32);
        block.as_ptr().add(BODY).cast::<Sealed>().write(sealed);
    }
    RawRef(block.cast())
}

/// A record that failed before it began.
pub fn failed(mut blank: Blank, error: Error) -> RawRef {
    blank.phase = Phase::Failed;
    let cap = memory::rounded(BODY);
    let block = memory::take(cap);
    // SAFETY: as in `with_args`.
    unsafe { write_header(block, blank, Tag::Failed, 0, 0, cap as u32) };
    let r = RawRef(block.cast());
    // SAFETY: nobody else has the record yet.
    unsafe { *r.out.get() = Arc::into_raw(Arc::new(error)).cast_mut().cast() };
    r
}

/// # Safety
/// `block` has at least `cap` bytes, is aligned to 64, and belongs to the caller.
#[inline(always)]
unsafe fn write_header(block: NonNull<u8>, b: Blank, tag: Tag, nargs: u8, end: u32, cap: u32) {
    let base = block.as_ptr();
    base.expose_provenance();
    // SAFETY: the block holds a whole header and is aligned for it.
    unsafe {
        macro_rules! put {
            ($($f:ident: $v:expr),* $(,)?) => { $( (&raw mut (*base.cast::<Record>()).$f).write($v); )* };
        }
        put! {
            refs: AtomicU32::new(b.refs), state: AtomicU32::new(b.phase as u32), entry: b.entry,
            lock: RawMutex::INIT, tag: UnsafeCell::new(tag), nargs: UnsafeCell::new(nargs),
            deps: AtomicU32::new(0), waiters: UnsafeCell::new(std::ptr::null_mut()),
            next: UnsafeCell::new(std::ptr::null_mut()), extra: UnsafeCell::new(b.extra), target: b.target,
            out: UnsafeCell::new(std::ptr::null_mut()), caller: b.caller, id: b.id,
            end: UnsafeCell::new(end), cap: cap, caps: UnsafeCell::new(b.caps.map(Box::new)),
        }
    }
}

impl Record {
    /// The block's address, with the provenance of the whole block.
    #[inline(always)]
    fn base(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut((&raw const *self).addr())
    }

    /// The state word.
    #[inline(always)]
    pub fn state(&self) -> u32 {
        self.state.load(Ordering::Acquire)
    }

    /// The function called.
    pub fn name(&self) -> &'static str {
        self.entry.name
    }

    /// Sets flags; returns the word before.
    #[inline]
    pub fn set_flag(&self, flag: u32) -> u32 {
        self.state.fetch_or(flag, Ordering::AcqRel)
    }

    /// Takes the right to run it.
    #[inline]
    pub fn claim(&self) -> bool {
        let mut s = self.state.load(Ordering::Relaxed);
        while s & PHASE == Phase::Queued as u32 {
            match self.state.compare_exchange_weak(s, s + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => s = now,
            }
        }
        false
    }

    /// Takes the right to end it although an argument is missing (cancellation).
    pub fn claim_waiting(&self) -> bool {
        let mut s = self.state.load(Ordering::Relaxed);
        while s & PHASE == Phase::Waiting as u32 {
            match self.state.compare_exchange_weak(s, s + 2, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => s = now,
            }
        }
        false
    }

    /// `Waiting` to `Queued`; false if it was cancelled meanwhile.
    #[inline]
    pub fn make_ready(&self) -> bool {
        let mut s = self.state.load(Ordering::Relaxed);
        while s & PHASE == Phase::Waiting as u32 {
            match self.state.compare_exchange_weak(s, s + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => s = now,
            }
        }
        false
    }

    /// `Running` back to `Queued`, for another attempt. The caller holds the claim.
    pub fn unclaim(&self) {
        self.state.fetch_sub(1, Ordering::Release);
    }

    /// Whether the holder of one count is the only one left. Nobody can gain a count then.
    #[inline]
    pub fn is_unique(&self) -> bool {
        self.refs.load(Ordering::Acquire) == 1
    }

    /// Whether nobody but the caller's count and `others` more are left.
    #[inline]
    pub fn at_most(&self, others: u32) -> bool {
        self.refs.load(Ordering::Acquire) <= 1 + others
    }

    /// The actor that executes it.
    #[inline]
    pub fn target(&self) -> Option<&ActorRef> {
        self.target.as_ref()
    }

    /// Options beyond the ordinary.
    #[inline]
    pub fn extra(&self) -> Option<&Extra> {
        // SAFETY: written before the record was shared; afterwards only its own atomics change.
        unsafe { (*self.extra.get()).as_deref() }
    }

    /// The arguments.
    ///
    /// # Safety
    /// The caller is the creator, holds the claim, or knows that the phase is `Waiting` or `Queued` and cannot move on.
    #[inline]
    pub unsafe fn slots(&self) -> &[Slot] {
        // SAFETY: by the caller's promise nobody writes these fields now.
        unsafe {
            if *self.tag.get() != Tag::Args {
                return &[];
            }
            let first = self.base().add(BODY).cast::<Slot>();
            std::slice::from_raw_parts(first, usize::from(*self.nargs.get()))
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
        unsafe { (*self.caps.get()).as_deref().map_or(&[], |b| b) }
    }

    /// Lets go of the arguments, after the function has used them.
    ///
    /// # Safety
    /// The caller holds the claim and no borrow of an argument is alive.
    #[inline]
    pub unsafe fn drop_args(&self) {
        // SAFETY: the claim makes the caller the only one who touches these fields; each slot is dropped once, since
        // the tag changes.
        unsafe {
            if *self.tag.get() == Tag::Args {
                for i in 0..self.slots().len() {
                    let slot = self.slots()[i];
                    super::call::drop_slot(slot);
                }
                *self.tag.get() = Tag::Empty;
                if (*self.caps.get()).is_some() {
                    drop((*self.caps.get()).take());
                }
            }
        }
    }

    /// Bytes that a result may take inside the record.
    #[inline]
    pub fn room(&self) -> usize {
        self.cap as usize - BODY
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
            *self.end.get() = (BODY + archive.len()) as u32;
            *self.tag.get() = Tag::Inline;
            if caps.is_some() {
                *self.caps.get() = caps.map(Box::new);
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
            *self.out.get() = block.as_ptr().cast();
            *self.end.get() = (PAD + archive.len()) as u32;
            *self.tag.get() = Tag::Boxed;
            *self.caps.get() = caps.map(Box::new);
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
            base.add(BODY).cast::<Sealed>().write(sealed);
            *self.tag.get() = Tag::Stored;
            *self.caps.get() = caps.map(Box::new);
        }
    }

    /// Puts an error.
    ///
    /// # Safety
    /// As for [`set_inline`](Self::set_inline).
    pub unsafe fn set_error(&self, error: Arc<Error>) {
        // SAFETY: the claim.
        unsafe {
            *self.out.get() = Arc::into_raw(error).cast_mut().cast();
            *self.tag.get() = Tag::Failed;
        }
    }

    /// Puts an error, leaving the arguments to be freed with the record: others may still be reading which they are.
    ///
    /// # Safety
    /// The caller holds the claim; no outcome was put before.
    pub unsafe fn set_error_keeping_args(&self, error: Arc<Error>) {
        // SAFETY: the claim; `out` is no part of the arguments.
        unsafe { *self.out.get() = Arc::into_raw(error).cast_mut().cast() };
    }

    /// Ends the call: the outcome, set before, becomes visible. Returns the waiters, newest first.
    #[inline]
    pub fn finish(&self, phase: Phase) -> Option<Box<Waiter>> {
        let old = self.state.fetch_add(phase as u32 - Phase::Running as u32, Ordering::AcqRel);
        debug_assert_eq!(old & PHASE, Phase::Running as u32);
        if old & HAS_WAITERS == 0 {
            return None;
        }
        self.lock.lock();
        // SAFETY: under the lock; the list's boxes were leaked into it by `add_waiter`.
        let list = unsafe { std::mem::replace(&mut *self.waiters.get(), std::ptr::null_mut()) };
        // SAFETY: locked above.
        unsafe { self.lock.unlock() };
        // SAFETY: see above; null is an empty list.
        (!list.is_null()).then(|| unsafe { Box::from_raw(list) })
    }

    /// Adds a waiter, unless the call has ended: then it comes back.
    pub fn add_waiter(&self, mut waiter: Box<Waiter>) -> Result<(), Box<Waiter>> {
        self.lock.lock();
        let old = self.state.fetch_or(HAS_WAITERS, Ordering::AcqRel);
        let ended = finished(old);
        let mut back = None;
        if ended {
            back = Some(waiter);
        } else {
            // SAFETY: under the lock.
            unsafe {
                waiter.next = *self.waiters.get();
                *self.waiters.get() = Box::into_raw(waiter);
            }
        }
        // SAFETY: locked above.
        unsafe { self.lock.unlock() };
        back.map_or(Ok(()), Err)
    }

    /// Takes the waiter with this key out again; nothing if it has fired.
    pub fn remove_waiter(&self, key: usize) -> Option<Box<Waiter>> {
        self.lock.lock();
        let mut found = None;
        // SAFETY: under the lock; links are boxes leaked by `add_waiter`.
        unsafe {
            let mut link: *mut *mut Waiter = self.waiters.get();
            while !(*link).is_null() {
                if (**link).key == key {
                    let mut waiter = Box::from_raw(*link);
                    *link = std::mem::replace(&mut waiter.next, std::ptr::null_mut());
                    found = Some(waiter);
                    break;
                }
                link = &raw mut (**link).next;
            }
            self.lock.unlock();
        }
        found
    }

    /// The archive of the value; call when the phase is `Done`.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        debug_assert_eq!(phase(self.state()), Phase::Done);
        // SAFETY: `Done` records are immutable. The tag says which payload there is; the archive's root is at its end.
        unsafe {
            let base = self.base();
            match *self.tag.get() {
                Tag::Inline => {
                    std::slice::from_raw_parts(base.add(BODY), *self.end.get() as usize - BODY)
                }
                Tag::Boxed => std::slice::from_raw_parts(
                    (*self.out.get()).cast::<u8>().cast_const(),
                    *self.end.get() as usize,
                ),
                Tag::Stored => &*base.add(BODY).cast::<Sealed>(),
                Tag::Args | Tag::Empty | Tag::Failed => &[],
            }
        }
    }

    /// The value's bytes in the shared store, if it is there and not inside the record.
    pub fn stored(&self) -> Option<&Sealed> {
        if phase(self.state()) != Phase::Done {
            return None;
        }
        // SAFETY: as in `bytes`.
        unsafe {
            (*self.tag.get() == Tag::Stored)
                .then(|| &*self.base().add(BODY).cast::<Sealed>().cast_const())
        }
    }

    /// The error, marked as seen; call when the phase is `Failed`.
    pub fn error(&self) -> Error {
        self.set_flag(OBSERVED);
        self.peek_error().map_or(Error::ShutDown, |e| Error::clone(&e))
    }

    /// The error, shared, not marked as seen.
    pub fn peek_error(&self) -> Option<Arc<Error>> {
        if phase(self.state()) != Phase::Failed {
            return None;
        }
        // SAFETY: `Failed` records are immutable and `out` is an Arc that the record owns.
        unsafe {
            let raw = (*self.out.get()).cast::<Error>().cast_const();
            Arc::increment_strong_count(raw);
            Some(Arc::from_raw(raw))
        }
    }
}

/// The offset of boxed values in their block: congruent to [`BODY`] modulo 64.
pub const PAD: usize = BODY % 64;

/// # Safety
/// The last count of the record is gone.
#[inline]
unsafe fn destroy(record: NonNull<Record>) {
    // SAFETY: the caller's promise: this thread owns the record.
    unsafe {
        let r = record.as_ref();
        let light = (*r.caps.get()).is_none()
            && match *r.tag.get() {
                Tag::Inline | Tag::Empty => true,
                Tag::Args => {
                    (*r.out.get()).is_null() && r.slots().iter().all(|s| s.tag == SlotTag::Inline)
                }
                Tag::Boxed | Tag::Stored | Tag::Failed => false,
            };
        if light { free(record) } else { destroy_deeply(record) }
    }
}

thread_local! {
    static UNDER_WAY: UnsafeCell<Option<Vec<NonNull<Record>>>> = const { UnsafeCell::new(None) };
}

/// Records hold references to records: a long chain must not recurse. The outermost call frees what inner ones find.
///
/// # Safety
/// As for [`destroy`].
#[cold]
unsafe fn destroy_deeply(record: NonNull<Record>) {
    let outermost = UNDER_WAY.try_with(|u| {
        // SAFETY: this thread's, and the borrow ends before anything else runs.
        match unsafe { &mut *u.get() } {
            Some(list) => {
                list.push(record);
                false
            }
            none => {
                *none = Some(Vec::new());
                true
            }
        }
    });
    if outermost == Ok(false) {
        return;
    }
    // SAFETY: the caller's promise; records in the list have lost their last count too.
    unsafe {
        drop_payload(record.as_ref());
        free(record);
        while let Ok(Some(next)) = UNDER_WAY.try_with(|u| (*u.get()).as_mut().and_then(Vec::pop)) {
            drop_payload(next.as_ref());
            free(next);
        }
        let _ = UNDER_WAY.try_with(|u| *u.get() = None);
    }
}

/// # Safety
/// The caller owns the record.
unsafe fn drop_payload(r: &Record) {
    // SAFETY: owned; the tag says what is there.
    unsafe {
        match *r.tag.get() {
            Tag::Args => {
                r.drop_args();
                let error = (*r.out.get()).cast::<Error>().cast_const();
                if !error.is_null() {
                    drop(Arc::from_raw(error));
                }
            }
            Tag::Boxed => {
                let block = NonNull::new_unchecked((*r.out.get()).cast::<u8>());
                memory::give(block, *r.end.get() as usize);
            }
            Tag::Stored => {
                let sealed = r.base().add(BODY).cast::<Sealed>();
                sealed.drop_in_place();
            }
            Tag::Failed => {
                let error = Arc::from_raw((*r.out.get()).cast::<Error>().cast_const());
                if r.state.load(Ordering::Relaxed) & OBSERVED == 0 {
                    super::report::unobserved(&error);
                }
            }
            Tag::Empty | Tag::Inline => {}
        }
        drop((*r.caps.get()).take());
    }
}

/// # Safety
/// The caller owns the record, whose payload and capabilities are gone.
#[inline]
unsafe fn free(record: NonNull<Record>) {
    // SAFETY: owned; fields are dropped once here and the block is given back with the size it was taken with.
    unsafe {
        let r = record.as_ptr();
        if (*(*r).extra.get()).is_some() {
            (*(*r).extra.get()) = None;
        }
        if (*r).target.is_some() {
            (*r).target = None;
        }
        let cap = (*r).cap as usize;
        memory::give(record.cast(), cap);
    }
}

#[cfg(test)]
mod tests;
