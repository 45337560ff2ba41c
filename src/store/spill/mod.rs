//! Objects move to disk when memory is full and nobody reads them, and come back when somebody does.
//!
//! Room map: [`choose`] which; [`disk`] to where; [`folder`] in which folder; [`format`] in what form.
//! One thread of low priority moves objects away; it starts when there is first need. Whoever reads an object that is
//! away brings it back itself.
//!
//! A move: candidates are found by walking the arena's books and claimed under their locks, so that
//! all are alive; they are written to a segment while they stay readable; then, under the lock of
//! this module's own books, each that nobody has come to read becomes a [`Ticket`] and its memory is
//! free. Who drops an object in between says so under the same lock, and the thread never looks at
//! that object again. Lock order: the books here, then a lock of the arena's.
//!
//! Invariant: an object's bytes are in memory or whole on disk at every moment; a segment is deleted
//! when its last ticket is gone. Left out: waiting for room.

#![cfg_attr(
    not(feature = "object-store"),
    allow(dead_code, reason = "without it nothing is ever moved")
)]

mod choose;
#[cfg(feature = "object-store")]
mod disk;
#[cfg(feature = "object-store")]
mod folder;
#[cfg(feature = "object-store")]
mod format;
#[cfg(not(feature = "object-store"))]
mod no_disk;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::failed::Failed;
use super::stored::{Candidate, Found, Moving, inspect};
use super::word::Seen;
use super::{Came, Distant, Patience, Shared, Stored};
use crate::base::{Error, Holder, ObjectLost, Origin};
use crate::shm::{Arena, Extent};
#[cfg(feature = "object-store")]
use disk::{Disk, Spot};
#[cfg(not(feature = "object-store"))]
use no_disk::{Disk, Spot};

/// Where objects go when memory is full.
#[derive(Clone, Debug, Default)]
pub(crate) enum SpillTo {
    /// A folder for temporary files, if it is on disk.
    #[default]
    Usual,
    /// Nowhere.
    Off,
    /// This folder, or the store at this URL.
    To(PathBuf),
    /// This store.
    #[cfg(all(test, feature = "object-store"))]
    Given(Arc<dyn object_store::ObjectStore>),
}

/// What moved, and what is to be known about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpillStats {
    /// Bytes on disk now.
    pub bytes: u64,
    /// Objects on disk now.
    pub objects: u64,
    /// Bytes moved to disk so far.
    pub moved: u64,
    /// Bytes brought back so far.
    pub restored: u64,
    /// How many wait for room.
    pub waiting: usize,
    /// Where they go.
    pub place: Option<String>,
    /// Why nothing is moved now.
    pub off: Option<Arc<str>>,
}

/// For how long nothing is moved after a failure, first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long the end waits for a part that is being written.
const GIVE_UP: Duration = Duration::from_secs(5);
/// At least this share of the store is moved at once, up to a bound: the next producer finds room.
const SHARE: u64 = 8;
const SHARE_MOST: u64 = 64 << 20;

/// What stands for an object's bytes while they are not in memory.
pub(super) enum Ticket {
    /// They are on disk.
    Disk(OnDisk),
    /// Another node has them.
    Distant(Box<dyn Distant>),
}

/// What stands for an object's bytes while they are on disk.
pub(super) struct OnDisk {
    spot: Spot,
    len: u64,
    origin: Origin,
    _segment: Arc<Segment>,
}

/// Lives as long as any of its tickets.
struct Segment {
    number: u64,
    asks: Sender<Ask>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        // Without the thread the store is gone, and its folder with it.
        let _ = self.asks.send(Ask::Delete(self.number));
    }
}

enum Ask {
    Room,
    Delete(u64),
    End,
}

/// Is told by the spiller's thread what it does. It is not to wait for anything.
pub(crate) trait Watch: Send + Sync {
    /// A segment is about to be written: what [`wrote`](Self::wrote) is to be told.
    fn now(&self) -> u64;
    /// An object of so many bytes left memory. It stays at that address until this returns.
    fn left(&self, object: *const Stored, bytes: u64);
    /// A segment was written since then, of so many objects that left and so many bytes.
    fn wrote(&self, since: u64, objects: u32, bytes: u64);
}

/// The spiller of one store.
pub(super) struct Spill {
    pub(super) watch: Option<Box<dyn Watch>>,
    disk: Result<Arc<Disk>, Arc<str>>,
    books: Mutex<Books>,
    /// An object came back, or did not.
    settled: Condvar,
    /// Bytes asked for.
    wanted: AtomicU64,
    /// Nothing is moved any more.
    stopping: AtomicBool,
    moved: AtomicU64,
    restored: AtomicU64,
}

/// What the spiller's lock guards.
#[derive(Default)]
pub(super) struct Books {
    /// Objects that are being moved, by offset: whether their owner is gone.
    moving: HashMap<u64, bool>,
    /// What is on disk, by who made it.
    away: HashMap<Origin, Holder>,
    thread: Option<(Sender<Ask>, JoinHandle<()>)>,
    off: Option<Off>,
    /// The thread is at work.
    busy: bool,
}

/// Why nothing is moved for a while.
struct Off {
    why: Arc<str>,
    until: Instant,
    pause: Duration,
}

impl Books {
    /// The owner of an object that is being moved is gone: its memory is the mover's to free.
    pub(super) fn orphan(&mut self, offset: u64) {
        let moving = self.moving.get_mut(&offset);
        *moving.expect("whoever begins a move enters it under this lock") = true;
    }

    /// An object that was away is gone or came back.
    pub(super) fn forget(&mut self, ticket: &Ticket) {
        let Ticket::Disk(ticket) = ticket else { return };
        if let Some(holder) = self.away.get_mut(&ticket.origin) {
            holder.bytes -= ticket.len;
            holder.spilled -= ticket.len;
            holder.objects -= 1;
            if holder.objects == 0 {
                self.away.remove(&ticket.origin);
            }
        }
    }

    fn enter(&mut self, ticket: &OnDisk) {
        let holder = self.away.entry(ticket.origin).or_insert(Holder {
            origin: ticket.origin,
            bytes: 0,
            objects: 0,
            spilled: 0,
        });
        holder.bytes += ticket.len;
        holder.spilled += ticket.len;
        holder.objects += 1;
    }
}

impl Spill {
    /// Prepares; nothing is made before there is need.
    pub fn new(to: &SpillTo, watch: Option<Box<dyn Watch>>) -> Spill {
        Spill {
            watch,
            disk: Disk::find(to).map(Arc::new),
            books: Mutex::default(),
            settled: Condvar::new(),
            wanted: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            moved: AtomicU64::new(0),
            restored: AtomicU64::new(0),
        }
    }

    /// The books, locked.
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock()
    }

    /// Counts and reasons.
    pub fn stats(&self) -> SpillStats {
        let books = self.books.lock();
        let (bytes, objects) = books.away.values().fold((0, 0), |(bytes, objects), h| {
            (bytes + h.bytes, objects + h.objects)
        });
        let off = books.off.as_ref().map(|off| Arc::clone(&off.why));
        drop(books);
        SpillStats {
            bytes,
            objects,
            moved: self.moved.load(Relaxed),
            restored: self.restored.load(Relaxed),
            waiting: 0,
            place: self.disk.as_ref().ok().map(|disk| disk.place()),
            off: off.or_else(|| self.disk.as_ref().err().cloned()),
        }
    }

    /// What is in memory and on disk, by who made it.
    pub fn sums(&self, arena: &Arena) -> HashMap<Origin, Holder> {
        // In this order, so that what moves meanwhile is counted once.
        let books = self.books.lock();
        let mut sums = arena.sums();
        for holder in books.away.values() {
            let sum = sums.entry(holder.origin).or_insert(Holder {
                origin: holder.origin,
                bytes: 0,
                objects: 0,
                spilled: 0,
            });
            sum.bytes += holder.bytes;
            sum.objects += holder.objects;
            sum.spilled += holder.spilled;
        }
        sums
    }

    /// Asks for so many bytes to be moved away, soon; or says why that will not be.
    pub fn ask(&self, store: &Arc<Shared>, bytes: u64) -> Result<(), Arc<str>> {
        let disk = self.disk.as_ref().map_err(Arc::clone)?;
        let mut books = self.books.lock();
        if self.stopping.load(SeqCst) {
            return Err("the store is shutting down".into());
        }
        if let Some(off) = &books.off
            && Instant::now() < off.until
        {
            return Err(Arc::clone(&off.why));
        }
        self.wanted.fetch_max(bytes, SeqCst);
        if books.busy {
            return Ok(());
        }
        if books.thread.is_none() {
            let (asks, heard) = channel();
            let (store, disk) = (Arc::downgrade(store), Arc::clone(disk));
            let (name, own) = ("mobula-spill".to_owned(), asks.clone());
            let spawned = std::thread::Builder::new()
                .name(name)
                .spawn(move || run(&store, &disk, &own, &heard));
            match spawned {
                Ok(thread) => books.thread = Some((asks, thread)),
                Err(e) => return Err(format!("its thread could not start: {e}").into()),
            }
        }
        if let Some((asks, _)) = &books.thread {
            books.busy = asks.send(Ask::Room).is_ok();
        }
        Ok(())
    }

    /// Moves nothing more. With `end`, once no object is left, also ends the thread and removes what is on disk.
    pub fn stop(&self, end: bool) {
        self.stopping.store(true, SeqCst);
        let mut books = self.books.lock();
        if !end {
            let patience = Instant::now() + GIVE_UP;
            while books.busy && !self.settled.wait_until(&mut books, patience).timed_out() {}
            return;
        }
        let thread = books.thread.take();
        drop(books);
        if let Some((asks, thread)) = thread {
            let _ = asks.send(Ask::End);
            // The thread itself may hold the last handle for a moment.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }

    /// Brings an object back, of which the caller has counted itself as a reader.
    pub fn bring_back(
        &self,
        store: &Arc<Shared>,
        object: &Stored,
        patience: &Patience<'_>,
    ) -> Result<Came, Error> {
        let mut books = self.books.lock();
        loop {
            match object.word.look() {
                Seen::Here => return Ok(Came::Here),
                Seen::Away => break,
                Seen::Changing => self.settled.wait(&mut books),
            }
        }
        let begun = object.word.begin_return();
        debug_assert!(begun, "away, under the lock");
        drop(books);
        // If anything goes wrong from here on, the object stays where it is.
        let mut back = Return {
            spill: self,
            object,
            draft: None,
        };
        // SAFETY: away, and the return was begun here.
        let ticket = unsafe { object.ticket() };
        let patient = super::Store {
            shared: Arc::clone(store),
        };
        let ticket = match ticket {
            Ticket::Disk(ticket) => ticket,
            Ticket::Distant(distant) => {
                let draft = patient.create_patiently(object.len(), distant.origin(), patience)?;
                let (draft, came) = distant.fetch(draft)?;
                back.draft = Some(draft);
                return Ok(came);
            }
        };
        let (spot, origin, bytes) = (ticket.spot, ticket.origin, ticket.len);
        let mut draft = patient.create_patiently(object.len(), origin, patience)?;
        let disk = self.disk.as_ref().expect("something is on it");
        disk.read(spot, &mut draft).map_err(|why| {
            Error::ObjectLost(Arc::new(ObjectLost {
                origin,
                bytes,
                place: disk.place().into(),
                why,
            }))
        })?;
        self.restored.fetch_add(bytes, Relaxed);
        back.draft = Some(draft);
        Ok(Came::Disk)
    }
}

/// The end of a return, well or not.
struct Return<'a> {
    spill: &'a Spill,
    object: &'a Stored,
    draft: Option<super::Draft>,
}

impl Drop for Return<'_> {
    fn drop(&mut self) {
        let mut books = self.spill.books.lock();
        let here = self.draft.is_some();
        let ticket = self.draft.take().map(|draft| {
            // SAFETY: away, and the return was begun by whoever made this.
            let ticket = unsafe { self.object.set_here(draft) };
            books.forget(&ticket);
            ticket
        });
        self.object.word.end_return(here);
        drop(books);
        self.spill.settled.notify_all();
        drop(ticket);
    }
}

/// The thread.
fn run(store: &Weak<Shared>, disk: &Disk, asks: &Sender<Ask>, heard: &Receiver<Ask>) {
    // Best effort: at normal priority the thread is only less polite.
    let _ = rustix::process::setpriority_process(None, 10);
    let mut segments = 0;
    for ask in heard {
        match ask {
            Ask::Room => {
                if let Some(store) = store.upgrade() {
                    make_room(&store, disk, asks, &mut segments);
                }
            }
            Ask::Delete(segment) => {
                disk.delete(segment);
                // There may be space now where there was none.
                if let Some(store) = store.upgrade()
                    && let Some(off) = &mut store.spill.books().off
                {
                    off.until = Instant::now();
                }
            }
            Ask::End => break,
        }
    }
    disk.close();
}

fn make_room(store: &Arc<Shared>, disk: &Disk, asks: &Sender<Ask>, segments: &mut u64) {
    let spill = &store.spill;
    let asked = spill.wanted.swap(0, SeqCst);
    let share = (store.arena.capacity() / SHARE).min(SHARE_MOST);
    let mut failed = None;
    if store.room.is_awaited() {
        for group in choose::segments(claim(store, asked.max(share))) {
            *segments += 1;
            if failed.is_some() || spill.stopping.load(SeqCst) {
                give_up(store, &group);
                continue;
            }
            if let Err(e) = write(store, disk, asks, *segments, &group) {
                give_up(store, &group);
                failed = Some(e);
            }
        }
    }
    let mut books = spill.books.lock();
    books.busy = false;
    match failed {
        Some(failed) => {
            let before = books.off.as_ref().map_or(Duration::ZERO, |off| off.pause);
            let pause = (before * 2).clamp(PAUSE.0, PAUSE.1);
            books.off = Some(Off {
                why: failed.why.into(),
                until: Instant::now() + pause,
                pause,
            });
        }
        None => {
            if books
                .off
                .as_ref()
                .is_some_and(|off| off.until <= Instant::now())
            {
                books.off = None;
            }
        }
    }
    drop(books);
    spill.settled.notify_all();
    store.room.changed();
}

/// Finds and claims what to move.
fn claim(store: &Shared, want: u64) -> Vec<Candidate> {
    let mut books = store.spill.books.lock();
    let now = store.clock.load(Relaxed);
    let mut candidates = Vec::new();
    store.arena.each_live(|live| {
        if let Found::Idle(candidate) = inspect(&live, now) {
            candidates.push(candidate);
        }
    });
    let mut chosen = choose::oldest(candidates, want);
    chosen.retain(|candidate| {
        let claimed = store
            .arena
            .with_live(candidate.offset, |live| candidate.claim(&live));
        claimed == Some(true)
    });
    for candidate in &chosen {
        books.moving.insert(candidate.offset, false);
    }
    chosen
}

/// Writes a segment of claimed objects, and lets them go.
fn write(
    store: &Arc<Shared>,
    disk: &Disk,
    asks: &Sender<Ask>,
    number: u64,
    group: &[Candidate],
) -> Result<(), Failed> {
    let watch = store.spill.watch.as_deref();
    let since = watch.map_or(0, Watch::now);
    let moving: Vec<Moving> = group
        .iter()
        // SAFETY: claimed; what is below frees their extents after the write, when the disk has dropped these.
        .map(|candidate| unsafe { Moving::of(store, candidate) })
        .collect();
    let spots = disk.write(number, moving, &|| {
        // That it goes on is reason for the waiting to wait on.
        store.room.moved();
        !store.spill.stopping.load(SeqCst)
    })?;
    let segment = Arc::new(Segment {
        number,
        asks: asks.clone(),
    });
    let mut books = store.spill.books.lock();
    let (mut objects, mut bytes) = (0, 0);
    for (candidate, spot) in group.iter().zip(spots) {
        let extent = Extent {
            offset: candidate.offset,
            len: candidate.len,
        };
        if books.moving.remove(&candidate.offset) == Some(true) {
            // SAFETY: its owner is gone, and nobody reads it any more.
            unsafe { store.free(extent) };
            continue;
        }
        // SAFETY: under the books' lock, and not disowned.
        let stored = unsafe { candidate.stored() };
        if !stored.word.end_move() {
            continue;
        }
        let ticket = OnDisk {
            spot,
            len: candidate.len,
            origin: candidate.origin,
            _segment: Arc::clone(&segment),
        };
        books.enter(&ticket);
        stored.set_away(Box::new(Ticket::Disk(ticket)));
        // Before anyone can drop or bring back the object: the books of the arena are about the memory.
        store
            .arena
            .with_live(candidate.offset, |live| live.disown());
        stored.word.moved();
        store.spill.moved.fetch_add(candidate.len, Relaxed);
        (objects, bytes) = (objects + 1, bytes + candidate.len);
        if let Some(watch) = watch {
            watch.left(stored, candidate.len);
        }
        // SAFETY: its bytes are on disk, and no owner is in the books.
        unsafe { store.free(extent) };
    }
    drop(books);
    store.room.moved();
    if let Some(watch) = watch {
        watch.wrote(since, objects, bytes);
    }
    Ok(())
}

/// Lets claimed objects be as they were.
fn give_up(store: &Arc<Shared>, group: &[Candidate]) {
    let mut books = store.spill.books.lock();
    for candidate in group {
        if books.moving.remove(&candidate.offset) == Some(true) {
            let extent = Extent {
                offset: candidate.offset,
                len: candidate.len,
            };
            // SAFETY: its owner is gone, and nobody reads it any more.
            unsafe { store.free(extent) };
        } else {
            // SAFETY: under the books' lock, and not disowned.
            unsafe { candidate.stored() }.word.stay();
        }
    }
}

#[cfg(all(test, feature = "object-store", not(miri)))]
mod tests;
