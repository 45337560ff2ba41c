//! What a thread keeps of the runtime: its queues, its scratch buffer, what it runs now.
//!
//! Every thread that touches the runtime gets one: executors, `main`, the user's own threads. Work is pushed to the
//! thread's own deques; executors steal from all of them.
//!
//! Invariant: a [`Local`] belongs to one thread and one start of the runtime (its generation); it is replaced when the
//! runtime was started anew, but lives on for frames that use it: [`with`] counts each.
//! Left out: who steals when, see `executor`.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_deque::{Stealer, Worker};
use parking_lot::RwLock;

use super::actor::ActorRef;
use super::books::{Books, Pace, Timed};
use super::cell::{RawRef, Record};
use super::engine::Engine;
use crate::base::Error;
use crate::trace::{Lane, NOT_RECORDED, Part};
use crate::value::Ser;

/// Even: no runtime; odd: one is up. Each start and stop counts.
static GENERATION: AtomicU64 = AtomicU64::new(0);
static ENGINE: RwLock<Option<Arc<Engine>>> = RwLock::new(None);
static THREADS: AtomicU64 = AtomicU64::new(1);

/// Ids are a thread's number and a count of its own.
const ID_BITS: u32 = 40;

/// What executors see of a thread's queues.
#[derive(Debug)]
pub struct Outbox {
    /// Calls ready to run.
    pub tasks: Stealer<RawRef>,
    /// Actors with mail.
    pub actors: Stealer<ActorRef>,
    /// The owner is an executor.
    pub executor: bool,
    /// How many were ever pushed; written by the owner alone.
    pub pushes: AtomicU64,
    /// What its owner counts.
    pub books: Books,
    /// The owner's name.
    pub thread: Box<str>,
}

/// One thread's part of the runtime.
pub struct Local {
    /// The runtime.
    pub engine: Arc<Engine>,
    generation: u64,
    /// Calls this thread made ready.
    pub tasks: Worker<RawRef>,
    /// Actors this thread sent mail.
    pub actors: Worker<ActorRef>,
    /// The same, as others see it.
    pub outbox: Arc<Outbox>,
    /// Where what happens on this thread is recorded.
    pub lane: Lane,
    thread: u64,
    pace: Pace,
    ser: Cell<Option<Box<Ser>>>,
    /// What runs on this thread now, innermost; null if nothing.
    pub current: Cell<*const Record>,
    /// The call that a waiting caller runs here itself: its one reference may be the only one, and yet it is wanted.
    pub wanted: Cell<*const Record>,
    /// The actors whose methods run on this thread now, innermost last.
    pub on_stack: RefCell<Vec<*const ()>>,
    /// A CPU is leased to this thread.
    pub leased: Cell<bool>,
    /// An executor that runs a call with resources of its own: it is not one of those at common work.
    pub apart: Cell<bool>,
    /// It was denied one when it asked last.
    pub denied: Cell<bool>,
    /// This is an executor of the runtime, not a thread of the user's.
    pub executor: bool,
    /// Below this address the stack is too short to run a call on top.
    pub(super) stack_floor: Cell<usize>,
    /// A frame further up empties the queues, because the runtime closes.
    pub draining: Cell<bool>,
    /// This thread fails what is in all queues.
    pub sweeping: Cell<bool>,
    /// Waits by spinning that paid, lately.
    pub spin: Cell<crate::core::Spin>,
}

thread_local! {
    static FAST: Cell<*const Local> = const { Cell::new(std::ptr::null()) };
    static OWNED: RefCell<Owned> = const { RefCell::new(Owned(None)) };
}

/// The thread's local, to which `FAST` points.
struct Owned(Option<Rc<Local>>);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = FAST.try_with(|f| f.set(std::ptr::null()));
    }
}

/// Runs `f` with this thread's part of the runtime that is up; an error if none is.
#[inline]
pub fn with<R>(f: impl FnOnce(&Local) -> R) -> Result<R, Error> {
    let fast = FAST.try_with(Cell::get).unwrap_or(std::ptr::null());
    if !fast.is_null() {
        // SAFETY: FAST points to what OWNED holds, and is changed before that is let go.
        if unsafe { &*fast }.generation == GENERATION.load(Ordering::Relaxed) {
            // SAFETY: as above, and FAST came from an Rc. The count keeps it for `f`, which may call user code that ends the
            // runtime and starts it anew.
            let local = unsafe {
                Rc::increment_strong_count(fast);
                Rc::from_raw(fast)
            };
            return Ok(f(&local));
        }
    }
    let local = enter()?;
    Ok(f(&local))
}

#[cold]
#[inline(never)]
fn enter() -> Result<Rc<Local>, Error> {
    let engine = ENGINE.read();
    let generation = GENERATION.load(Ordering::Relaxed);
    let Some(engine) = engine.as_ref() else {
        return Err(if generation == 0 {
            Error::NotInitialized
        } else {
            Error::ShutDown
        });
    };
    let local = Rc::new(Local::new(Arc::clone(engine), generation, false));
    install(&local);
    Ok(local)
}

fn install(local: &Rc<Local>) {
    let _ = OWNED.try_with(|o| {
        FAST.set(Rc::as_ptr(local));
        let stale = o.borrow_mut().0.replace(Rc::clone(local));
        drop(stale); // may free objects, which may look for the local
    });
}

/// Runs `f` with this thread's part of the runtime that is up, if it has one already.
pub fn if_entered(f: impl FnOnce(&Local)) {
    let fast = FAST.try_with(Cell::get).unwrap_or(std::ptr::null());
    // SAFETY: as in `with`.
    if !fast.is_null() && unsafe { &*fast }.generation == GENERATION.load(Ordering::Relaxed) {
        let _ = with(f);
    }
}

/// What kind of thread this is.
fn part(executor: bool) -> Part {
    let thread = std::thread::current();
    match thread.name() {
        _ if executor => Part::Executor,
        _ if super::isolate::in_worker() => Part::Worker,
        Some("mobula-async") => Part::Async,
        _ => Part::Driver,
    }
}

/// Makes `engine` the runtime of this process.
pub fn start(engine: &Arc<Engine>) -> Result<u64, Error> {
    let mut slot = ENGINE.write();
    if slot.is_some() {
        return Err(Error::AlreadyInitialized);
    }
    *slot = Some(Arc::clone(engine));
    Ok(GENERATION.fetch_add(1, Ordering::Release) + 1)
}

/// Whether there is a runtime.
#[cfg(feature = "cluster")]
pub fn is_up() -> bool {
    ENGINE.read().is_some()
}

/// Takes the runtime away: calls from now on fail.
pub fn stop() {
    let engine = {
        let mut slot = ENGINE.write();
        GENERATION.fetch_add(1, Ordering::Release);
        slot.take()
    };
    drop(engine);
}

/// Forgets this thread's part of a runtime that has stopped; frames that use it keep it.
pub fn leave() {
    FAST.set(std::ptr::null());
    drop(OWNED.try_with(|o| o.borrow_mut().0.take()));
}

impl Local {
    fn new(engine: Arc<Engine>, generation: u64, executor: bool) -> Local {
        let (tasks, actors) = (Worker::new_lifo(), Worker::new_lifo());
        let thread = THREADS.fetch_add(1, Ordering::Relaxed);
        let outbox = Arc::new(Outbox {
            tasks: tasks.stealer(),
            actors: actors.stealer(),
            executor,
            pushes: AtomicU64::new(0),
            books: Books::new(thread << ID_BITS),
            thread: std::thread::current().name().unwrap_or("unnamed").into(),
        });
        engine.enlist(&outbox);
        let lane = engine
            .recorder()
            .map_or_else(Lane::off, |recorder| Lane::new(recorder, part(executor)));
        Local {
            engine,
            generation,
            tasks,
            actors,
            outbox,
            lane,
            thread,
            pace: Pace::new(),
            ser: Cell::new(Some(Box::default())),
            current: Cell::new(std::ptr::null()),
            wanted: Cell::new(std::ptr::null()),
            on_stack: RefCell::new(Vec::new()),
            leased: Cell::new(false),
            denied: Cell::new(false),
            apart: Cell::new(false),
            executor,
            stack_floor: Cell::new(super::stack::floor()),
            draining: Cell::new(false),
            sweeping: Cell::new(false),
            spin: Cell::new(crate::core::Spin::new()),
        }
    }

    /// The local of a new executor thread, which this is.
    pub fn for_executor(engine: &Arc<Engine>, generation: u64) -> Rc<Local> {
        let local = Rc::new(Local::new(Arc::clone(engine), generation, true));
        install(&local);
        local
    }

    /// Which start of the runtime this belongs to.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A fresh id, never zero, for what began at `begun`: its lowest bit says whether it is recorded.
    #[inline]
    pub fn next_id(&self, begun: u64) -> u64 {
        let id = self.outbox.books.next_id();
        if id << (u64::BITS - ID_BITS) == 0 {
            return self.next_series(begun);
        }
        id | u64::from(begun != NOT_RECORDED)
    }

    /// A busy thread's numbers last for a day: then it needs new ones, or its ids would be those of the next thread.
    #[cold]
    fn next_series(&self, begun: u64) -> u64 {
        let number = THREADS.fetch_add(1, Ordering::Relaxed);
        let books = &self.outbox.books;
        // The id that ran over is nobody's.
        books.no_call();
        books.begin_series(number << ID_BITS);
        self.next_id(begun)
    }

    /// A fresh id for what is no call.
    #[inline]
    pub fn next_object(&self, begun: u64) -> u64 {
        self.outbox.books.no_call();
        self.next_id(begun)
    }

    /// Notes that a call runs here now.
    #[inline(always)]
    pub(super) fn begin(&self, record: &Record) -> Timed {
        self.outbox.books.begin(record.entry, record.id, &self.pace)
    }

    /// Notes that a call has run here.
    #[inline(always)]
    pub(super) fn end(&self, record: &Record, timed: Timed) {
        self.outbox.books.end(record.entry, timed, &self.pace);
    }

    /// What this thread counts.
    #[inline]
    pub(super) fn books(&self) -> &Books {
        &self.outbox.books
    }

    /// Who calls: the call that runs here, or this thread.
    #[inline]
    pub fn caller(&self) -> u64 {
        let current = self.current.get();
        if current.is_null() {
            return self.thread << ID_BITS;
        }
        // SAFETY: whoever set `current` keeps the record until it is set back.
        unsafe { (*current).id }
    }

    /// Looks at the call that runs here, if one does.
    pub fn current_record<R>(&self, f: impl FnOnce(&Record) -> R) -> Option<R> {
        let current = self.current.get();
        // SAFETY: whoever set `current` keeps the record until it is set back.
        (!current.is_null()).then(|| f(unsafe { &*current }))
    }

    /// Looks at the calls that run on this thread, innermost first.
    pub fn each_current(&self, mut f: impl FnMut(&Record)) {
        let mut next = self.current.get();
        while !next.is_null() {
            // SAFETY: whoever set `current` keeps the record until it is set back, and has put the one before it into the
            // record's link, which nobody else uses while the call runs.
            let record = unsafe { &*next };
            f(record);
            // SAFETY: as above.
            next = unsafe { record.outer() };
        }
    }

    /// The scratch writer, for as long as the guard lives; a fresh one if user code is called while it is in use.
    #[inline]
    pub fn borrow_ser(&self) -> SerGuard<'_> {
        let ser = self.ser.take().unwrap_or_default();
        SerGuard {
            local: self,
            ser: ManuallyDrop::new(ser),
        }
    }

    /// A number that is this thread's alone, for entries in lists of waiters.
    pub fn outbox_key(&self) -> usize {
        Arc::as_ptr(&self.outbox).addr()
    }

    /// Counts a push to one of the queues.
    #[inline]
    pub fn count_push(&self) {
        let pushes = &self.outbox.pushes;
        pushes.store(pushes.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.engine.delist(&self.outbox);
        while let Some(task) = self.tasks.pop() {
            self.engine.inject_task(task);
        }
        while let Some(actor) = self.actors.pop() {
            self.engine.inject_actor(actor);
        }
        if self.engine.is_closing() {
            let engine = Arc::clone(&self.engine);
            engine.drain_all(self);
        }
    }
}

/// See [`Local::borrow_ser`].
pub struct SerGuard<'a> {
    local: &'a Local,
    ser: ManuallyDrop<Box<Ser>>,
}

impl Deref for SerGuard<'_> {
    type Target = Ser;
    #[inline]
    fn deref(&self) -> &Ser {
        &self.ser
    }
}

impl DerefMut for SerGuard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Ser {
        &mut self.ser
    }
}

impl Drop for SerGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: taken once, here.
        let ser = unsafe { ManuallyDrop::take(&mut self.ser) };
        self.local.ser.set(Some(ser));
    }
}

#[cfg(test)]
mod tests {
    use super::super::books::Sums;
    use super::*;
    use crate::base::Capacity;
    use crate::store::{Store, StoreOptions};

    #[test]
    fn ids_are_nobody_elses_however_many_there_are() {
        let store = Store::open(StoreOptions {
            capacity: Some(1 << 20),
            ..StoreOptions::default()
        });
        let engine = Engine::new(Capacity::default(), store.unwrap(), None);
        let local = Local::new(Arc::clone(&engine), 1, false);
        let caller = local.caller();
        let books = &local.outbox.books;
        books.set_ids(caller + (1 << ID_BITS) - 4);
        let submitted = || {
            let mut sums = Sums::new();
            sums.add(books);
            sums.submitted
        };
        let before = submitted();
        let ids: Vec<u64> = (0..3).map(|_| local.next_id(NOT_RECORDED)).collect();
        let other = Local::new(engine, 1, false);
        let number = |id: u64| id >> ID_BITS;
        assert_eq!(number(ids[0]), local.thread);
        assert_eq!(number(ids[1]), number(ids[2]));
        assert!(number(ids[1]) > local.thread && number(ids[1]) != other.thread);
        assert!(ids.iter().all(|id| *id != number(*id) << ID_BITS));
        assert_eq!(local.caller(), caller, "who calls is the same");
        assert_eq!(submitted(), before + 3);
    }
}
