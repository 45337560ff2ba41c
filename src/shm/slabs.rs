//! Small objects: blocks of a few sizes cut from chunks, with all bookkeeping beside the chunks.
//!
//! One [`Slabs`] is the state of one shard; it knows offsets, not memory. Invariants: a chunk is in
//! its class's `partial` list exactly while it has a block to give; a block is live exactly while
//! its record carries an origin; a class counts its empty chunks and keeps at most one of them.
//! Left out: locks, and where chunks come from.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use super::tag::{Live, Placed, Tag};
use super::tally::Tally;
use crate::base::Origin;

/// Bytes of a chunk.
pub const CHUNK: u64 = 256 << 10;
/// The longest object that is a block; longer ones are runs of pages.
pub const SMALL_MAX: usize = 32 << 10;
/// Every block begins at a multiple of this.
pub const ALIGN: usize = 64;
/// How many block sizes there are: four up to 256 bytes, then four per doubling.
pub const CLASSES: usize = 32;

/// Block size of each class, ascending.
const SIZES: [u32; CLASSES] = {
    let mut sizes = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let doubling = class / 4;
        let step = if doubling == 0 {
            64
        } else {
            64 << (doubling - 1)
        };
        let floor = if doubling == 0 {
            0
        } else {
            256 << (doubling - 1)
        };
        sizes[class] = floor + step * (class as u32 % 4 + 1);
        class += 1;
    }
    sizes
};

/// The class for a length, by the length in units of 64 bytes, rounded up.
const CLASS_OF: [u8; SMALL_MAX / ALIGN + 1] = {
    let mut table = [0; SMALL_MAX / ALIGN + 1];
    let mut class = 0;
    let mut units = 0;
    while units < table.len() {
        if units * ALIGN > SIZES[class] as usize {
            class += 1;
        }
        table[units] = class as u8;
        units += 1;
    }
    table
};

/// The class whose blocks hold `len` bytes (at most [`SMALL_MAX`]) with the least waste.
pub fn class_of(len: usize) -> usize {
    CLASS_OF[len.div_ceil(ALIGN)] as usize
}

/// `Record::origin` of a block that is free.
const FREE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Record {
    len: u32,
    origin: u32,
}

struct Chunk {
    start: u64,
    class: u8,
    size: u32,
    /// How many blocks fit.
    blocks: u32,
    live: u32,
    /// This chunk's place in its class's `partial` list, while it is there.
    place: u32,
    /// Blocks given back, the latest (warmest) on top. Blocks from `records.len()` on were never
    /// used: records grow as the chunk does.
    free: Vec<u16>,
    records: Vec<Record>,
    /// A word for the owner of each block, null where it has set none. Never moves.
    tags: Vec<AtomicPtr<()>>,
}

impl Chunk {
    fn live(&self, block: usize, record: &Record, tally: &Tally) -> Live {
        Live {
            offset: self.start + block as u64 * u64::from(self.size),
            len: u64::from(record.len),
            origin: tally.origin(record.origin),
            tag: Tag::of(&self.tags[block]),
        }
    }
}

#[derive(Default)]
struct Class {
    partial: Vec<u32>,
    empty: u32,
}

/// The chunks of one shard.
pub struct Slabs {
    chunks: Vec<Option<Chunk>>,
    vacant: Vec<u32>,
    classes: [Class; CLASSES],
    tally: Tally,
}

impl Slabs {
    /// No chunk at all.
    pub fn new() -> Slabs {
        Slabs {
            chunks: Vec::new(),
            vacant: Vec::new(),
            classes: std::array::from_fn(|_| Class::default()),
            tally: Tally::new(),
        }
    }

    /// Takes a block of `class` for an object of `len` bytes; `None` if every chunk of the class is
    /// full. Constant time.
    #[inline]
    pub fn take(&mut self, class: usize, len: usize, origin: Origin) -> Option<Placed> {
        let state = &mut self.classes[class];
        let &index = state.partial.last()?;
        let chunk = self.chunks[index as usize]
            .as_mut()
            .expect("a listed chunk exists");
        let record = Record {
            len: len as u32,
            origin: self.tally.add(origin, len as u64),
        };
        let block = match chunk.free.pop() {
            Some(block) => {
                chunk.records[block as usize] = record;
                u32::from(block)
            }
            None => {
                chunk.records.push(record);
                chunk.records.len() as u32 - 1
            }
        };
        state.empty -= u32::from(chunk.live == 0);
        chunk.live += 1;
        if chunk.live == chunk.blocks {
            state.partial.pop();
        }
        Some(Placed {
            offset: chunk.start + u64::from(block) * u64::from(chunk.size),
            tag: Tag::of(&chunk.tags[block as usize]),
        })
    }

    /// Adds an empty chunk that begins at `start` to `class`; returns its number in this shard.
    pub fn add_chunk(&mut self, class: usize, start: u64) -> u32 {
        let size = SIZES[class];
        let blocks = CHUNK as u32 / size;
        let index = self.vacant.pop().unwrap_or(self.chunks.len() as u32);
        let state = &mut self.classes[class];
        let chunk = Chunk {
            start,
            class: class as u8,
            size,
            blocks,
            live: 0,
            place: state.partial.len() as u32,
            free: Vec::new(),
            records: Vec::with_capacity(blocks as usize),
            tags: (0..blocks).map(|_| AtomicPtr::new(null_mut())).collect(),
        };
        state.partial.push(index);
        state.empty += 1;
        match self.chunks.get_mut(index as usize) {
            Some(slot) => *slot = Some(chunk),
            None => self.chunks.push(Some(chunk)),
        }
        index
    }

    /// Gives back the block at `offset`, taken for `len` bytes from the chunk `index`. Returns the
    /// chunk's start if the chunk is empty now and no longer kept: it is the caller's. Constant
    /// time.
    ///
    /// # Panics
    /// If no live block of that length is there, before anything is changed.
    #[inline]
    pub fn give(&mut self, index: u32, offset: u64, len: u64) -> Option<u64> {
        let Some(chunk) = self.chunks.get_mut(index as usize).and_then(Option::as_mut) else {
            bogus(offset, len)
        };
        let inside = offset.wrapping_sub(chunk.start);
        if inside >= CHUNK {
            bogus(offset, len)
        }
        let (block, rest) = (inside as u32 / chunk.size, inside as u32 % chunk.size);
        let Some(record) = chunk.records.get_mut(block as usize) else {
            bogus(offset, len)
        };
        if rest != 0 || record.origin == FREE || u64::from(record.len) != len {
            bogus(offset, len)
        }
        self.tally.remove(record.origin, len);
        record.origin = FREE;
        chunk.tags[block as usize].store(null_mut(), Relaxed);
        chunk.free.push(block as u16);
        let state = &mut self.classes[chunk.class as usize];
        if chunk.live == chunk.blocks {
            chunk.place = state.partial.len() as u32;
            state.partial.push(index);
        }
        chunk.live -= 1;
        if chunk.live == 0 {
            if state.empty > 0 {
                return Some(self.remove_chunk(index));
            }
            state.empty += 1;
        }
        None
    }

    /// Calls `f` for every live block.
    pub fn each_live(&self, mut f: impl FnMut(Live)) {
        for chunk in self.chunks.iter().flatten() {
            for (block, record) in chunk.records.iter().enumerate() {
                if record.origin != FREE {
                    f(chunk.live(block, record, &self.tally));
                }
            }
        }
    }

    /// The live block at `offset` of the chunk `index`, if there is one.
    pub fn find(&self, index: u32, offset: u64) -> Option<Live> {
        let chunk = self.chunks.get(index as usize)?.as_ref()?;
        let inside = offset.checked_sub(chunk.start).filter(|i| *i < CHUNK)?;
        let block = inside as u32 / chunk.size;
        let record = chunk.records.get(block as usize)?;
        let begins = (inside as u32).is_multiple_of(chunk.size) && record.origin != FREE;
        begins.then(|| chunk.live(block as usize, record, &self.tally))
    }

    /// Gives up the empty chunks that were kept, returning their starts.
    pub fn reclaim(&mut self) -> Vec<u64> {
        let empty = |c: &Option<Chunk>| c.as_ref().is_some_and(|c| c.live == 0);
        let kept: Vec<usize> = (0..self.chunks.len())
            .filter(|&i| empty(&self.chunks[i]))
            .collect();
        for class in &mut self.classes {
            class.empty = 0;
        }
        kept.into_iter()
            .map(|index| self.remove_chunk(index as u32))
            .collect()
    }

    /// Live bytes and objects by origin.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Chunks held, empty ones included.
    #[cfg(test)]
    pub fn chunks(&self) -> u64 {
        (self.chunks.len() - self.vacant.len()) as u64
    }

    /// Forgets a chunk that is in its class's list. The class's count of empty ones is the
    /// caller's.
    #[cold]
    fn remove_chunk(&mut self, index: u32) -> u64 {
        let chunk = self.chunks[index as usize]
            .take()
            .expect("a listed chunk exists");
        let partial = &mut self.classes[chunk.class as usize].partial;
        partial.swap_remove(chunk.place as usize);
        if let Some(&moved) = partial.get(chunk.place as usize) {
            let moved = self.chunks[moved as usize]
                .as_mut()
                .expect("a listed chunk exists");
            moved.place = chunk.place;
        }
        self.vacant.push(index);
        chunk.start
    }
}

/// Reports a free of something that is not live: continuing would corrupt somebody's object.
#[cold]
pub fn bogus(offset: u64, len: u64) -> ! {
    panic!("no live object of {len} bytes at arena offset {offset:#x} (double free?)")
}

#[cfg(test)]
mod tests {
    use super::*;

    const O: Origin = Origin::Argument("f");

    fn take(slabs: &mut Slabs, class: usize, len: usize) -> u64 {
        slabs.take(class, len, O).unwrap().offset
    }

    #[test]
    fn owners_are_found_until_their_block_is_given_back() {
        let mut slabs = Slabs::new();
        let class = class_of(100);
        let chunk = slabs.add_chunk(class, CHUNK);
        let (one, two) = (
            slabs.take(class, 100, O).unwrap(),
            slabs.take(class, 90, O).unwrap(),
        );
        let owner = std::ptr::without_provenance::<()>(64);
        // SAFETY: the block is live.
        unsafe { two.tag.set(owner) };
        let mut seen = Vec::new();
        slabs.each_live(|live| seen.push((live.offset, live.len, live.tag.get())));
        assert_eq!(
            seen,
            [(one.offset, 100, std::ptr::null()), (two.offset, 90, owner)]
        );
        assert_eq!(slabs.find(chunk, two.offset).unwrap().tag.get(), owner);
        for nowhere in [two.offset + 64, two.offset + 128, 0, 2 * CHUNK] {
            assert!(slabs.find(chunk, nowhere).is_none());
        }
        assert_eq!(slabs.give(chunk, two.offset, 90), None);
        assert!(slabs.find(chunk, two.offset).is_none());
        let again = slabs.take(class, 80, O).unwrap();
        assert_eq!(again.offset, two.offset);
        assert!(slabs.find(chunk, again.offset).unwrap().tag.get().is_null());
    }

    #[test]
    fn classes_are_aligned_ascending_and_tight() {
        assert_eq!(SIZES[..9], [64, 128, 192, 256, 320, 384, 448, 512, 640]);
        assert_eq!(SIZES[CLASSES - 1] as usize, SMALL_MAX);
        assert!(SIZES.windows(2).all(|w| w[0] < w[1]));
        assert!(SIZES.iter().all(|s| (*s as usize).is_multiple_of(ALIGN)));
        for len in 0..=SMALL_MAX {
            let class = class_of(len);
            assert!(SIZES[class] as usize >= len);
            assert!(
                class == 0 || (SIZES[class - 1] as usize) < len,
                "{len} fits a smaller class"
            );
        }
    }

    #[test]
    fn fills_a_chunk_then_reuses_the_latest_free_block() {
        let mut slabs = Slabs::new();
        let class = class_of(SMALL_MAX);
        assert!(slabs.take(class, 1, O).is_none());
        let chunk = slabs.add_chunk(class, 4096);
        let offsets: Vec<u64> = (0..8).map(|_| take(&mut slabs, class, 7)).collect();
        let expected: Vec<u64> = (0..8).map(|i| 4096 + i * SMALL_MAX as u64).collect();
        assert_eq!(offsets, expected);
        assert!(slabs.take(class, 7, O).is_none());
        assert_eq!(slabs.give(chunk, offsets[3], 7), None);
        assert_eq!(slabs.give(chunk, offsets[5], 7), None);
        assert_eq!(take(&mut slabs, class, 9), offsets[5]);
        assert_eq!(
            (slabs.tally().bytes(), slabs.tally().objects()),
            (6 * 7 + 9, 7)
        );
    }

    #[test]
    fn keeps_one_empty_chunk_and_gives_up_the_second() {
        let mut slabs = Slabs::new();
        let class = class_of(SMALL_MAX);
        let mut live = Vec::new();
        for start in [0, CHUNK, 2 * CHUNK] {
            let chunk = slabs.add_chunk(class, start);
            live.extend((0..8).map(|_| (chunk, take(&mut slabs, class, 1))));
        }
        let released: Vec<u64> = live
            .drain(..)
            .filter_map(|(chunk, offset)| slabs.give(chunk, offset, 1))
            .collect();
        assert_eq!(released, [CHUNK, 2 * CHUNK]);
        assert_eq!(take(&mut slabs, class, 1), 7 * SMALL_MAX as u64);
        assert_eq!(slabs.give(0, 7 * SMALL_MAX as u64, 1), None);
        assert_eq!(slabs.reclaim(), [0]);
        assert_eq!((slabs.chunks(), slabs.tally().objects()), (0, 0));
        assert!(slabs.take(class, 1, O).is_none());
        assert_eq!(
            slabs.add_chunk(class, 0),
            0,
            "numbers of chunks are used again"
        );
    }

    #[test]
    fn bogus_frees_panic_and_change_nothing() {
        let mut slabs = Slabs::new();
        let class = class_of(100);
        let chunk = slabs.add_chunk(class, 0);
        let offset = take(&mut slabs, class, 100);
        let other = take(&mut slabs, class, 100);
        assert_eq!(slabs.give(chunk, offset, 100), None);
        for (chunk, offset, len) in [
            (chunk, offset, 100),        // twice
            (chunk, other + 64, 100),    // inside a block
            (chunk, other, 99),          // another length
            (chunk, other + 128, 100),   // never taken
            (chunk, CHUNK + other, 100), // another chunk
            (chunk + 1, other, 100),     // no such chunk
        ] {
            let gave = std::panic::AssertUnwindSafe(|| slabs.give(chunk, offset, len));
            assert!(
                std::panic::catch_unwind(gave).is_err(),
                "{chunk} {offset} {len}"
            );
        }
        assert_eq!((slabs.tally().bytes(), slabs.tally().objects()), (100, 1));
        assert_eq!(slabs.give(chunk, other, 100), None);
    }
}
