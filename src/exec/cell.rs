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
//! This file makes, counts and frees records; where the call stands and who waits for it is [`Progress`]'s, what the body
//! holds is `payload`'s.
//!
//! Invariant: a record lives as long as some [`RawRef`]. Fields that are not atomic are written by the creator before the
//! record is shared, then only by the holder of the running call's claim, then by nobody until the last count is gone.
//! Left out: scheduling, see `engine`.

use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr::{NonNull, without_provenance_mut};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::actor::ActorRef;
use super::entry::FnEntry;
use super::mail::{self, Link};
use super::memory;
use super::options::Extra;
use super::payload::{Payload, Tag, drop_payload};
use super::phase::Progress;
use super::sync;
use crate::base::{Demand, Error, GroupId, Strategy};
use crate::store::{Sealed, Stored};
use crate::value::{Cap, CapKind};

pub use super::payload::{PAD, SLOT, Slot, SlotTag};
pub use super::phase::{CANCEL, CHECKED, FOREIGN, OBSERVED, Phase, finished, phase};

/// Where the payload begins.
pub const BODY: usize = 96;
/// Counts beyond which cloning aborts the process, long before the count could wrap.
const MOST_REFS: u32 = 1 << 31;

/// The header; see the module's picture. It ends where the body begins, so that a shared reference to it says nothing
/// about the body's bytes, which are reached through [`Record::base`].
#[repr(C, align(32))]
pub struct Record {
    refs: AtomicU32,
    /// Arguments that are not there yet.
    pub(super) deps: AtomicU32,
    /// The function called.
    pub entry: &'static FnEntry,
    progress: Progress,
    /// The next call in a mailbox.
    next: sync::UnsafeCell<*mut Record>,
    extra: UnsafeCell<Option<Box<Extra>>>,
    target: Option<ActorRef>,
    pub(super) payload: Payload,
    pub(super) caller: u64,
    /// A number, unique in this process.
    pub id: u64,
}

// Models of atomics are larger than atomics; nobody makes records under loom.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Record>() == BODY);

// SAFETY: see the module's invariant for who writes what when; what records hold is Send and Sync.
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
        if self.refs.fetch_add(1, Ordering::Relaxed) >= MOST_REFS {
            std::process::abort(); // a program that forgets references without end; wrapping would free a live record
        }
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

/// A record is claimed, finished and waited for as its progress.
impl std::ops::Deref for Record {
    type Target = Progress;
    #[inline(always)]
    fn deref(&self) -> &Progress {
        &self.progress
    }
}

impl Link for Record {
    #[inline(always)]
    fn link(&self) -> &sync::UnsafeCell<*mut Record> {
        &self.next
    }
}

impl Record {
    /// Notes which call runs further up on this thread's stack, in the link that no mailbox needs any more.
    ///
    /// # Safety
    /// The record is in no list, and the caller alone runs it.
    #[inline]
    pub(super) unsafe fn set_outer(&self, outer: *const Record) {
        // SAFETY: the caller's promise.
        unsafe { self.next.with_mut(|next| *next = outer.cast_mut()) }
    }

    /// What [`set_outer`](Self::set_outer) noted.
    ///
    /// # Safety
    /// The record runs on this thread.
    pub(super) unsafe fn outer(&self) -> *mut Record {
        // SAFETY: the caller's promise: only this thread writes it.
        unsafe { self.next.with(|next| *next) }
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

    /// Another reference, unless the last one is gone.
    ///
    /// # Safety
    /// The record's memory is still one: nobody has begun to free it, or whoever did cannot get past a lock that the caller
    /// holds.
    pub(super) unsafe fn try_from_weak(ptr: NonNull<Record>) -> Option<RawRef> {
        // SAFETY: the caller's promise.
        let refs = unsafe { &ptr.as_ref().refs };
        let more = refs.fetch_update(Ordering::Acquire, Ordering::Relaxed, |n| {
            (n > 0 && n < MOST_REFS).then_some(n + 1)
        });
        more.is_ok().then_some(RawRef(ptr))
    }

    /// The pointer; the count stays with `self`.
    pub(super) fn as_ptr(&self) -> NonNull<Record> {
        self.0
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
    pub fn into_cap<T: 'static>(self) -> Cap {
        let raw = NonNull::new(self.into_raw().cast()).expect("references are not null");
        // SAFETY: the count moves into the cap.
        unsafe { Cap::from_raw::<T>(raw, &OBJECT) }
    }

    /// As [`into_cap`](Self::into_cap), for the type that has this number.
    pub fn into_tagged_cap(self, tag: u64) -> Cap {
        let raw = NonNull::new(self.into_raw().cast()).expect("references are not null");
        // SAFETY: the count moves into the cap.
        unsafe { Cap::from_raw_tagged(raw, &OBJECT, tag) }
    }

    /// A reference to the object a cap refers to, whatever its type; `None` if it refers to no object.
    pub fn of_cap(cap: &Cap) -> Option<RawRef> {
        let raw = cap.of_kind(&OBJECT)?;
        // SAFETY: as in `from_cap`.
        let held = std::mem::ManuallyDrop::new(unsafe { RawRef::from_raw(raw.as_ptr().cast()) });
        Some(RawRef::clone(&held))
    }

    /// A reference to the object a cap refers to; `None` if it refers to something else.
    pub fn from_cap<T: 'static>(cap: &Cap) -> Option<RawRef> {
        let raw = cap.as_kind::<T>(&OBJECT)?;
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
    mut blank: Blank,
    nargs: usize,
    arguments: &[u8],
    end: usize,
    result_size: usize,
) -> RawRef {
    debug_assert!(arguments.len().is_multiple_of(32) && BODY + arguments.len() >= end);
    let cap = memory::rounded((BODY + arguments.len()).max(BODY + result_size));
    let payload = Payload::new(Tag::Args, nargs as u8, end as u32, cap, blank.caps.take());
    let block = memory::take(cap);
    // SAFETY: the block has `cap` bytes, at least a header and the arguments, and is ours alone.
    unsafe {
        write_header(block, blank, payload);
        copy_by_32(arguments, block.as_ptr().add(BODY));
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
            let piece = from
                .as_ptr()
                .add(at)
                .cast::<MaybeUninit<[u8; 32]>>()
                .read_unaligned();
            to.add(at)
                .cast::<MaybeUninit<[u8; 32]>>()
                .write_unaligned(piece);
        }
        at += 32;
    }
}

/// A record that is a value already: an archive whose positions count from [`BODY`] of the record.
#[inline]
pub fn with_inline_value(mut blank: Blank, archive: &[u8]) -> RawRef {
    let end = BODY + archive.len();
    let cap = memory::rounded(end);
    let payload = Payload::new(Tag::Inline, 0, end as u32, cap, blank.caps.take());
    let block = memory::take(cap);
    // SAFETY: as in `with_args`.
    unsafe {
        write_header(block, blank, payload);
        std::ptr::copy_nonoverlapping(archive.as_ptr(), block.as_ptr().add(BODY), archive.len());
    }
    RawRef(block.cast())
}

/// A record whose value is in the store.
#[inline]
pub fn with_stored_value(mut blank: Blank, sealed: Sealed) -> RawRef {
    #[cfg(not(loom))] // whose atomics are larger
    const {
        assert!(size_of::<Stored>() <= 32 && align_of::<Stored>() <= 32)
    };
    let cap = memory::rounded(BODY + size_of::<Stored>());
    let payload = Payload::new(Tag::Stored, 0, 0, cap, blank.caps.take());
    let block = memory::take(cap);
    // SAFETY: as in `with_args`; the body has room and alignment for a `Stored`, which
    // stays there until the record is freed.
    unsafe {
        write_header(block, blank, payload);
        Stored::place(sealed, block.as_ptr().add(BODY).cast());
    }
    RawRef(block.cast())
}

/// The id of the record in which a stored value lies.
///
/// # Safety
/// It lies in a record, and is not dropped meanwhile.
pub(super) unsafe fn id_around(stored: *const Stored) -> u64 {
    let record = std::ptr::with_exposed_provenance::<Record>(stored.addr() - BODY);
    // SAFETY: the caller's promise; the header before the body is never written again once the record is shared.
    unsafe { (*record).id }
}

/// A record whose value is in another process's store, which keeps it for as long as the record lives.
pub fn with_foreign_value(mut blank: Blank, bytes: &'static [u8]) -> RawRef {
    let cap = memory::rounded(BODY + size_of::<&[u8]>());
    let payload = Payload::new(Tag::Foreign, 0, 0, cap, blank.caps.take());
    let block = memory::take(cap);
    // SAFETY: as in `with_args`; the body has room and alignment for a slice.
    unsafe {
        write_header(block, blank, payload);
        block
            .as_ptr()
            .add(BODY)
            .cast::<&'static [u8]>()
            .write(bytes);
    }
    RawRef(block.cast())
}

/// A record that failed before it began.
pub fn failed(mut blank: Blank, error: Error) -> RawRef {
    blank.phase = Phase::Failed;
    let cap = memory::rounded(BODY);
    let block = memory::take(cap);
    // SAFETY: as in `with_args`.
    unsafe { write_header(block, blank, Payload::failed(cap, error)) };
    RawRef(block.cast())
}

/// # Safety
/// `block` has at least the payload's `cap` bytes, is aligned to 64, and belongs to the caller.
#[inline(always)]
unsafe fn write_header(block: NonNull<u8>, b: Blank, payload: Payload) {
    let base = block.as_ptr();
    base.expose_provenance();
    let header = Record {
        refs: AtomicU32::new(b.refs),
        deps: AtomicU32::new(0),
        entry: b.entry,
        progress: Progress::new(b.phase),
        next: sync::UnsafeCell::new(std::ptr::null_mut()),
        extra: UnsafeCell::new(b.extra),
        target: b.target,
        payload,
        caller: b.caller,
        id: b.id,
    };
    // SAFETY: the block holds a whole header and is aligned for it.
    unsafe { base.cast::<Record>().write(header) };
}

impl Record {
    /// The block's address, with the provenance of the whole block.
    #[inline(always)]
    pub(super) fn base(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut((&raw const *self).addr())
    }

    /// Who calls.
    pub fn caller(&self) -> u64 {
        self.caller
    }

    /// The function called.
    pub fn name(&self) -> &'static str {
        self.entry.name
    }

    /// Whether the holder of one count is the only one left. Nobody can gain a count then.
    #[inline]
    pub fn is_unique(&self) -> bool {
        self.refs.load(Ordering::Acquire) == 1
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

    /// Whether it runs as a future here: an `async fn` that no worker process runs.
    #[inline]
    pub fn is_future(&self) -> bool {
        self.entry.is_async() && !self.extra().is_some_and(|e| e.isolate)
    }

    /// The placement group that it runs in, and the bundle if that was named.
    #[inline]
    pub fn group(&self) -> Option<(GroupId, Option<u32>)> {
        match self.extra()?.strategy {
            Strategy::Group { group, bundle } => Some((group, bundle)),
            _ => None,
        }
    }

    /// What it takes while it runs, if that is not the common one CPU.
    #[inline]
    pub fn demand(&self) -> Option<&Demand> {
        self.extra().and_then(|e| e.demand.as_ref())
    }
}

/// # Safety
/// The last count of the record is gone.
#[inline]
unsafe fn destroy(record: NonNull<Record>) {
    // SAFETY: the caller's promise: this thread owns the record.
    unsafe {
        if record.as_ref().is_deep() {
            destroy_deeply(record)
        } else {
            free(record)
        }
    }
}

/// Ends the list of records that this thread is to free.
const END: *mut Record = without_provenance_mut(1);

thread_local! {
    /// Records that lost their last count while this thread frees one, linked as in a mailbox; null while it does not.
    static DOOMED: Cell<*mut Record> = const { Cell::new(std::ptr::null_mut()) };
}

/// Records hold references to records: a long chain must not recurse. The outermost call frees what inner ones find.
///
/// # Safety
/// As for [`destroy`].
#[cold]
unsafe fn destroy_deeply(record: NonNull<Record>) {
    /// A panic in user code (a report, an actor's state) must not leave the list open; the rest leaks.
    struct Close;
    impl Drop for Close {
        fn drop(&mut self) {
            DOOMED.set(std::ptr::null_mut());
        }
    }
    let doomed = DOOMED.get();
    if !doomed.is_null() {
        // SAFETY: without a count, no mailbox has the record, so its link is free.
        unsafe { mail::set_next(record.as_ptr(), doomed) };
        DOOMED.set(record.as_ptr());
        return;
    }
    DOOMED.set(END);
    let _close = Close;
    let mut record = record.as_ptr();
    loop {
        // SAFETY: the caller's promise; records in the list have lost their last count too, and are taken out once.
        unsafe {
            drop_payload(&*record);
            free(NonNull::new_unchecked(record));
            record = DOOMED.get();
            if record == END {
                return;
            }
            DOOMED.set(mail::next(record));
        }
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
        let cap = (*r).payload.cap();
        memory::give(record.cast(), cap);
    }
}

#[cfg(test)]
mod tests;
