//! The objects of a served store: names, states, pins and the order of use.
//!
//! Invariants: a name is of at most one object; an object is written until it is sealed and never
//! after; it stays in place while it is pinned, with or without its name; the idle ones are exactly
//! those that are sealed, named, not pinned and not on their way back from disk. What would wait is
//! an [`Errand`] for others. Left out: clients (`table`), memory (`shelf`).

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::helpers::Errand;
use super::shelf::{Place, Shelf, Shelved};
use crate::base::{ObjectId, ObjectState};
use crate::store::proto::{Answer, Denial, Entry, ServedStats};

/// The number of one object, never used again.
pub type Serial = u64;

enum State {
    /// It has a name and waits for room; the flag says that it need not any more.
    Roomless(Arc<AtomicBool>),
    Written(Place),
    Sealed(Sealed),
}

struct Sealed {
    shelved: Shelved,
    /// Where it lies, while it is pinned.
    offset: u64,
    pins: u64,
    /// It is on its way back from disk.
    returning: bool,
}

struct Object {
    id: ObjectId,
    len: u64,
    /// The number of its last use: its key among the idle.
    used: u64,
    /// It lost its name, and stays for those that read it.
    deleted: bool,
    state: State,
}

/// All objects of a server.
pub struct Objects {
    shelf: Shelf,
    all: HashMap<Serial, Object>,
    names: BTreeMap<ObjectId, Serial>,
    /// By last use.
    idle: BTreeMap<u64, Serial>,
    serials: Serial,
    uses: u64,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    drafts: u64,
    pinned: u64,
    deleted: u64,
    sealed: u64,
    evicted: u64,
}

impl Objects {
    pub fn new(shelf: Shelf) -> Objects {
        Objects {
            shelf,
            all: HashMap::new(),
            names: BTreeMap::new(),
            idle: BTreeMap::new(),
            serials: 0,
            uses: 0,
            counts: Counts::default(),
        }
    }

    /// Takes a name, and room for an object; what is returned besides its number waits for the room.
    pub fn begin(
        &mut self,
        id: ObjectId,
        len: u64,
        may_lend: bool,
    ) -> Result<(Serial, Option<Errand>), Denial> {
        if self.names.contains_key(&id) {
            return Err(Denial::Exists);
        }
        let wanted = self.shelf.want(len, may_lend)?;
        let place = self.shelf.try_place(wanted)?;
        self.serials += 1;
        self.counts.drafts += 1;
        let serial = self.serials;
        let (state, errand) = match place {
            Some(place) => (State::Written(place), None),
            None => {
                let given_up = Arc::new(AtomicBool::new(false));
                let errand = Errand::Place {
                    serial,
                    wanted,
                    given_up: Arc::clone(&given_up),
                };
                (State::Roomless(given_up), Some(errand))
            }
        };
        let object = Object {
            id,
            len,
            used: 0,
            deleted: false,
            state,
        };
        self.all.insert(serial, object);
        self.names.insert(id, serial);
        Ok((serial, errand))
    }

    /// The room that an object waited for is there. False if nobody waits any more.
    pub fn placed(&mut self, serial: Serial, place: Place) -> bool {
        match self.all.get_mut(&serial).map(|object| &mut object.state) {
            Some(state @ State::Roomless(_)) => {
                *state = State::Written(place);
                true
            }
            _ => false,
        }
    }

    /// Where an object that is being written lies, if its pages are lent.
    pub fn lent(&self, serial: Serial) -> Option<u64> {
        match &self.all.get(&serial)?.state {
            State::Written(place) if place.lent() => Some(place.offset()),
            _ => None,
        }
    }

    /// Copies a piece into an object that is being written and not lent; false if that cannot be.
    pub fn write(&mut self, serial: Serial, at: u64, bytes: &[u8]) -> bool {
        match self.all.get_mut(&serial).map(|object| &mut object.state) {
            Some(State::Written(place)) => place.write(at, bytes),
            _ => false,
        }
    }

    /// Completes an object that has room; its name and length. Nobody has it pinned.
    pub fn seal(&mut self, serial: Serial) -> Option<(ObjectId, u64)> {
        let mut object = self.all.remove(&serial)?;
        let told = (object.id, object.len);
        let mut sealed = None;
        object.state = match object.state {
            State::Written(place) => {
                self.counts.drafts -= 1;
                self.counts.sealed += 1;
                self.uses += 1;
                object.used = self.uses;
                self.idle.insert(object.used, serial);
                sealed = Some(told);
                State::Sealed(Sealed {
                    shelved: place.seal(),
                    offset: 0,
                    pins: 0,
                    returning: false,
                })
            }
            other => other,
        };
        self.all.insert(serial, object);
        sealed
    }

    /// Gives up an object that is being written.
    pub fn abort(&mut self, serial: Serial) {
        let Some(object) = self.all.get(&serial) else {
            return;
        };
        match &object.state {
            State::Sealed(_) => return,
            State::Written(_) => {}
            State::Roomless(given_up) => given_up.store(true, Relaxed),
        }
        self.names.remove(&object.id);
        self.counts.drafts -= 1;
        self.all.remove(&serial);
    }

    /// Pins the object of this name, if it is sealed.
    pub fn pin(&mut self, id: ObjectId) -> Pin {
        let Some(serial) = self.names.get(&id).copied() else {
            return Pin::None;
        };
        let Some(object) = self.all.get_mut(&serial) else {
            return Pin::None;
        };
        let State::Sealed(sealed) = &mut object.state else {
            return Pin::None;
        };
        if sealed.pins == 0 {
            let was_idle = !sealed.returning;
            match sealed.shelved.try_hold() {
                Some(offset) => sealed.offset = offset,
                None => {
                    let shelved = sealed.shelved.clone();
                    self.idle.remove(&object.used);
                    sealed.returning = true;
                    return Pin::Away(was_idle.then_some(Errand::Hold { serial, shelved }));
                }
            }
            self.idle.remove(&object.used);
            self.counts.pinned += 1;
        }
        sealed.pins += 1;
        Pin::Found(Found {
            serial,
            offset: sealed.offset,
            len: object.len,
        })
    }

    /// An object came back from disk, with a hold that becomes its first pin, or did not. Returns its
    /// name, if it has it still; what was pinned here is to be unpinned.
    pub fn held(
        &mut self,
        serial: Serial,
        shelved: &Shelved,
        offset: Option<u64>,
    ) -> Option<ObjectId> {
        let object = self.all.get_mut(&serial).filter(|object| !object.deleted);
        let Some(object) = object else {
            if offset.is_some() {
                shelved.release();
            }
            return None;
        };
        let State::Sealed(sealed) = &mut object.state else {
            return None;
        };
        sealed.returning = false;
        match offset {
            Some(_) if sealed.pins > 0 => {
                // It is held already: one hold stands for all pins.
                shelved.release();
                sealed.pins += 1;
            }
            Some(offset) => {
                sealed.offset = offset;
                sealed.pins = 1;
                self.counts.pinned += 1;
            }
            None if sealed.pins == 0 => {
                self.idle.insert(object.used, serial);
            }
            None => {}
        }
        Some(object.id)
    }

    /// Takes pins back. The last one of a deleted object frees it.
    pub fn unpin(&mut self, serial: Serial, count: u64) {
        let Some(object) = self.all.get_mut(&serial) else {
            return;
        };
        let State::Sealed(sealed) = &mut object.state else {
            return;
        };
        if sealed.pins == 0 {
            return;
        }
        sealed.pins = sealed.pins.saturating_sub(count);
        if sealed.pins > 0 {
            return;
        }
        sealed.shelved.release();
        self.counts.pinned -= 1;
        if object.deleted {
            self.counts.deleted -= 1;
            self.all.remove(&serial);
            return;
        }
        self.uses += 1;
        object.used = self.uses;
        if !sealed.returning {
            self.idle.insert(object.used, serial);
        }
    }

    pub fn state(&self, id: ObjectId) -> ObjectState {
        match self.names.get(&id).map(|serial| &self.all[serial].state) {
            None => ObjectState::Absent,
            Some(State::Roomless(_) | State::Written(_)) => ObjectState::Written,
            Some(State::Sealed(_)) => ObjectState::Sealed,
        }
    }

    /// Takes the name of a sealed object, and its memory unless it is pinned.
    pub fn delete(&mut self, id: ObjectId) -> Result<(), Denial> {
        match self.state(id) {
            ObjectState::Absent => return Err(Denial::NotFound),
            ObjectState::Written => return Err(Denial::NotSealed),
            ObjectState::Sealed => {}
        }
        let serial = self.names.remove(&id);
        let Some((serial, object)) = serial.and_then(|s| Some((s, self.all.get_mut(&s)?))) else {
            return Ok(());
        };
        if matches!(&object.state, State::Sealed(sealed) if sealed.pins > 0) {
            object.deleted = true;
            self.counts.deleted += 1;
        } else {
            self.idle.remove(&object.used);
            self.all.remove(&serial);
        }
        Ok(())
    }

    /// Deletes idle objects, least recently used first, until `bytes` are freed or none is left.
    pub fn evict(&mut self, bytes: u64, mut deleted: impl FnMut(ObjectId)) -> u64 {
        let mut freed = 0;
        while freed < bytes
            && let Some((_, serial)) = self.idle.pop_first()
        {
            if let Some(object) = self.all.remove(&serial) {
                self.names.remove(&object.id);
                self.counts.evicted += 1;
                freed += object.len;
                deleted(object.id);
            }
        }
        freed
    }

    /// One page of the names, in order, after this one.
    pub fn list(&self, after: Option<ObjectId>) -> Answer {
        let from = after.map_or(Unbounded, Excluded);
        let mut names = self.names.range((from, Unbounded));
        let entries = names.by_ref().take(Entry::MAX).map(|(id, serial)| {
            let object = &self.all[serial];
            let pins = match &object.state {
                State::Roomless(_) | State::Written(_) => None,
                State::Sealed(sealed) => Some(sealed.pins),
            };
            Entry {
                id: *id,
                len: object.len,
                sealed: pins.is_some(),
                pins: u32::try_from(pins.unwrap_or(0)).unwrap_or(u32::MAX),
            }
        });
        let entries = entries.collect();
        Answer::Names {
            more: names.next().is_some(),
            entries,
        }
    }

    /// The number of the object begun last.
    #[cfg(test)]
    pub fn begun(&self) -> Serial {
        self.serials
    }

    pub fn count(&self, stats: &mut ServedStats) {
        self.shelf.count(stats);
        stats.objects = self.names.len() as u64 - self.counts.drafts;
        stats.drafts = self.counts.drafts;
        stats.pinned = self.counts.pinned;
        stats.deleted = self.counts.deleted;
        stats.sealed = self.counts.sealed;
        stats.evicted = self.counts.evicted;
    }
}

/// What pinning came to.
pub enum Pin {
    /// It is pinned.
    Found(Found),
    /// It is sealed and on disk; the errand, if none is under way, brings it back.
    Away(Option<Errand>),
    /// There is none, or it is being written.
    None,
}

/// Where a pinned object lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub serial: Serial,
    pub offset: u64,
    pub len: u64,
}
