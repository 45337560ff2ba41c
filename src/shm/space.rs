//! The page runs of an arena and the long objects that live in them: the part behind one lock.
//!
//! Invariant: every page that is not free belongs to a chunk of some shard or to exactly one entry
//! of `long`. Pure: offsets only. Left out: locks, and which chunk is whose.

use std::collections::HashMap;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::AtomicPtr;

use super::extents::{Extents, PAGE};
use super::slabs::{CHUNK, bogus};
use super::tag::{Live, Placed, Tag};
use super::tally::Tally;
use crate::base::Origin;

struct Long {
    len: u64,
    pages: u64,
    origin: u32,
    /// A word for the owner, behind a pointer since entries move.
    tag: Arc<AtomicPtr<()>>,
}

/// Runs of pages, and who has them.
pub struct Space {
    extents: Extents,
    long: HashMap<u64, Long>,
    tally: Tally,
    reserved: u64,
}

impl Space {
    /// `capacity` bytes, a multiple of a page, all free.
    pub fn new(capacity: u64) -> Space {
        Space {
            extents: Extents::new(capacity / PAGE),
            long: HashMap::new(),
            tally: Tally::new(),
            reserved: 0,
        }
    }

    /// Takes whole pages for an object of `len` bytes.
    pub fn take_long(&mut self, len: u64, origin: Origin) -> Option<Placed> {
        let offset = self.take_pages(pages(len), 1)?;
        Some(self.add_long(offset, len, pages(len), origin))
    }

    /// As [`take_long`](Self::take_long), whole grains of so many bytes, a multiple of a page: nobody
    /// else's object begins or ends in them.
    pub fn take_grains(&mut self, len: u64, grain: u64, origin: Origin) -> Option<Placed> {
        let pages = pages(len).checked_next_multiple_of(grain / PAGE)?;
        let offset = self.take_pages(pages, grain / PAGE)?;
        Some(self.add_long(offset, len, pages, origin))
    }

    fn add_long(&mut self, offset: u64, len: u64, pages: u64, origin: Origin) -> Placed {
        let origin = self.tally.add(origin, len);
        let word = Arc::new(AtomicPtr::new(null_mut()));
        let tag = Tag::of(&word);
        let long = Long {
            len,
            pages,
            origin,
            tag: word,
        };
        self.long.insert(offset, long);
        Placed { offset, tag }
    }

    /// Calls `f` for every long object.
    pub fn each_live(&self, mut f: impl FnMut(Live)) {
        for (&offset, long) in &self.long {
            f(self.live(offset, long));
        }
    }

    /// The long object that begins at `offset`, if one does.
    pub fn find(&self, offset: u64) -> Option<Live> {
        self.long.get(&offset).map(|long| self.live(offset, long))
    }

    fn live(&self, offset: u64, long: &Long) -> Live {
        Live {
            offset,
            len: long.len,
            origin: self.tally.origin(long.origin),
            tag: Tag::of(&long.tag),
        }
    }

    /// Lets the frontier move up to `bytes` and no further until this is called again.
    pub fn set_limit(&mut self, bytes: u64) {
        self.extents.set_limit(bytes / PAGE);
    }

    /// How far the frontier may move, in bytes.
    pub fn limit(&self) -> u64 {
        self.extents.limit() * PAGE
    }

    /// How far the frontier would have to be allowed to move to make room for `len` bytes in whole grains;
    /// `None` if no such permission would help.
    pub fn limit_for(&self, len: u64, grain: u64) -> Option<u64> {
        let pages = pages(len).checked_next_multiple_of(grain / PAGE)?;
        let limit = self.extents.limit_for(pages, grain / PAGE);
        limit.map(|pages| pages * PAGE)
    }

    /// Gives a long object back; returns the bytes of its pages.
    ///
    /// # Panics
    /// If no long object of that length begins there, before anything is changed.
    pub fn give_long(&mut self, offset: u64, len: u64) -> u64 {
        match self.long.get(&offset) {
            Some(long) if long.len == len => {}
            _ => bogus(offset, len),
        }
        let long = self.long.remove(&offset).expect("looked up above");
        self.tally.remove(long.origin, len);
        self.give_pages(offset, long.pages);
        long.pages * PAGE
    }

    /// Takes the pages of a chunk.
    pub fn take_chunk(&mut self) -> Option<u64> {
        self.take_pages(CHUNK / PAGE, 1)
    }

    /// Gives the pages of a chunk back.
    pub fn give_chunk(&mut self, offset: u64) {
        self.give_pages(offset, CHUNK / PAGE);
    }

    /// Offset of the first byte that was never handed out.
    pub fn frontier(&self) -> u64 {
        self.extents.frontier() * PAGE
    }

    /// The longest object that would find room.
    pub fn largest_free(&self) -> u64 {
        self.extents.largest_free() * PAGE
    }

    /// Bytes in runs handed out, to chunks and long objects.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// The long objects by origin.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    fn take_pages(&mut self, pages: u64, align: u64) -> Option<u64> {
        let start = self.extents.take_aligned(pages, align)?;
        self.reserved += pages * PAGE;
        Some(start * PAGE)
    }

    fn give_pages(&mut self, offset: u64, pages: u64) {
        self.extents.give(offset / PAGE, pages);
        self.reserved -= pages * PAGE;
    }
}

/// Pages for `len` bytes; an empty object still needs an address of its own.
fn pages(len: u64) -> u64 {
    len.div_ceil(PAGE).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_objects_and_chunks_share_the_pages() {
        let mut space = Space::new(2 * CHUNK);
        let chunk = space.take_chunk().unwrap();
        let long = space
            .take_long(CHUNK - PAGE + 1, Origin::Result("f"))
            .unwrap()
            .offset;
        assert_eq!((chunk, long, space.reserved()), (0, CHUNK, 2 * CHUNK));
        assert!(space.take_long(0, Origin::Result("f")).is_none());
        assert_eq!(space.give_long(long, CHUNK - PAGE + 1), CHUNK);
        space.give_chunk(chunk);
        assert_eq!((space.reserved(), space.largest_free()), (0, 2 * CHUNK));
        assert_eq!((space.tally().bytes(), space.frontier()), (0, 2 * CHUNK));
    }

    #[test]
    fn grains_are_whole_and_nobody_elses() {
        const GRAIN: u64 = 4 * PAGE;
        let o = Origin::Result("f");
        let mut space = Space::new(4 * GRAIN);
        let long = |space: &mut Space, len| space.take_long(len, o).map(|p| p.offset);
        let grains = |space: &mut Space, len| space.take_grains(len, GRAIN, o).map(|p| p.offset);
        let small = long(&mut space, 1).unwrap();
        let lent = grains(&mut space, GRAIN + 1).unwrap();
        assert_eq!(
            (small, lent, space.reserved()),
            (0, GRAIN, PAGE + 2 * GRAIN)
        );
        let beside = long(&mut space, 3 * PAGE);
        assert_eq!(beside, Some(PAGE), "beside, not in it");
        let behind = long(&mut space, 1);
        assert_eq!(behind, Some(3 * GRAIN), "not in its last grain");
        assert_eq!(grains(&mut space, 1), None);
        assert_eq!(space.give_long(lent, GRAIN + 1), 2 * GRAIN);
        assert_eq!(grains(&mut space, 2 * GRAIN), Some(GRAIN));
        assert_eq!(grains(&mut space, u64::MAX), None);
    }

    #[test]
    #[should_panic(expected = "no live object of 8 bytes at arena offset 0x0")]
    fn freeing_another_length_panics() {
        let mut space = Space::new(CHUNK);
        let offset = space.take_long(9, Origin::Result("f")).unwrap().offset;
        space.give_long(offset, 8);
    }
}
