//! How many bytes and objects each origin holds: counted as they come and go.
//!
//! An origin is interned to a small number on its first use, so that a block's record keeps four
//! bytes and counting costs no hash. Invariant: the totals are the sums over the entries, and an
//! entry's objects are exactly the live blocks that carry its number. Origins are places in the
//! source and names of functions: finitely many, so entries are never taken back. Left out: which
//! blocks they are.

use std::collections::HashMap;

use crate::base::{Holder, Origin};

/// Places in the front cache; a power of two.
const RECENT: usize = 32;

/// Live bytes and objects by origin.
pub struct Tally {
    entries: Vec<Holder>,
    numbers: HashMap<Origin, u32>,
    /// Origins seen lately, by address: comparing a whole `Location` would compare file names.
    recent: [(Key, u32); RECENT],
    bytes: u64,
    objects: u64,
}

/// What is cheap to compare about an origin. Equal keys are equal origins; the reverse need not
/// hold, and costs only a lookup in the map.
type Key = (usize, usize);

impl Tally {
    /// Nothing counted.
    pub fn new() -> Tally {
        Tally {
            entries: Vec::new(),
            numbers: HashMap::new(),
            recent: [((0, 0), 0); RECENT],
            bytes: 0,
            objects: 0,
        }
    }

    /// Counts one object of `bytes` and returns the number to give back to
    /// [`remove`](Self::remove). A few nanoseconds for an origin used lately.
    #[inline]
    pub fn add(&mut self, origin: Origin, bytes: u64) -> u32 {
        let key = key(&origin);
        let place = &self.recent[place(key)];
        let number = if place.0 == key {
            place.1
        } else {
            self.look_up(key, origin)
        };
        let entry = &mut self.entries[number as usize];
        entry.bytes += bytes;
        entry.objects += 1;
        self.bytes += bytes;
        self.objects += 1;
        number
    }

    /// Takes one object of `bytes` off the origin of this number.
    #[inline]
    pub fn remove(&mut self, number: u32, bytes: u64) {
        let entry = &mut self.entries[number as usize];
        entry.bytes -= bytes;
        entry.objects -= 1;
        self.bytes -= bytes;
        self.objects -= 1;
    }

    /// Bytes of all live objects.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All live objects.
    pub fn objects(&self) -> u64 {
        self.objects
    }

    /// Adds the origins that hold anything to `sums`.
    pub fn merge_into(&self, sums: &mut HashMap<Origin, Holder>) {
        for entry in self.entries.iter().filter(|e| e.objects > 0) {
            let empty = Holder {
                origin: entry.origin,
                bytes: 0,
                objects: 0,
                spilled: 0,
            };
            let sum = sums.entry(entry.origin).or_insert(empty);
            sum.bytes += entry.bytes;
            sum.objects += entry.objects;
        }
    }

    /// The origin of this number.
    pub fn origin(&self, number: u32) -> Origin {
        self.entries[number as usize].origin
    }

    #[cold]
    fn look_up(&mut self, key: Key, origin: Origin) -> u32 {
        let next = self.entries.len() as u32;
        let number = *self.numbers.entry(origin).or_insert(next);
        if number == next {
            self.entries.push(Holder {
                origin,
                bytes: 0,
                objects: 0,
                spilled: 0,
            });
        }
        self.recent[place(key)] = (key, number);
        number
    }
}

/// The n biggest of the merged holders, biggest first.
pub fn biggest(sums: HashMap<Origin, Holder>, n: usize) -> Vec<Holder> {
    let mut all: Vec<Holder> = sums.into_values().collect();
    all.sort_by_key(|h| std::cmp::Reverse((h.bytes, h.objects)));
    all.truncate(n);
    all
}

fn key(origin: &Origin) -> Key {
    let at = |l: &'static std::panic::Location<'static>| std::ptr::from_ref(l).addr();
    match *origin {
        Origin::Put(l) => (at(l), 0),
        Origin::Create(l) => (at(l), 1),
        Origin::Argument(name) => (name.as_ptr().addr(), name.len() << 2 | 2),
        Origin::Result(name) => (name.as_ptr().addr(), name.len() << 2 | 3),
    }
}

fn place((address, kind): Key) -> usize {
    // Locations lie a few words apart: the low three bits say nothing.
    ((address >> 3) ^ (address >> 8) ^ kind) & (RECENT - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::Location;

    #[test]
    fn counts_by_origin_and_returns_to_zero() {
        let mut tally = Tally::new();
        let here = Origin::Put(Location::caller());
        let (a, b) = (tally.add(here, 10), tally.add(Origin::Result("f"), 5));
        assert_eq!(tally.add(here, 1), a);
        assert_eq!((tally.bytes(), tally.objects()), (16, 3));
        assert_eq!(
            (tally.origin(a), tally.origin(b)),
            (here, Origin::Result("f"))
        );
        let mut sums = HashMap::new();
        tally.merge_into(&mut sums);
        tally.merge_into(&mut sums);
        let list = biggest(sums, 9);
        assert_eq!(
            list[0],
            Holder {
                origin: here,
                bytes: 22,
                objects: 4,
                spilled: 0
            }
        );
        assert_eq!(
            list[1],
            Holder {
                origin: Origin::Result("f"),
                bytes: 10,
                objects: 2,
                spilled: 0
            }
        );
        tally.remove(a, 10);
        tally.remove(b, 5);
        tally.remove(a, 1);
        assert_eq!((tally.bytes(), tally.objects()), (0, 0));
        let mut sums = HashMap::new();
        tally.merge_into(&mut sums);
        assert!(sums.is_empty());
    }

    #[test]
    fn equal_names_at_other_addresses_are_one_origin() {
        let mut tally = Tally::new();
        let copy: &'static str = String::from("same").leak();
        let a = tally.add(Origin::Argument("same"), 1);
        assert_eq!(tally.add(Origin::Argument(copy), 1), a);
        assert_ne!(tally.add(Origin::Result(copy), 1), a);
    }

    #[test]
    fn many_origins_stay_apart() {
        let mut tally = Tally::new();
        let names: Vec<&'static str> = (0..200).map(|i| &*format!("f{i}").leak()).collect();
        let numbers: Vec<u32> = names
            .iter()
            .map(|n| tally.add(Origin::Argument(n), n.len() as u64))
            .collect();
        for (name, number) in names.iter().zip(numbers) {
            assert_eq!(tally.add(Origin::Argument(name), 0), number);
        }
        assert_eq!(tally.objects(), 400);
    }
}
