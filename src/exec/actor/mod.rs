//! Actors: a state, a mailbox, and whoever drains it.
//!
//! No actor has a thread. The first call into an idle actor puts it into a queue; an executor, or the caller when it
//! waits for the result, takes the actor's run lock and executes calls in order until the mailbox is empty. An idle
//! actor is this cell and its state, nothing more.
//!
//! Invariant: `inner` is touched only under the run lock; an actor with mail is in some queue, or is being drained, or
//! waits for a call under way that will put it back ([`gate`](crate::core::Gate)). A call in the mailbox keeps the
//! actor alive, and the actor's last handle sends the stop that empties it.
//! Left out: where actors run across machines.

mod apart;
mod away;
mod backups;
mod create;
mod history;
mod host;
mod life;
mod mailbox;
mod roll;
mod run;
mod show;

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex};

use super::cell::{RawRef, Record};
use super::entry::ActorEntry;
use super::far::FarActor;
use super::isolate::Process;
use super::mail::{Mail, RunLock};
use crate::base::snapshot::ActorState;
use crate::core::history::Terms;
use crate::core::{Gate, Order};
use crate::value::{Cap, CapKind};

#[cfg(feature = "async")]
pub(super) use apart::leave;
pub(super) use apart::{forsake_apart, run_apart};
#[cfg(feature = "async")]
pub(super) use apart::{interrupted, method_panicked};
pub(super) use away::{condemn_far, far};
pub(super) use backups::conclude;
pub use backups::{Backups, Wants};
#[cfg(feature = "cluster")]
pub use backups::{Revival, is_logged, look_after};
#[cfg(feature = "cluster")]
pub use create::{Foreign, create_for, enter_name};
pub use create::{create, stillborn};
pub(super) use host::host_died;
pub(super) use life::condemn_of_group;
#[cfg(feature = "cluster")]
pub use life::forsake;
pub use life::{kill, restart, stop};
pub use mailbox::{call, checkpoint};
pub(super) use run::drain_here;
pub use show::ActorDeath;
use show::{KILLED, STOPPED};
pub(super) use show::{count, list};

/// The error for a name that belongs to another type.
pub fn wrong_type(name: &str, expected: &ActorEntry, found: &ActorCell) -> crate::base::Error {
    crate::base::Error::WrongActorType {
        name: name.to_owned(),
        expected: expected.name,
        found: found.entry.name,
    }
}

/// Where an actor is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Life {
    /// Its constructor has not run yet.
    Starting = 0,
    /// It answers.
    Alive = 1,
    /// It never will again.
    Dead = 2,
}

/// Begins a line of the cache: what stands before it and what stands behind it do not disturb each other.
#[repr(align(64))]
struct Line;

/// What `state` is while a worker process has it.
const HOSTED: *mut () = std::ptr::without_provenance_mut(64);

/// One actor. What callers write with every call, what both sides only read, and what the drainer writes with every call
/// lie in lines of their own: else each side would take the line from the other for every call.
#[repr(C)]
pub struct ActorCell {
    _callers: Line,
    refs: AtomicUsize,
    mail: Mail<Record>,

    _both: Line,
    life: AtomicU8,
    handles: AtomicU32,
    pub(super) entry: &'static ActorEntry,
    /// A leaked box of the actor's type; null before the constructor and after death. Written under the run lock while no
    /// call runs; read by calls that run apart from it.
    state: AtomicPtr<()>,
    more: OnceLock<Box<More>>,
    pub(super) id: u64,
    /// The start of the runtime that it belongs to.
    pub(super) born: u64,
    /// Where it is on the roll.
    place: AtomicU32,

    _drainer: Line,
    /// Calls in the backlog, about; written by the holder of the run lock.
    taken: AtomicU32,
    /// The right to touch `inner`.
    run: RunLock,
    inner: UnsafeCell<Inner>,
}

const _: () = assert!(size_of::<ActorCell>() == 192, "three lines");

/// What the holder of the run lock owns.
struct Inner {
    /// Calls taken out of the mailbox, oldest first.
    backlog: *mut Record,
    /// The constructor's arguments; kept while a restart may need them.
    init: Option<RawRef>,
    /// What brings its state back after a death; nothing if that is not kept.
    history: Option<Box<history::History>>,
    /// Calls are logged, here or elsewhere.
    logged: bool,
    /// Makes it the first time in the constructor's place: another node had it.
    restore: Option<RawRef>,
}

/// Verdict: none.
const LIVE: u8 = 0;
/// Verdict: end, and be made again if a restart is left.
const RESTART: u8 = 1;
/// Verdict: end.
const DIE: u8 = 2;

/// What only some actors have.
pub(super) struct More {
    pub(super) name: Option<Arc<str>>,
    pub(super) max_concurrency: u32,
    pub(super) max_restarts: u32,
    pub(super) restarts: AtomicU32,
    pub(super) restart_on_panic: bool,
    /// When its checkpoints are due.
    pub(super) checkpoints: Terms,
    /// How many other nodes are to keep its history.
    pub(super) replicas: u32,
    /// Whoever sees to that.
    backups: OnceLock<Arc<dyn Backups>>,
    /// What of its history is shown.
    pub(super) shown: history::Shown,
    pub(super) max_pending: u32,
    pub(super) fail_when_full: bool,
    /// Whether its state is in a worker process of its own.
    pub(super) isolate: bool,
    /// The worker process that has the state.
    pub(super) host: Mutex<Option<Arc<Process>>>,
    /// Where it is, if another node has it.
    pub(super) far: Option<Box<dyn FarActor>>,
    /// Bytes that the worker process may take.
    pub(super) memory: Option<u64>,
    /// Calls in the mailbox, counted when it is bounded.
    pub(super) pending: AtomicU32,
    pub(super) room: (Mutex<()>, Condvar),
    /// Its constructor waits for arguments or resources.
    pub(super) unborn: AtomicBool,
    /// The id under which the ledger knows it; 0 if it does not.
    pub(super) ledger_id: u64,
    /// Why it died.
    pub(super) cause: Mutex<Option<Arc<str>>>,
    /// [`LIVE`], [`RESTART`] or [`DIE`]; changed under `sentence`'s lock.
    pub(super) verdict: AtomicU8,
    /// Why the verdict was passed.
    pub(super) sentence: Mutex<Option<Arc<str>>>,
    /// A stop that waits for held calls which were sent before it.
    pub(super) stop: Mutex<Option<RawRef>>,
    /// Async calls under way, by id, so that a verdict or a cancellation reaches them while they wait.
    #[cfg(feature = "async")]
    pub(super) wakers: Mutex<std::collections::HashMap<u64, super::futures::Polled>>,
    pub(super) gate: OnceLock<Mutex<Gate>>,
    pub(super) order: Mutex<Order<RawRef>>,
    pub(super) resolved: Mutex<Vec<(u64, u64)>>,
}

impl More {
    fn new() -> More {
        More {
            name: None,
            max_concurrency: 1,
            max_restarts: 0,
            restarts: AtomicU32::new(0),
            restart_on_panic: false,
            checkpoints: Terms::default(),
            replicas: 0,
            backups: OnceLock::new(),
            shown: history::Shown::default(),
            max_pending: 0,
            fail_when_full: false,
            isolate: false,
            host: Mutex::new(None),
            far: None,
            memory: None,
            pending: AtomicU32::new(0),
            room: (Mutex::new(()), Condvar::new()),
            unborn: AtomicBool::new(false),
            ledger_id: 0,
            cause: Mutex::new(None),
            verdict: AtomicU8::new(LIVE),
            sentence: Mutex::new(None),
            stop: Mutex::new(None),
            #[cfg(feature = "async")]
            wakers: Mutex::default(),
            gate: OnceLock::new(),
            order: Mutex::new(Order::new()),
            resolved: Mutex::new(Vec::new()),
        }
    }
}

// SAFETY: `inner` is guarded by the run lock; states are Send, records and the rest are Send + Sync.
unsafe impl Send for ActorCell {}
// SAFETY: as above.
unsafe impl Sync for ActorCell {}

/// A counted reference to an actor: keeps the memory, not the life (see [`HandleRef`]).
pub struct ActorRef(NonNull<ActorCell>);

// SAFETY: actors are Send + Sync and the count is atomic.
unsafe impl Send for ActorRef {}
// SAFETY: as above.
unsafe impl Sync for ActorRef {}

impl std::ops::Deref for ActorRef {
    type Target = ActorCell;
    #[inline(always)]
    fn deref(&self) -> &ActorCell {
        // SAFETY: self holds a count.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for ActorRef {
    #[inline]
    fn clone(&self) -> ActorRef {
        self.refs.fetch_add(1, Ordering::Relaxed);
        ActorRef(self.0)
    }
}

impl Drop for ActorRef {
    #[inline]
    fn drop(&mut self) {
        if !run::batch_release(self.0) {
            // SAFETY: self's count ends here.
            unsafe { release(self.0, 1) };
        }
    }
}

/// # Safety
/// The caller gives up `n` counts.
unsafe fn release(actor: NonNull<ActorCell>, n: usize) {
    // SAFETY: the counts are the caller's, so the cell is alive until the subtraction.
    if unsafe { actor.as_ref() }
        .refs
        .fetch_sub(n, Ordering::Release)
        == n
    {
        fence(Ordering::Acquire);
        // SAFETY: no count is left, and this thread frees it only below. Until it is off the roll others may look at it.
        roll::leave(unsafe { actor.as_ref() });
        // SAFETY: no count is left; the cell came from a box, see `life::new_cell`.
        drop(unsafe { Box::from_raw(actor.as_ptr()) });
    }
}

impl Drop for ActorCell {
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        debug_assert!(
            inner.backlog.is_null(),
            "calls in the backlog keep their actor"
        );
        life::drop_state(self);
        life::release_resources(self);
    }
}

impl ActorRef {
    /// The pointer, with its count.
    pub fn into_raw(self) -> NonNull<ActorCell> {
        std::mem::ManuallyDrop::new(self).0
    }

    /// Takes a count over.
    ///
    /// # Safety
    /// `ptr` came from [`into_raw`](Self::into_raw) and its count was not taken over before.
    pub unsafe fn from_raw(ptr: NonNull<ActorCell>) -> ActorRef {
        ActorRef(ptr)
    }

    /// Whether both are the same actor.
    pub fn same(&self, other: &ActorRef) -> bool {
        self.0 == other.0
    }

    /// For the thread's list of actors it runs.
    pub(super) fn mark(&self) -> *const () {
        self.0.as_ptr().cast()
    }
}

impl ActorCell {
    /// Where it is in its life.
    pub fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            0 => Life::Starting,
            1 => Life::Alive,
            _ => Life::Dead,
        }
    }

    /// Whether it lives and somebody may call it: it has handles, or is detached.
    fn is_held(&self) -> bool {
        self.life() != Life::Dead && self.handles.load(Ordering::Acquire) > 0
    }

    /// Where it is, if another node has it.
    pub fn far(&self) -> Option<&dyn FarActor> {
        self.more.get().and_then(|m| m.far.as_deref())
    }

    /// Its type.
    pub fn entry(&self) -> &'static ActorEntry {
        self.entry
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.more.get().and_then(|m| m.name.as_deref())
    }

    /// Its number, unique in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What its mailbox and its drainer are doing.
    fn state_now(&self) -> ActorState {
        match self.life() {
            Life::Dead => ActorState::Dead,
            Life::Starting => ActorState::Starting,
            Life::Alive if self.run.is_held() => ActorState::Running,
            Life::Alive if self.mail.is_idle() => ActorState::Idle,
            Life::Alive => ActorState::Queued,
        }
    }

    /// Its life, as its worker process has it.
    pub(super) fn job(&self) -> super::isolate::Job {
        let more = self.more();
        let restarts = (self.restarts(), more.max_restarts);
        super::isolate::Job::actor(self.entry.name, self.name(), restarts, more.memory)
    }

    /// How often it was made again.
    pub fn restarts(&self) -> u32 {
        self.more
            .get()
            .map_or(0, |m| m.restarts.load(Ordering::Relaxed))
    }

    fn more(&self) -> &More {
        self.more.get_or_init(|| Box::new(More::new()))
    }

    /// Calls waiting in a bounded mailbox; 0 where it is not bounded.
    pub fn pending(&self) -> u32 {
        self.more
            .get()
            .map_or(0, |m| m.pending.load(Ordering::Relaxed))
    }

    fn death(&self) -> crate::base::Error {
        self.died_of(self.more().cause.lock().clone())
    }

    fn died_of(&self, cause: Option<Arc<str>>) -> crate::base::Error {
        let more = self.more();
        crate::base::Error::ActorDied {
            actor: self.entry.name,
            name: more.name.clone(),
            cause: cause.unwrap_or_else(|| Arc::from("it was stopped")),
            restarts: more.restarts.load(Ordering::Relaxed),
        }
    }

    /// Async calls under way, so that one can be polled again by whoever has news for it.
    #[cfg(feature = "async")]
    pub(super) fn wakers(&self) -> &Mutex<std::collections::HashMap<u64, super::futures::Polled>> {
        &self.more().wakers
    }
}

/// A handle: keeps the actor alive. When the last one goes, the actor finishes its calls and ends, unless detached.
pub struct HandleRef(ActorRef);

impl HandleRef {
    /// The actor.
    #[inline]
    pub fn actor(&self) -> &ActorRef {
        &self.0
    }

    /// Another handle to a living actor; `None` if its last handle is gone.
    pub fn upgrade(actor: &ActorRef) -> Option<HandleRef> {
        let more = actor
            .handles
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                (n > 0).then_some(n + 1)
            });
        (more.is_ok() && actor.life() != Life::Dead).then(|| HandleRef(actor.clone()))
    }

    /// The handle as a bare actor reference that still counts as a handle.
    fn into_actor(self) -> ActorRef {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so the reference moves out once.
        unsafe { std::ptr::read(&raw const this.0) }
    }
}

static HANDLE: CapKind = CapKind {
    name: "an actor",
    acquire: |p| {
        // SAFETY: caps of this kind hold a handle, from which another is made.
        let held = std::mem::ManuallyDrop::new(HandleRef(unsafe { ActorRef::from_raw(p.cast()) }));
        std::mem::forget(HandleRef::clone(&held));
    },
    // SAFETY: the cap's handle is given up.
    release: |p| drop(HandleRef(unsafe { ActorRef::from_raw(p.cast()) })),
};

impl HandleRef {
    /// The handle as a reference that can travel inside a value.
    pub fn into_cap<A: 'static>(self) -> Cap {
        // SAFETY: the handle's counts move into the cap.
        unsafe { Cap::from_raw::<A>(self.into_actor().into_raw().cast(), &HANDLE) }
    }

    /// As [`into_cap`](Self::into_cap), for the type that has this number.
    pub fn into_tagged_cap(self, tag: u64) -> Cap {
        // SAFETY: the handle's counts move into the cap.
        unsafe { Cap::from_raw_tagged(self.into_actor().into_raw().cast(), &HANDLE, tag) }
    }

    /// Another handle to the actor that a cap refers to, whatever its type; `None` if it refers to no actor.
    pub fn of_cap(cap: &Cap) -> Option<HandleRef> {
        let raw = cap.of_kind(&HANDLE)?;
        // SAFETY: as in `from_cap`.
        let held =
            std::mem::ManuallyDrop::new(HandleRef(unsafe { ActorRef::from_raw(raw.cast()) }));
        Some(HandleRef::clone(&held))
    }

    /// Another handle to the actor that a cap refers to; `None` if it refers to something else.
    pub fn from_cap<A: 'static>(cap: &Cap) -> Option<HandleRef> {
        let raw = cap.as_kind::<A>(&HANDLE)?;
        // SAFETY: the cap holds a handle, from which another is made; the borrowed one is not dropped.
        let held =
            std::mem::ManuallyDrop::new(HandleRef(unsafe { ActorRef::from_raw(raw.cast()) }));
        Some(HandleRef::clone(&held))
    }
}

impl Clone for HandleRef {
    fn clone(&self) -> HandleRef {
        self.0.handles.fetch_add(1, Ordering::Relaxed);
        HandleRef(self.0.clone())
    }
}

impl Drop for HandleRef {
    fn drop(&mut self) {
        if self.0.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            life::abandoned(&self.0);
        }
    }
}
