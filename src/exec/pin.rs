//! Reading values in place: a pin keeps a value in memory while it is read.
//!
//! A value that lies in its record needs none; one in the store may have been moved to disk, and is brought back by
//! the first who pins it, with its CPU lent meanwhile. A call pins what its parameters read in place.
//!
//! Invariant: the bytes that a pin shows stay where they are until it goes. Who waits for several values to come back
//! holds none of them while others do the same: see [`Pins::take`]. Left out: what the bytes mean (`call`).

use std::cell::Cell;

use super::call::{Many, dependency, join_parts};
use super::cell::{self, Phase, RawRef, Record, Slot, SlotTag};
use super::engine::Engine;
use super::events;
use super::local::{self, Local};
use crate::base::{Error, Origin};
use crate::store::{Draft, Patience, Stored};
use crate::value::Cap;

/// The value of a record that has one, kept in memory.
pub struct Pin<'a>(&'a Record);

impl<'a> Pin<'a> {
    /// Pins it; the phase must be `Done`. Some nanoseconds if it is in memory, else it blocks.
    #[inline]
    pub fn new(record: &'a Record) -> Result<Pin<'a>, Error> {
        pin(record)?;
        Ok(Pin(record))
    }

    /// The archive.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: pinned by this.
        unsafe { self.0.bytes() }
    }

    /// The references in it.
    #[inline]
    pub fn caps(&self) -> &[Cap] {
        // SAFETY: `Done`, as `new` asserts.
        unsafe { self.0.caps() }
    }
}

impl Drop for Pin<'_> {
    #[inline]
    fn drop(&mut self) {
        unpin(self.0);
    }
}

/// The same with a reference of its own.
pub struct PinnedRef(RawRef);

impl PinnedRef {
    /// As [`Pin::new`].
    #[inline]
    pub fn new(raw: RawRef) -> Result<PinnedRef, Error> {
        pin(&raw)?;
        Ok(PinnedRef(raw))
    }

    /// As [`new`](Self::new); if it is elsewhere and there is no room for it here, that is waited for no longer than this.
    #[cfg(feature = "cluster")]
    pub fn within(raw: RawRef, longest: std::time::Duration) -> Result<PinnedRef, Error> {
        if let Some(stored) = raw.stored()
            && !stored.try_pin()
        {
            local::with(|local| {
                local.engine.patiently(local, |patience| {
                    let patience = Patience {
                        longest,
                        ..*patience
                    };
                    restore(local, &raw, stored, &patience)
                })
            })??;
        }
        Ok(PinnedRef(raw))
    }

    /// The reference.
    #[inline]
    pub fn raw(&self) -> &RawRef {
        &self.0
    }

    /// The archive.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: pinned by this.
        unsafe { self.0.bytes() }
    }
}

impl AsRef<[u8]> for PinnedRef {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for PinnedRef {
    #[inline]
    fn drop(&mut self) {
        unpin(&self.0);
    }
}

#[inline]
fn pin(record: &Record) -> Result<(), Error> {
    assert!(
        cell::phase(record.state()) == Phase::Done,
        "only values are read"
    );
    match record.stored() {
        Some(stored) if !stored.try_pin() => bring_back(record, stored),
        _ => Ok(()),
    }
}

#[inline]
fn unpin(record: &Record) {
    if let Some(stored) = record.stored() {
        stored.unpin();
    }
}

/// Pins what is on disk, or on another node.
#[cold]
#[inline(never)]
fn bring_back(record: &Record, stored: &Stored) -> Result<(), Error> {
    let with_runtime = local::with(|local| {
        let engine = &local.engine;
        engine.patiently(local, |patience| restore(local, record, stored, patience))
    });
    // What was made before a shutdown can be read after it.
    with_runtime.unwrap_or_else(|_| stored.pin(&stored.patience()).map(drop))
}

/// As above, with the thread that waits for it.
fn restore(
    local: &Local,
    record: &Record,
    stored: &Stored,
    patience: &Patience<'_>,
) -> Result<(), Error> {
    let begin = events::blocks(local);
    let came = stored.pin(patience)?;
    events::came(local, begin, record, stored.len(), came);
    Ok(())
}

impl Engine {
    /// Room for an object, waiting for it if there is none; the CPU is lent meanwhile.
    #[inline]
    pub fn create(
        self: &std::sync::Arc<Engine>,
        local: &Local,
        len: usize,
        origin: Origin,
    ) -> Result<Draft, Error> {
        match self.store().try_create(len, origin) {
            Some(draft) => Ok(draft),
            None => self.patiently(local, |patience| {
                Ok(self.store().create_patiently(len, origin, patience)?)
            }),
        }
    }

    /// As [`create`](Self::create), on pages of its own.
    pub fn create_on_pages(
        self: &std::sync::Arc<Engine>,
        local: &Local,
        len: usize,
        origin: Origin,
    ) -> Result<Draft, Error> {
        let store = self.store();
        match store.try_create_on_pages(len, origin) {
            Some(draft) => Ok(draft),
            None => self.patiently(local, |patience| {
                Ok(store.create_on_pages_patiently(len, origin, patience)?)
            }),
        }
    }

    /// Runs what may wait for room or for the disk.
    #[inline(never)]
    fn patiently<R>(
        self: &std::sync::Arc<Engine>,
        local: &Local,
        blocking: impl FnOnce(&Patience<'_>) -> R,
    ) -> R {
        let who = local.current_record(|r| r.id).unwrap_or(0);
        let patience = Patience {
            who,
            hopeless: &|| self.is_closing(),
            ..self.store().patience()
        };
        let _block = self.block(local, ("room in the store", 0, 1));
        super::tasks::aside(|| blocking(&patience))
    }
}

/// What one call has pinned of its arguments, by their places.
pub struct Pins<'a> {
    record: &'a Record,
    held: Cell<u16>,
}

impl<'a> Pins<'a> {
    /// Pins every argument that is an object, joining those that together are one `Vec`.
    ///
    /// If one is on disk, what is pinned already is let go and the rest happens one call after the other: otherwise two
    /// calls could each hold what the other's argument needs the room of.
    ///
    /// # Safety
    /// The caller holds the record's claim for `'a` and does not drop its arguments meanwhile.
    #[inline]
    pub unsafe fn take(local: &Local, record: &'a Record) -> Result<Pins<'a>, Error> {
        let pins = Pins {
            record,
            held: Cell::new(0),
        };
        // SAFETY: the caller's promise.
        let slots = unsafe { record.slots() };
        if slots.iter().any(|slot| slot.tag != SlotTag::Inline) {
            pins.take_objects(local, slots)?;
        }
        Ok(pins)
    }

    #[inline(never)]
    fn take_objects(&self, local: &Local, slots: &[Slot]) -> Result<(), Error> {
        for slot in slots {
            // SAFETY: the slots own what they point to.
            unsafe {
                if slot.tag == SlotTag::Many {
                    join_parts(local, &*slot.ptr.cast::<Many>(), self.record)?;
                }
            }
        }
        let mut all = true;
        for (i, slot) in slots.iter().enumerate() {
            if let Some(object) = object(slot) {
                let object = dependency(object, self.record)?;
                if object.stored().is_none_or(Stored::try_pin) {
                    self.held.set(self.held.get() | 1 << i);
                } else {
                    all = false;
                    break;
                }
            }
        }
        if all { Ok(()) } else { self.load(local, slots) }
    }

    #[cold]
    fn load(&self, local: &Local, slots: &[Slot]) -> Result<(), Error> {
        self.release_all();
        let engine = &local.engine;
        engine.patiently(local, |patience| {
            // A single one is held by nobody else's wait.
            let several = slots.iter().filter_map(object).nth(1).is_some();
            if several {
                // Another node's bytes may have to be made anew, by calls that load theirs: they come here before the line begins.
                for object in slots.iter().filter_map(object) {
                    let object = dependency(object, self.record)?;
                    if let Some(stored) = object.stored()
                        && stored.is_distant()
                    {
                        let came = restore(local, object, stored, patience);
                        came.map_err(|e| super::call::failed_input(e, self.record))?;
                        stored.unpin();
                    }
                }
            }
            let _one_at_a_time = several.then(|| engine.store().loading());
            for (i, slot) in slots.iter().enumerate() {
                if let Some(object) = object(slot) {
                    let object = dependency(object, self.record)?;
                    if let Some(stored) = object.stored()
                        && !stored.try_pin()
                    {
                        let pinned = restore(local, object, stored, patience);
                        pinned.map_err(|e| super::call::failed_input(e, self.record))?;
                    }
                    self.held.set(self.held.get() | 1 << i);
                }
            }
            Ok(())
        })
    }

    /// Lets go of one argument, which was copied.
    #[inline]
    pub fn release(&self, i: usize) {
        let held = self.held.get();
        if held & 1 << i != 0 {
            self.held.set(held & !(1 << i));
            // SAFETY: the claim, as `take` was promised; what is held is an object.
            let slots = unsafe { self.record.slots() };
            if let Some(object) = object(&slots[i]) {
                unpin(object);
            }
        }
    }

    #[cold]
    fn release_all(&self) {
        for i in 0..16 {
            self.release(i);
        }
    }
}

impl Drop for Pins<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.held.get() != 0 {
            self.release_all();
        }
    }
}

/// The object behind a slot, if it is one; of many, what they were joined to.
fn object(slot: &Slot) -> Option<&Record> {
    // SAFETY: the slot owns what it points to, and is borrowed.
    unsafe {
        match slot.tag {
            SlotTag::Inline => None,
            SlotTag::Ref => Some(&*slot.ptr.cast::<Record>()),
            SlotTag::Many => (*slot.ptr.cast::<Many>()).joined(),
        }
    }
}
