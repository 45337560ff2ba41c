//! The calls that wait for their arguments, so that somebody who looks from outside sees them and what they wait for.
//!
//! Invariant: a call is noted before it can become ready and crossed out when its arguments are there, once, though it may have
//! ended before; no reference to it is kept, so nothing lives longer for it. At most [`MOST`] are noted for each of the [`PARTS`]
//! parts; of the others only the number is known, and those of them that ended count until then. Left out: waiting
//! itself, which is the engine's.

use parking_lot::Mutex;

use super::entry::FnEntry;
use crate::base::IdMap;

/// Parts with a lock each: threads that submit do not meet.
const PARTS: usize = 16;
/// The most calls noted in a part.
const MOST: usize = 4096;
/// The most missing arguments noted of a call.
pub const NAMED: usize = 4;

/// A call that waits.
#[derive(Clone, Copy, Debug)]
pub struct Note {
    /// Its id.
    pub call: u64,
    /// The function called.
    pub entry: &'static FnEntry,
    /// The actor whose method it is; 0 if it is none.
    pub actor: u64,
    /// Arguments that were missing when it was submitted.
    pub missing: u32,
    /// The first of them: the ids and functions of the calls that make them.
    pub named: [Option<(u64, &'static FnEntry)>; NAMED],
}

#[derive(Default)]
struct Part {
    /// What is noted, and whether the call has ended without its arguments.
    notes: IdMap<(Note, bool)>,
    /// How many of these have.
    ended: u64,
    /// How many wait that are not noted.
    more: u64,
}

/// See the module.
#[derive(Default)]
pub struct WaitingCalls {
    parts: [Mutex<Part>; PARTS],
}

impl WaitingCalls {
    fn part(&self, call: u64) -> &Mutex<Part> {
        &self.parts[(call >> 40) as usize % PARTS]
    }

    /// A call begins to wait.
    pub fn note(&self, note: Note) {
        let mut part = self.part(note.call).lock();
        if part.notes.len() < MOST {
            part.notes.insert(note.call, (note, false));
        } else {
            part.more += 1;
        }
    }

    /// It has ended, although arguments are missing: it is listed no more.
    pub fn end(&self, call: u64) {
        let mut part = self.part(call).lock();
        if let Some((_, ended)) = part.notes.get_mut(&call)
            && !std::mem::replace(ended, true)
        {
            part.ended += 1;
        }
    }

    /// Its arguments are there.
    pub fn cross_out(&self, call: u64) {
        let mut part = self.part(call).lock();
        match part.notes.remove(&call) {
            Some((_, ended)) => part.ended -= u64::from(ended),
            None => part.more = part.more.saturating_sub(1),
        }
    }

    /// How many wait.
    pub fn count(&self) -> u64 {
        let count = |part: &Mutex<Part>| {
            let part = part.lock();
            part.notes.len() as u64 - part.ended + part.more
        };
        self.parts.iter().map(count).sum()
    }

    /// Those that are noted, oldest of each thread first, and how many are not.
    pub fn list(&self) -> (Vec<Note>, u64) {
        let (mut notes, mut more) = (Vec::new(), 0);
        for part in &self.parts {
            let part = part.lock();
            let wait = part.notes.values().filter(|(_, ended)| !ended);
            notes.extend(wait.map(|(note, _)| *note));
            more += part.more;
        }
        notes.sort_unstable_by_key(|n: &Note| n.call);
        (notes, more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::entry::Kind;

    static F: FnEntry = FnEntry::inert("f", Kind::Task);

    fn note(call: u64) -> Note {
        Note {
            call,
            entry: &F,
            actor: 0,
            missing: 1,
            named: [None; NAMED],
        }
    }

    #[test]
    fn what_waits_is_listed_until_it_does_not() {
        let waiting = WaitingCalls::default();
        for thread in [3u64, 1] {
            for n in 0..10 {
                waiting.note(note(thread << 40 | n));
            }
        }
        waiting.cross_out(1 << 40);
        let (list, more) = waiting.list();
        assert_eq!((list.len(), more, waiting.count()), (19, 0, 19));
        assert!(list.is_sorted_by_key(|n| n.call));
    }

    #[test]
    fn calls_that_end_without_their_arguments_are_counted_once() {
        let waiting = WaitingCalls::default();
        let all = MOST as u64 + 2000;
        (0..all).for_each(|n| waiting.note(note(n)));
        (0..MOST as u64).for_each(|n| waiting.end(n));
        let (list, more) = waiting.list();
        assert_eq!((list.len(), more, waiting.count()), (0, 2000, 2000));
        waiting.end(7);
        (0..MOST as u64).for_each(|n| waiting.cross_out(n));
        assert_eq!(waiting.count(), 2000);
        (MOST as u64..all).for_each(|n| waiting.cross_out(n));
        assert_eq!(waiting.count(), 0);
    }

    #[test]
    fn a_million_waiting_calls_are_counted_in_bounded_memory() {
        let waiting = WaitingCalls::default();
        let all = 100_000;
        (0..all).for_each(|n| waiting.note(note(n)));
        let (list, more) = waiting.list();
        assert_eq!((list.len(), waiting.count()), (MOST, all));
        assert_eq!(more, all - MOST as u64);
        (0..all).for_each(|n| waiting.cross_out(n));
        assert_eq!(waiting.count(), 0);
    }
}
