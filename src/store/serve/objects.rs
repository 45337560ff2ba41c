//! The objects of a served store: names, states, pins and the order of use.
//!
//! Invariants: a name is of at most one object; an object is written until it is sealed and never
//! after; it stays in place while it is pinned, with or without its name; the idle ones are exactly
//! those that are sealed, named and not pinned. Left out: clients (`table`), memory (`shelf`).

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};

use super::shelf::{Place, Shelf, Shelved};
use crate::base::{ObjectId, ObjectState};
use crate::store::proto::{Answer, Denial, Entry, ServedStats};

/// The number of one object, never used again.
pub type Serial = u64;

enum State {
    Written(Place),
    Sealed { shelved: Shelved, pins: u64 },
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

    /// Makes room for an object and takes its name.
    pub fn begin(&mut self, id: ObjectId, len: u64, may_lend: bool) -> Result<Serial, Denial> {
        if self.names.contains_key(&id) {
            return Err(Denial::Exists);
        }
        let place = self.shelf.place(len, may_lend)?;
        self.serials += 1;
        self.counts.drafts += 1;
        let object = Object {
            id,
            len,
            used: 0,
            deleted: false,
            state: State::Written(place),
        };
        self.all.insert(self.serials, object);
        self.names.insert(id, self.serials);
        Ok(self.serials)
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

    /// Completes an object; its name and length. Nobody has it pinned.
    pub fn seal(&mut self, serial: Serial) -> Option<(ObjectId, u64)> {
        let mut object = self.all.remove(&serial)?;
        if let State::Written(place) = object.state {
            let shelved = place.seal();
            object.state = State::Sealed { shelved, pins: 0 };
            self.counts.drafts -= 1;
            self.counts.sealed += 1;
            self.uses += 1;
            object.used = self.uses;
            self.idle.insert(object.used, serial);
        }
        let told = (object.id, object.len);
        self.all.insert(serial, object);
        Some(told)
    }

    /// Gives up an object that is being written.
    pub fn abort(&mut self, serial: Serial) {
        let written = |object: &Object| matches!(object.state, State::Written(_));
        if self.all.get(&serial).is_some_and(written)
            && let Some(object) = self.all.remove(&serial)
        {
            self.names.remove(&object.id);
            self.counts.drafts -= 1;
        }
    }

    /// Pins the object of this name, if it is sealed.
    pub fn pin(&mut self, id: ObjectId) -> Option<Found> {
        let serial = *self.names.get(&id)?;
        let object = self.all.get_mut(&serial)?;
        let State::Sealed { shelved, pins } = &mut object.state else {
            return None;
        };
        if *pins == 0 {
            self.idle.remove(&object.used);
            self.counts.pinned += 1;
        }
        *pins += 1;
        Some(Found {
            serial,
            offset: shelved.offset(),
            len: object.len,
        })
    }

    /// Takes pins back. The last one of a deleted object frees it.
    pub fn unpin(&mut self, serial: Serial, count: u64) {
        let Some(object) = self.all.get_mut(&serial) else {
            return;
        };
        let State::Sealed { pins, .. } = &mut object.state else {
            return;
        };
        *pins = pins.saturating_sub(count);
        if *pins > 0 {
            return;
        }
        self.counts.pinned -= 1;
        if object.deleted {
            self.counts.deleted -= 1;
            self.all.remove(&serial);
            return;
        }
        self.uses += 1;
        object.used = self.uses;
        self.idle.insert(object.used, serial);
    }

    pub fn state(&self, id: ObjectId) -> ObjectState {
        match self.names.get(&id).map(|serial| &self.all[serial].state) {
            None => ObjectState::Absent,
            Some(State::Written(_)) => ObjectState::Written,
            Some(State::Sealed { .. }) => ObjectState::Sealed,
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
        if matches!(object.state, State::Sealed { pins: 1.., .. }) {
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
            let pins = match object.state {
                State::Written(_) => None,
                State::Sealed { pins, .. } => Some(pins),
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

/// Where a pinned object lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub serial: Serial,
    pub offset: u64,
    pub len: u64,
}
