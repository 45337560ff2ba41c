//! A thread-safe allocator over one shared-memory segment.
//!
//! All bookkeeping lives on this process's heap: whoever else maps the segment can spoil contents
//! but never the allocator. Small objects come from shards (a thread keeps to one, so threads do
//! not meet), long ones from the page runs behind one lock. Lock order: a shard, then the space;
//! never two shards. Invariants: live extents are disjoint and 64-byte aligned; counts return to
//! zero when everything is freed. Left out: who may read or write an extent (the store's business).

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::extents::PAGE;
use super::memfd::Segment;
use super::owners::{Owner, Owners, SHARDS_MAX};
use super::pages::{HugePages, StorePages};
use super::prefault::{Prefault, Prefaulter};
use super::shards::thread_number;
use super::slabs::{CHUNK, CLASSES, SMALL_MAX, Slabs, bogus, class_of};
use super::space::Space;
use super::tag::{Live, Placed, Tag};
use crate::base::{Holder, Origin};

/// What an arena is made with.
#[derive(Clone, Copy, Debug)]
pub struct ArenaOptions {
    /// Bytes, rounded up to whole pages.
    pub capacity: u64,
    /// Which pages to ask for.
    pub huge_pages: HugePages,
    /// How much to fault in ahead of use.
    pub prefault: Prefault,
}

/// A live piece of an arena, from [`Arena::alloc`] until [`Arena::free`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins, from the arena's base; a multiple of 64.
    pub offset: u64,
    /// The length asked for.
    pub len: u64,
}

/// A new extent.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Where.
    pub extent: Extent,
    /// From which of its bytes on it lies on pages that nobody touched yet; its length if none does.
    pub cold_from: usize,
    /// The owner's word in the books.
    pub tag: Tag,
}

/// A snapshot of an arena's counts, consistent per shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaStats {
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes of live objects, as requested.
    pub used: u64,
    /// Live objects.
    pub objects: u64,
    /// Bytes in chunks and runs handed out; more than `used` by rounding and by half-full chunks.
    pub reserved: u64,
    /// Bytes that were ever handed out: everything below was touched or is about to be.
    pub frontier: u64,
    /// Offset up to which pages were faulted in ahead of use; 0 if none were.
    pub prefaulted: u64,
    /// Why faulting ahead stopped, as an errno.
    pub prefault_error: Option<i32>,
}

/// Keeps each shard on cache lines of its own; two, since lines are fetched in pairs.
#[repr(align(128))]
struct Shard(Mutex<Slabs>);

/// The allocator. Shared by reference; every method may be called from any thread.
pub struct Arena {
    shards: Box<[Shard]>,
    owners: Owners,
    space: Mutex<Space>,
    prefaulter: Prefaulter,
    segment: Arc<Segment>,
}

impl Arena {
    /// Makes an arena; touches none of its memory. Fails if `capacity` is 0 or the kernel refuses.
    pub fn create(options: ArenaOptions) -> io::Result<Arena> {
        let capacity = options
            .capacity
            .checked_next_multiple_of(PAGE)
            .filter(|c| *c > 0);
        let capacity = capacity.ok_or(io::ErrorKind::InvalidInput)?;
        let len = usize::try_from(capacity).map_err(|_| io::ErrorKind::InvalidInput)?;
        let segment = Arc::new(Segment::create_with(len, options.huge_pages)?);
        let capacity = segment.len() as u64; // reserved pages may have rounded it up
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
        let shards = (2 * cpus).next_power_of_two().min(SHARDS_MAX);
        Ok(Arena {
            shards: (0..shards)
                .map(|_| Shard(Mutex::new(Slabs::new())))
                .collect(),
            owners: Owners::new((capacity / PAGE) as usize),
            space: Mutex::new(Space::new(capacity)),
            prefaulter: Prefaulter::new(options.prefault, segment.clone()),
            segment,
        })
    }

    /// Finds room for `len` bytes and settles at once.
    #[cfg(test)]
    pub fn alloc(&self, len: usize, origin: Origin) -> Option<Extent> {
        let found = self.alloc_hinted(len, origin)?;
        if found.cold_from < len {
            self.settle();
        }
        Some(found.extent)
    }

    /// Finds room for `len` bytes (0 included) at an address that is a multiple of 64. The contents
    /// are whatever was there. Tens of nanoseconds up to 32 KiB, under a microsecond beyond; blocks
    /// only on a mutex held as briefly. `None` when no room is found even in kept empty chunks, or
    /// only beyond the [limit](Self::limit_for). Where there are untouched pages the caller tells
    /// [`settle`](Self::settle) when it has written them.
    #[inline]
    pub fn alloc_hinted(&self, len: usize, origin: Origin) -> Option<Found> {
        self.alloc_small(len, origin)
            .or_else(|| self.alloc_slowly(len, origin))
    }

    /// A block of a chunk that is there already, for a small object: takes no page from anyone.
    #[inline]
    pub fn alloc_small(&self, len: usize, origin: Origin) -> Option<Found> {
        if len > SMALL_MAX {
            return None;
        }
        let placed = self.my_shard().1.take(class_of(len), len, origin)?;
        Some(found(placed, len, len))
    }

    /// As [`alloc_hinted`](Self::alloc_hinted), on whole grains of its own: what can be leased to
    /// another process.
    pub fn alloc_pages(&self, len: usize, origin: Origin) -> Option<Found> {
        let touched = self.touched();
        let placed = self.take_grains(len, origin).or_else(|| {
            self.reclaim();
            self.take_grains(len, origin)
        })?;
        Some(found(placed, len, warm(touched, placed, len)))
    }

    /// How many bytes from the start the arena would have to be allowed to use to place `len` more, on
    /// grains of its own if `lent`; `None` if that is not what it lacks.
    pub fn limit_for(&self, len: usize, lent: bool) -> Option<u64> {
        let space = self.space.lock();
        if lent {
            return space.limit_for(len as u64, self.grain());
        }
        // A small object that found no block needs a chunk, or at worst a page of its own.
        let chunk = if len <= SMALL_MAX { CHUNK } else { 0 };
        let limit = space.limit_for((len as u64).max(chunk), PAGE);
        limit.or_else(|| space.limit_for(len as u64, PAGE))
    }

    /// Bytes from the start that the arena may use; all of them unless
    /// [`set_limit`](Self::set_limit) was called.
    pub fn limit(&self) -> u64 {
        self.space.lock().limit()
    }

    /// Bounds how many bytes from the start are ever used: never less than are by now.
    pub fn set_limit(&self, bytes: u64) {
        self.space.lock().set_limit(bytes);
    }

    /// The longest object that would find room, if the machine has the memory.
    pub fn largest_free(&self) -> u64 {
        self.space.lock().largest_free()
    }

    /// Calls `f` for every live extent, under the lock of its books: `f` must be brief and must not
    /// come back here. Whoever [owns](Live::owner) it cannot free it meanwhile.
    pub fn each_live(&self, mut f: impl FnMut(Live)) {
        for shard in &self.shards {
            shard.0.lock().each_live(&mut f);
        }
        self.space.lock().each_live(f);
    }

    /// As [`each_live`](Self::each_live) for the one that begins at `offset`, if one does.
    pub fn with_live<R>(&self, offset: u64, f: impl FnOnce(Live) -> R) -> Option<R> {
        match self.owners.at(offset) {
            Owner::Chunk { shard, chunk } => {
                let slabs = self.shards[shard].0.lock();
                slabs.find(chunk, offset).map(f)
            }
            Owner::Long => {
                let space = self.space.lock();
                space.find(offset).map(f)
            }
            Owner::None => None,
        }
    }

    /// The file behind it, to be mapped by other processes (see [`Attached`](super::Attached)).
    pub fn file(&self) -> BorrowedFd<'_> {
        self.segment.fd()
    }

    /// The unit in which pages can be leased: the size of a page, as the kernel maps them.
    pub fn grain(&self) -> u64 {
        self.segment.pages().grain()
    }

    /// What its pages are, and why.
    pub fn pages(&self) -> &StorePages {
        self.segment.pages()
    }

    /// Lets the background thread look ahead of what was allocated so far. Apart from
    /// `alloc_hinted` so that it does not compete with the writer of the pages just handed out.
    pub fn settle(&self) {
        let frontier = self.space.lock().frontier();
        self.prefaulter.advance(frontier);
    }

    /// Gives an extent back. Tens of nanoseconds; blocks only on a mutex held as briefly.
    ///
    /// # Safety
    /// The extent came from this arena's `alloc`, and nobody uses its bytes from here on.
    ///
    /// # Panics
    /// If no such extent is live (freed twice, made up), naming the offset; nothing is changed
    /// then.
    #[inline]
    pub unsafe fn free(&self, extent: Extent) {
        match self.owners.at(extent.offset) {
            Owner::Chunk { shard, chunk } => {
                let mut slabs = self.shards[shard].0.lock();
                if let Some(start) = slabs.give(chunk, extent.offset, extent.len) {
                    self.release_chunk(start);
                }
            }
            Owner::Long => {
                let mut space = self.space.lock();
                let bytes = space.give_long(extent.offset, extent.len);
                self.owners.set(extent.offset, PAGE.min(bytes), Owner::None);
            }
            Owner::None => bogus(extent.offset, extent.len),
        }
    }

    /// Address of offset 0; aligned to a page.
    pub fn base(&self) -> NonNull<u8> {
        self.segment.base()
    }

    /// Address of an extent of this arena.
    #[inline]
    pub fn address(&self, extent: Extent) -> NonNull<u8> {
        assert!(extent.offset <= self.capacity());
        // SAFETY: the offset lies inside the mapping (checked).
        unsafe { self.segment.base().add(extent.offset as usize) }
    }

    /// Bytes in all.
    #[inline]
    pub fn capacity(&self) -> u64 {
        self.segment.len() as u64
    }

    /// Counts, by locking each shard in turn: microseconds.
    pub fn stats(&self) -> ArenaStats {
        let mut stats = ArenaStats {
            capacity: self.capacity(),
            prefaulted: self.prefaulter.done(),
            prefault_error: self.prefaulter.error(),
            ..ArenaStats::default()
        };
        for shard in &self.shards {
            let slabs = shard.0.lock();
            stats.used += slabs.tally().bytes();
            stats.objects += slabs.tally().objects();
        }
        let space = self.space.lock();
        stats.used += space.tally().bytes();
        stats.objects += space.tally().objects();
        stats.reserved = space.reserved();
        stats.frontier = space.frontier();
        stats
    }

    /// The `n` origins that hold most, biggest first.
    #[cfg(test)]
    pub fn holders(&self, n: usize) -> Vec<Holder> {
        super::tally::biggest(self.sums(), n)
    }

    /// What each origin holds. Cost: the number of origins, not of objects.
    pub fn sums(&self) -> HashMap<Origin, Holder> {
        let mut sums = HashMap::new();
        for shard in &self.shards {
            shard.0.lock().tally().merge_into(&mut sums);
        }
        self.space.lock().tally().merge_into(&mut sums);
        sums
    }

    /// This thread's shard, or another if someone has it locked right now.
    #[inline]
    fn my_shard(&self) -> (usize, MutexGuard<'_, Slabs>) {
        let mask = self.shards.len() - 1;
        let mine = thread_number() & mask;
        for step in 0..self.shards.len() {
            let index = (mine + step) & mask;
            if let Some(slabs) = self.shards[index].0.try_lock() {
                return (index, slabs);
            }
        }
        (mine, self.shards[mine].0.lock())
    }

    #[cold]
    fn alloc_slowly(&self, len: usize, origin: Origin) -> Option<Found> {
        // Before the allocation: what it takes beyond this is untouched.
        let touched = self.touched();
        let mut placed = self.take_anew(len, origin);
        if placed.is_none() {
            // Room may be tied up in empty chunks that shards keep for the next small object.
            self.reclaim();
            placed = self.take_anew(len, origin);
        }
        if placed.is_none() && len <= SMALL_MAX {
            placed = self.take_scraps(len, origin);
        }
        let placed = placed?;
        Some(found(placed, len, warm(touched, placed, len)))
    }

    /// Takes from the page runs: a new chunk for a small object, whole pages for a long one.
    fn take_anew(&self, len: usize, origin: Origin) -> Option<Placed> {
        if len > SMALL_MAX {
            return self.take_long(len, origin);
        }
        let class = class_of(len);
        let (index, mut slabs) = self.my_shard();
        // Another thread may have made room in this shard since.
        if let Some(placed) = slabs.take(class, len, origin) {
            return Some(placed);
        }
        let start = self.space.lock().take_chunk()?;
        let chunk = slabs.add_chunk(class, start);
        self.owners.set(
            start,
            CHUNK,
            Owner::Chunk {
                shard: index,
                chunk,
            },
        );
        slabs.take(class, len, origin)
    }

    fn take_long(&self, len: usize, origin: Origin) -> Option<Placed> {
        let mut space = self.space.lock();
        let placed = space.take_long(len as u64, origin)?;
        self.owners.set(placed.offset, PAGE, Owner::Long);
        Some(placed)
    }

    fn take_grains(&self, len: usize, origin: Origin) -> Option<Placed> {
        let mut space = self.space.lock();
        let placed = space.take_grains(len as u64, self.grain(), origin)?;
        self.owners.set(placed.offset, PAGE, Owner::Long);
        Some(placed)
    }

    /// Offset of the first byte on a page that nobody touched, as far as is known.
    pub fn touched(&self) -> u64 {
        let touched = self.space.lock().frontier().max(self.prefaulter.done());
        touched.next_multiple_of(self.pages().size)
    }

    /// The last resort of a small object: a free block of any shard, then a larger one than it
    /// needs, then pages of its own.
    fn take_scraps(&self, len: usize, origin: Origin) -> Option<Placed> {
        let block = (class_of(len)..CLASSES).find_map(|class| {
            self.shards
                .iter()
                .find_map(|shard| shard.0.lock().take(class, len, origin))
        });
        block.or_else(|| self.take_long(len, origin))
    }

    /// Returns every shard's empty chunks to the page runs.
    fn reclaim(&self) {
        for shard in &self.shards {
            let mut slabs = shard.0.lock();
            for start in slabs.reclaim() {
                self.release_chunk(start);
            }
        }
    }

    /// Returns a chunk's pages; its shard's lock is held, so that no block of it is looked up.
    fn release_chunk(&self, start: u64) {
        self.owners.set(start, CHUNK, Owner::None);
        self.space.lock().give_chunk(start);
    }
}

fn found(placed: Placed, len: usize, cold_from: usize) -> Found {
    Found {
        extent: Extent {
            offset: placed.offset,
            len: len as u64,
        },
        cold_from,
        tag: placed.tag,
    }
}

/// How many of its bytes lie on pages that were touched before.
fn warm(touched: u64, placed: Placed, len: usize) -> usize {
    touched.saturating_sub(placed.offset).min(len as u64) as usize
}

#[cfg(all(test, not(miri)))]
mod tests;
