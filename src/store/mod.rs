//! The object store: create, fill, seal, read, drop. A node has one for itself; [`Server`] serves one to
//! other processes, which use it through [`Client`] or [`AsyncClient`].
//!
//! Room map: `object` bytes while they are written and after; `stored` an object that makes room
//! when nobody reads it, with its state in `word`; `kept` the same in a box, for whoever is no
//! record; `distant` one whose bytes another node has; `spill` objects go to disk and come back; `durable` copies that outlive the processes; `backend` what both write to; `room` waiting for room, in the order that
//! `line` says; `headroom` and `sizing` what memory there is.
//!
//! Invariant: bytes are written only through the one `Draft` of an object and read only once it
//! is `Sealed`; the arena gets them back exactly once. Left out: reference counts of the
//! cluster, other processes.

#[cfg(feature = "object-store")]
mod backend;
mod client;
mod distant;
#[cfg_attr(
    not(all(feature = "cluster", feature = "object-store")),
    allow(dead_code, reason = "one machine needs few of these")
)]
mod durable;
#[cfg_attr(
    not(feature = "object-store"),
    allow(dead_code, reason = "without it nothing is ever moved")
)]
mod failed;
#[cfg(all(test, feature = "object-store", not(miri)))]
mod failing;
mod headroom;
mod kept;
mod line;
mod object;
mod proto;
mod room;
mod serve;
mod sizing;
mod socket;
mod spill;
mod stored;
mod sync;
mod word;

use std::cmp::Reverse;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::base::{Holder, Origin, StoreFull, show_bytes};
use crate::shm::{
    Arena, ArenaOptions, ArenaStats, Extent, HugePages, PageKind, Prefault, StorePages,
};
use headroom::Headroom;
use room::Room;
use spill::Spill;

pub use crate::base::{BadObjectId, ObjectId, ObjectState, StoreError};
#[cfg(feature = "async")]
pub use client::{AsyncClient, AsyncSubscription, AsyncWriting};
pub use client::{
    Client, Event, Object, ObjectInfo, StoreView, Subscription, Writing, content_hash,
};
pub(crate) use distant::{Came, Distant};
pub(crate) use durable::Durables;
#[cfg(feature = "cluster")]
pub(crate) use durable::name as copy_name;
#[allow(unused_imports, reason = "for the served store's objects")]
pub(crate) use kept::Kept;
pub(crate) use object::{Draft, Sealed};
pub use proto::ServedStats;
#[cfg(fuzzing)]
#[doc(hidden)]
pub use proto::fuzz;
pub use serve::{Server, ServerOptions};
pub use sizing::default_capacity;
pub(crate) use spill::{SpillStats, SpillTo, Watch};
pub(crate) use stored::Stored;

/// How long a producer waits for room unless told otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Groups of holders named by an error.
const HOLDERS_IN_ERROR: usize = 5;

/// What a store is opened with.
pub(crate) struct StoreOptions {
    /// Bytes of shared memory; 30 % of the machine's (or the container's) memory if not given.
    pub capacity: Option<u64>,
    /// How much to fault in ahead of use.
    pub prefault: Prefault,
    /// Which pages to ask for.
    pub huge_pages: HugePages,
    /// Where objects go when memory is full.
    pub spill: SpillTo,
    /// How long a producer waits for room while none comes about.
    pub patience: Duration,
    /// Who is told what moves to disk. It looks for a record around each object, so such a store is to have no other.
    pub watch: Option<Box<dyn Watch>>,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            capacity: None,
            prefault: Prefault::default(),
            huge_pages: HugePages::default(),
            spill: SpillTo::default(),
            patience: PATIENCE,
            watch: None,
        }
    }
}

/// How somebody waits for room.
#[derive(Clone, Copy)]
pub(crate) struct Patience<'a> {
    /// For how long while nothing moves out of the way.
    pub longest: Duration,
    /// On whose behalf: the id of a call, so that others can tell what it waits for; or 0.
    pub who: u64,
    /// Whether there is no point in waiting any more.
    pub hopeless: &'a dyn Fn() -> bool,
}

/// A handle of the store; clones are the same store. The memory is unmapped when the last handle
/// and the last object are gone.
#[derive(Clone)]
pub(crate) struct Store {
    shared: Arc<Shared>,
}

/// What a store's handles and objects share.
struct Shared {
    arena: Arena,
    /// Counts allocations of pages, by which uses are dated.
    clock: AtomicU32,
    room: Room,
    headroom: Headroom,
    spill: Spill,
    patience: Duration,
    /// Held by who brings several objects back to hold them together.
    loading: Mutex<()>,
}

/// What was seen of the objects when the largest were sought.
pub(crate) struct Looked {
    /// So many were wanted.
    pub matching: u64,
    /// None was left out.
    pub all: bool,
}

/// What kind of room is wanted.
#[derive(Clone, Copy)]
enum Kind {
    /// Any.
    Anywhere,
    /// Pages of its own.
    OnPages,
}

#[allow(
    clippy::result_large_err,
    reason = "made where a wait has failed, and shared from there on"
)]
impl Store {
    /// Maps the store's memory without touching it: well under a millisecond. Fails with
    /// `InvalidInput` if the capacity is 0 or more than there could ever be, with `Unsupported` if
    /// pages are required that are not to be had, or as the kernel does.
    pub fn open(options: StoreOptions) -> io::Result<Store> {
        Store::open_with(options, Headroom::new())
    }

    fn open_with(options: StoreOptions, headroom: Headroom) -> io::Result<Store> {
        let capacity = match options.capacity {
            Some(capacity) => capacity,
            None => sizing::default_capacity(sizing::DEFAULT_PERCENT)?,
        };
        let too_much = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        if let Some(why) = sizing::more_than_the_machine_has(capacity) {
            return Err(too_much(why));
        }
        let arena = Arena::create(ArenaOptions {
            capacity,
            huge_pages: options.huge_pages,
            prefault: options.prefault,
        })?;
        // Reserved pages are there. Others come as they are written, if there are any left.
        if arena.pages().kind != PageKind::Reserved {
            if let Some(why) = sizing::more_than_is_allowed(arena.capacity()) {
                return Err(too_much(why));
            }
            arena.set_limit(0);
        }
        Ok(Store {
            shared: Arc::new(Shared {
                arena,
                clock: AtomicU32::new(0),
                room: Room::default(),
                headroom,
                spill: Spill::new(&options.spill, options.watch),
                patience: options.patience,
                loading: Mutex::new(()),
            }),
        })
    }

    /// Finds room for an object of `len` bytes, 0 included, without waiting: tens of nanoseconds
    /// when small. `None` if there is none, or if others wait for it.
    #[inline]
    pub fn try_create(&self, len: usize, origin: Origin) -> Option<Draft> {
        let small = self.shared.arena.alloc_small(len, origin);
        if let Some(found) = small {
            return Some(Draft::of(&self.shared, found));
        }
        self.shared.try_place(len, origin, Kind::Anywhere)
    }

    /// Finds room for an object of `len` bytes, waiting for it as long as the store's patience says
    /// while objects move to disk or are freed. Fails naming who holds the store, and at once if it
    /// is larger than the store.
    #[cfg(test)]
    pub fn create(&self, len: usize, origin: Origin) -> Result<Draft, StoreFull> {
        self.create_patiently(len, origin, &self.patience())
    }

    /// Finds room for an object of `len` bytes, waiting for it while objects move to disk or are freed.
    /// Fails naming who holds the store, and at once if it is larger than the store.
    pub fn create_patiently(
        &self,
        len: usize,
        origin: Origin,
        patience: &Patience<'_>,
    ) -> Result<Draft, StoreFull> {
        match self.try_create(len, origin) {
            Some(draft) => Ok(draft),
            None => self.shared.wait_for(len, origin, Kind::Anywhere, patience),
        }
    }

    /// As [`try_create`](Self::try_create), on pages of its own: what another process may be lent to
    /// write.
    pub fn try_create_on_pages(&self, len: usize, origin: Origin) -> Option<Draft> {
        self.shared.try_place(len, origin, Kind::OnPages)
    }

    /// As [`create_patiently`](Self::create_patiently), on pages of its own.
    pub fn create_on_pages_patiently(
        &self,
        len: usize,
        origin: Origin,
        patience: &Patience<'_>,
    ) -> Result<Draft, StoreFull> {
        match self.try_create_on_pages(len, origin) {
            Some(draft) => Ok(draft),
            None => self.shared.wait_for(len, origin, Kind::OnPages, patience),
        }
    }

    /// The patience that the store was opened with.
    pub fn patience(&self) -> Patience<'static> {
        self.shared.own_patience()
    }

    /// Held by who brings several objects back from disk to hold them together, so that no two wait
    /// for room that the other keeps.
    pub fn loading(&self) -> MutexGuard<'_, ()> {
        self.shared.loading.lock()
    }

    /// Why the call with this id stands still, if it waits for room here.
    pub fn awaited_by(&self, who: u64) -> Option<String> {
        let bytes = self.shared.room.awaited_by(who)?;
        let stats = self.stats();
        Some(format!(
            "waiting for {} of room in the object store: {} of {} used, of which {} by views, running calls and writers",
            show_bytes(bytes),
            show_bytes(stats.used),
            show_bytes(stats.capacity),
            show_bytes(self.pinned())
        ))
    }

    /// The file of the store's memory, to be mapped by other processes.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.shared.arena.file()
    }

    /// The unit in which its pages can be lent: what begins at a multiple of it may be.
    pub fn grain(&self) -> u64 {
        self.shared.arena.grain()
    }

    /// What its pages are, and why.
    pub fn pages(&self) -> &StorePages {
        self.shared.arena.pages()
    }

    /// Counts of the store's memory. Microseconds.
    pub fn stats(&self) -> ArenaStats {
        self.shared.arena.stats()
    }

    /// Bytes of objects that somebody reads, writes or moves now. Cost: some ten nanoseconds an object.
    pub fn pinned(&self) -> u64 {
        self.shared.pinned()
    }

    /// What moved to disk and back, and who waits.
    pub fn spill_stats(&self) -> SpillStats {
        SpillStats {
            waiting: self.shared.room.waiting(),
            ..self.shared.spill.stats()
        }
    }

    /// The `n` origins whose objects hold most, biggest first, on disk or not. Cost: the number of
    /// origins.
    pub fn holders(&self, n: usize) -> Vec<Holder> {
        self.shared.holders(n)
    }

    /// The `n` largest objects in memory of those that `takes` wants by their place and origin: place, length, origin,
    /// and whether somebody uses them now. Looks at no more than `most`, under the locks of their books.
    pub fn largest(
        &self,
        n: usize,
        most: u64,
        mut takes: impl FnMut(u64, &Origin) -> bool,
    ) -> (Vec<(u64, u64, Origin, bool)>, Looked) {
        let mut largest = Vec::new();
        let mut looked = Looked {
            matching: 0,
            all: true,
        };
        let keep = |all: &mut Vec<(u64, u64, Origin, bool)>| {
            all.sort_unstable_by_key(|(offset, len, ..)| (Reverse(*len), *offset));
            all.truncate(n);
        };
        let mut seen = 0;
        self.shared.arena.each_live(|live| {
            seen += 1;
            looked.all = seen <= most;
            if !looked.all || !takes(live.offset, &live.origin) {
                return;
            }
            looked.matching += 1;
            let busy = matches!(stored::inspect(&live, 0), stored::Found::Busy);
            largest.push((live.offset, live.len, live.origin, busy));
            if largest.len() > 2 * n + 64 {
                keep(&mut largest);
            }
        });
        keep(&mut largest);
        (largest, looked)
    }

    /// Moves nothing more to disk; returns when what is being moved is given up or done.
    pub fn stop_spilling(&self) {
        self.shared.spill.stop(false);
    }
}

#[allow(clippy::result_large_err, reason = "as above")]
impl Shared {
    fn own_patience(&self) -> Patience<'static> {
        Patience {
            longest: self.patience,
            who: 0,
            hopeless: &|| false,
        }
    }

    fn extent(&self, address: *const u8, len: usize) -> Extent {
        Extent {
            offset: (address.addr() - self.arena.base().as_ptr().addr()) as u64,
            len: len as u64,
        }
    }

    /// Frees an extent and tells who waits for room.
    ///
    /// # Safety
    /// As for [`Arena::free`].
    #[inline]
    unsafe fn free(&self, extent: Extent) {
        // SAFETY: the caller's promise.
        unsafe { self.arena.free(extent) };
        self.room.changed();
    }

    /// Takes pages if there are any and nobody waits for them.
    #[inline(never)]
    fn try_place(self: &Arc<Shared>, len: usize, origin: Origin, kind: Kind) -> Option<Draft> {
        if self.room.is_awaited() {
            return None;
        }
        self.place(len, origin, kind)
    }

    fn place(self: &Arc<Shared>, len: usize, origin: Origin, kind: Kind) -> Option<Draft> {
        self.clock.fetch_add(1, Relaxed);
        loop {
            let found = match kind {
                Kind::Anywhere => self.arena.alloc_hinted(len, origin),
                Kind::OnPages => self.arena.alloc_pages(len, origin),
            };
            if let Some(found) = found {
                return Some(Draft::of(self, found));
            }
            let lent = matches!(kind, Kind::OnPages);
            let wanted = self.arena.limit_for(len, lent)?;
            if !self.headroom.raise(&self.arena, wanted) {
                return None;
            }
        }
    }

    /// Waits for room in the line.
    #[cold]
    fn wait_for(
        self: &Arc<Shared>,
        len: usize,
        origin: Origin,
        kind: Kind,
        patience: &Patience<'_>,
    ) -> Result<Draft, StoreFull> {
        let began = Instant::now();
        let bytes = len as u64;
        let mut refused = None;
        if bytes <= self.arena.capacity() {
            let place = self.room.enter(patience.who, bytes);
            let (mut since, mut seen) = (began, place.look().2);
            let mut stuck = false;
            loop {
                let (first, epoch, moved) = place.look();
                if first && let Some(draft) = self.place(len, origin, kind) {
                    place.served();
                    return Ok(draft);
                }
                if moved != seen {
                    (since, seen) = (Instant::now(), moved);
                }
                // A patience of nothing does not wait for the disk either.
                let waited = since.elapsed();
                if waited >= patience.longest || (patience.hopeless)() {
                    break;
                }
                refused = self.spill.ask(self, bytes.max(self.room.wanted())).err();
                // For good: what moves from here on moves for those behind it, which would be held up again.
                stuck |= waited > patience.longest / 2;
                place.set_stuck(stuck);
                place.sleep(epoch, patience.longest - waited);
            }
        }
        Err(self.full(bytes, origin, began.elapsed(), refused))
    }

    fn full(
        &self,
        requested: u64,
        origin: Origin,
        waited: Duration,
        refused: Option<Arc<str>>,
    ) -> StoreFull {
        let stats = self.arena.stats();
        let spilled = self.spill.stats();
        StoreFull {
            requested,
            capacity: stats.capacity,
            used: stats.used,
            pinned: self.pinned(),
            spilled: spilled.bytes,
            largest_free: self.arena.largest_free(),
            waited: Duration::from_millis(waited.as_millis() as u64),
            not_spilling: refused.or(spilled.off),
            machine_left: self.headroom.refused(),
            origin,
            holders: self.holders(HOLDERS_IN_ERROR),
        }
    }

    fn pinned(&self) -> u64 {
        let mut pinned = 0;
        self.arena.each_live(|live| {
            if matches!(stored::inspect(&live, 0), stored::Found::Busy) {
                pinned += live.len;
            }
        });
        pinned
    }

    fn holders(&self, n: usize) -> Vec<Holder> {
        crate::shm::biggest(self.spill.sums(&self.arena), n)
    }
}

impl headroom::Limited for Arena {
    fn limit(&self) -> u64 {
        Arena::limit(self)
    }

    fn capacity(&self) -> u64 {
        Arena::capacity(self)
    }

    fn backed(&self) -> u64 {
        // Without that figure everything below the frontier counts as written.
        headroom::backed(self.file()).unwrap_or_else(|_| self.touched())
    }

    fn set_limit(&self, bytes: u64) {
        Arena::set_limit(self, bytes);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.spill.stop(true);
    }
}

#[cfg(all(test, not(miri)))]
mod tests;
