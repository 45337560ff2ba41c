//! Draining: whoever holds the run lock executes the actor's calls, in order.
//!
//! Most actors run one call at a time, right here. With `max_concurrency` above one, or async methods, the
//! [`Gate`](crate::core::Gate) says which calls may run beside each other; those run apart from the drainer, which stops
//! at the first that must wait and is called back when it may go on.
//!
//! Invariant: after unlocking, the drainer looks at the mailbox once more, so that a push that found it running is
//! never lost. Left out: birth and death (`life`).

mod logged;
mod perform;

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::super::call::{CallError, Outcome, StateRef, set_value};
use super::super::cell::{self, Phase, RawRef, Record, finished};
use super::super::engine::Engine;
use super::super::entry::Kind;
use super::super::local::Local;
use super::super::mail;
use super::{ActorCell, ActorRef, HOSTED, Inner, LIVE, Life, More, Wants, history, host, life};
use crate::base::{Error, FailureKind};
use crate::core::gate::{Admit, Gate, Kind as Access};
pub(super) use perform::{construct_here, perform};

/// In a record's count of missing arguments: it was held for them, and its turn has come.
const RELEASED: u32 = u32::MAX;

/// Calls executed before the actor goes to the back of the queue.
const TURN: u32 = 256;

thread_local! {
    /// The actor drained here, and references to it that were dropped meanwhile: given back in one piece, since each would
    /// touch the line that callers push to.
    static BATCH: Cell<(*const ActorCell, usize)> = const { Cell::new((std::ptr::null(), 0)) };
}

/// Whether a dropped reference was added to the batch of the actor drained here.
#[inline]
pub(super) fn batch_release(actor: NonNull<ActorCell>) -> bool {
    BATCH
        .try_with(|b| {
            let (drained, n) = b.get();
            let same = std::ptr::eq(drained, actor.as_ptr());
            if same {
                b.set((drained, n + 1));
            }
            same
        })
        .unwrap_or(false)
}

/// The right to drain, on this thread.
pub(super) struct Drain<'a> {
    actor: &'a ActorRef,
    local: &'a Local,
    outer: (*const ActorCell, usize),
    /// The actor drained further up on this thread.
    within: u64,
}

impl<'a> Drain<'a> {
    fn lock(local: &'a Local, actor: &'a ActorRef) -> Option<Drain<'a>> {
        actor.run.try_lock().then(|| {
            local.on_stack.borrow_mut().push(actor.mark());
            let outer = BATCH.replace((actor.0.as_ptr(), 0));
            Drain {
                actor,
                local,
                outer,
                within: local.books().enters(actor.id),
            }
        })
    }

    pub(super) fn actor(&self) -> &'a ActorRef {
        self.actor
    }

    pub(super) fn local(&self) -> &'a Local {
        self.local
    }

    /// What the lock guards.
    #[allow(clippy::mut_from_ref)]
    fn inner(&self) -> &mut Inner {
        // SAFETY: this drain holds the run lock; callers below keep no two of these at once across a call.
        unsafe { &mut *self.actor.inner.get() }
    }
}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        let (_, n) = BATCH.replace(self.outer);
        self.local.on_stack.borrow_mut().pop();
        self.local.books().enters(self.within);
        // SAFETY: locked by `Drain::lock`; `inner` borrows from this drain.
        unsafe { self.actor.run.unlock() };
        if n > 0 {
            // SAFETY: the batch collected n counts; `self.actor` holds one more.
            unsafe { super::release(self.actor.0, n) };
        }
    }
}

/// How a drain ended.
enum Stopped {
    /// Nothing is left.
    Empty,
    /// There is more: put it back into a queue.
    More,
    /// A call under way will put it back.
    Parked,
}

/// Drains the actor for a turn, or until `until` has ended; false if somebody else is at it.
///
/// `until` set: the caller waits for that call and runs no more of the others than stand before it.
pub(in super::super) fn drain_here(
    engine: &Arc<Engine>,
    local: &Local,
    actor: &ActorRef,
    until: Option<&Record>,
) -> bool {
    let mut any = false;
    loop {
        let Some(drain) = Drain::lock(local, actor) else {
            return any;
        };
        any = true;
        let stopped = drain.turn(engine, until);
        drop(drain);
        match stopped {
            Stopped::Parked => {
                // Whoever it waits for brings a queue entry, unless it did while the lock was still held here.
                if still_parked(actor) {
                    return any;
                }
            }
            Stopped::More => {
                engine.push_actor(local, actor.clone());
                return any;
            }
            Stopped::Empty => {
                if actor.mail.settle_idle() {
                    return any;
                }
                if until.is_some_and(|u| finished(u.state())) {
                    // What came meanwhile is not the waiting caller's to run.
                    engine.push_actor(local, actor.clone());
                    return any;
                }
            }
        }
    }
}

/// Whether what a parked actor waits for is still to come.
fn still_parked(actor: &ActorRef) -> bool {
    let Some(more) = actor.more.get() else {
        return false;
    };
    // Written before a queue entry that may have come to nothing because the lock was held here: look after unlocking.
    let condemned = more.verdict.load(Ordering::SeqCst) != LIVE
        || more.isolate && host::dead_host(actor).is_some();
    if more.unborn.load(Ordering::SeqCst) {
        return !condemned;
    }
    if !condemned && actor.rests() {
        return true;
    }
    more.gate.get().is_some_and(|gate| {
        let gate = gate.lock();
        if condemned {
            gate.busy()
        } else {
            gate.parked()
        }
    })
}

impl Drain<'_> {
    fn turn(&self, engine: &Arc<Engine>, until: Option<&Record>) -> Stopped {
        let (actor, local) = (self.actor, self.local);
        let mut left = TURN;
        match actor.life() {
            Life::Alive => {}
            // A queue entry that is older than the death. The mailbox must stay shut.
            Life::Dead => return Stopped::Empty,
            Life::Starting => {
                if !engine.is_closing()
                    && let Some(more) = actor.more.get()
                    && more.unborn.load(Ordering::SeqCst)
                {
                    if more.verdict.load(Ordering::SeqCst) == LIVE {
                        return Stopped::Parked;
                    }
                    // It waits for arguments or resources that may never come: nothing is there to restart.
                    life::stillbirth(engine, local, actor, self.inner());
                    return Stopped::Empty;
                }
                if !life::construct(engine, local, actor, self.inner()) {
                    return Stopped::Empty;
                }
            }
        }
        loop {
            if engine.is_closing() {
                life::close(engine, local, actor, self.inner());
                return Stopped::Empty;
            }
            if let Some(more) = actor.more.get()
                && more.verdict.load(Ordering::SeqCst) != LIVE
            {
                if self.gate().is_some_and(|g| g.lock().busy()) {
                    // The state is in use; whoever leaves last comes back.
                    return Stopped::Parked;
                }
                if !life::condemned(engine, local, actor, self.inner()) {
                    return Stopped::Empty;
                }
            }
            if let Some(more) = actor.more.get()
                && more.isolate
                && let Some(dead) = host::dead_host(actor)
            {
                if self.gate().is_some_and(|g| g.lock().busy()) {
                    return Stopped::Parked;
                }
                if let Some(gate) = more.gate.get() {
                    // The head of the backlog asks anew, or fails.
                    let _ = gate.lock().unpark();
                }
                if !life::rise(engine, local, actor, self.inner(), &host::host_death(&dead)) {
                    return Stopped::Empty;
                }
            }
            if let Some(more) = actor.more.get()
                && let Some(backups) = more.backups()
                && backups.wants() != Wants::default()
                && self.keep_up(engine, &**backups)
            {
                return Stopped::Parked;
            }
            if left == 0 {
                return Stopped::More;
            }
            left -= 1;
            let next = self.next();
            if next.is_null() {
                return Stopped::Empty;
            }
            // SAFETY: the backlog owns a count of each of its records; this one is taken over.
            let record = unsafe { RawRef::from_raw(next) };
            // SAFETY: out of every list, so its link is ours.
            let after = unsafe { mail::next(next) };
            // SAFETY: as above.
            unsafe { mail::set_next(next, std::ptr::null_mut()) };
            match self.one(engine, record) {
                Step::Done => {}
                Step::Wait(record) => {
                    let node = record.into_raw();
                    // SAFETY: back to the head of the backlog, which is ours.
                    unsafe { mail::set_next(node, after) };
                    self.inner().backlog = node;
                    return Stopped::Parked;
                }
                Step::Again(record) => {
                    let node = record.into_raw();
                    // SAFETY: back to the head of the backlog, which is ours.
                    unsafe { mail::set_next(node, after) };
                    self.inner().backlog = node;
                    continue;
                }
                Step::Dead => return Stopped::Empty,
            }
            if until.is_some_and(|u| finished(u.state())) {
                return if self.inner().backlog.is_null() {
                    Stopped::Empty
                } else {
                    Stopped::More
                };
            }
        }
    }

    /// The next record, taken off the backlog, which is refilled from the mailbox.
    #[inline]
    fn next(&self) -> *mut Record {
        let (inner, taken) = (self.inner(), &self.actor.taken);
        let (next, n) = if inner.backlog.is_null() {
            self.actor.mail.take_counted()
        } else {
            (inner.backlog, taken.load(Ordering::Relaxed))
        };
        if !next.is_null() {
            // SAFETY: records in the backlog are ours, links included.
            inner.backlog = unsafe { mail::next(next) };
            // What was put back at the head is not counted anew.
            taken.store(n.saturating_sub(1), Ordering::Relaxed);
        }
        next
    }

    fn gate(&self) -> Option<&Mutex<Gate>> {
        self.actor.more.get().and_then(|m| m.gate.get())
    }

    /// Deals with one record from the mailbox.
    #[inline]
    fn one(&self, engine: &Arc<Engine>, record: RawRef) -> Step {
        match record.entry.kind {
            Kind::Object => {
                self.resolve_held();
                Step::Done
            }
            Kind::Stop => self.stop(engine, record),
            _ => {
                if let Some(more) = self.actor.more.get() {
                    return self.in_order(engine, more, record);
                }
                if cell::phase(record.state()) == Phase::Waiting {
                    return self.in_order(engine, self.actor.more(), record);
                }
                if record.entry.is_async() {
                    return self.admit(engine, record);
                }
                self.run_here(engine, record)
            }
        }
    }

    /// Holds a call back if its arguments, or an earlier call of its caller, are not ready.
    fn in_order(&self, engine: &Arc<Engine>, more: &More, record: RawRef) -> Step {
        // One that was held already must not be held again: others of its caller may still be, and they are later.
        if record.deps.load(Ordering::Relaxed) == RELEASED {
            return self.admit(engine, record);
        }
        let ready = cell::phase(record.state()) != Phase::Waiting;
        let mut order = more.order.lock();
        if ready && order.is_empty() {
            drop(order);
            return self.admit(engine, record);
        }
        if more.stop.lock().is_some() {
            // Sent after a stop that waits for calls which were held before it.
            drop(order);
            super::mailbox::unreserve(self.actor);
            life::fail(engine, self.local, &record, &self.actor.death());
            return Step::Done;
        }
        match order.arrive(record.caller, record.id, ready, record) {
            None => Step::Done,
            Some(record) => {
                drop(order);
                self.admit(engine, record)
            }
        }
    }

    /// Ends the actor, after the calls that came before the stop: those under way, and those held for their arguments.
    #[cold]
    fn stop(&self, engine: &Arc<Engine>, record: RawRef) -> Step {
        if let Some(more) = self.actor.more.get() {
            if !more.order.lock().is_empty() {
                more.stop.lock().get_or_insert(record);
                return Step::Done;
            }
            if let Some(gate) = more.gate.get()
                && gate.lock().admit(Access::Exclusive) == Admit::Wait
            {
                return Step::Wait(record);
            }
        }
        life::end(engine, self.local, self.actor, self.inner(), super::STOPPED);
        Step::Dead
    }

    /// Calls whose arguments came, and those that waited behind them.
    fn resolve_held(&self) {
        let Some(more) = self.actor.more.get() else {
            return;
        };
        let mut free = Vec::new();
        let all = {
            let resolved = std::mem::take(&mut *more.resolved.lock());
            let mut order = more.order.lock();
            for (caller, id) in resolved {
                order.resolved(caller, id, &mut free);
            }
            order.is_empty()
        };
        let stop = if all { more.stop.lock().take() } else { None };
        for record in &free {
            record.deps.store(RELEASED, Ordering::Relaxed);
        }
        // To the head of the backlog, in order: they arrived before everything in it.
        for record in stop.into_iter().chain(free.into_iter().rev()) {
            let (inner, node) = (self.inner(), record.into_raw());
            // SAFETY: out of every list; the backlog is ours.
            unsafe { mail::set_next(node, inner.backlog) };
            inner.backlog = node;
        }
    }

    /// Asks the gate, where there is one or must be one.
    fn admit(&self, engine: &Arc<Engine>, record: RawRef) -> Step {
        let more = self.actor.more();
        if let Some(far) = &more.far {
            super::away::send(self.local, &**far, record);
            return Step::Done;
        }
        let is_async = record.entry.is_async() && !more.isolate;
        if !is_async && more.max_concurrency <= 1 && more.gate.get().is_none() {
            return self.run_here(engine, record);
        }
        let gate = more
            .gate
            .get_or_init(|| Mutex::new(Gate::new(more.max_concurrency)));
        let access = access(record.entry.kind);
        if finished(record.state()) {
            // Cancelled meanwhile. If it was the head that the gate waits for, what is behind it asks anew.
            let _ = gate.lock().unpark();
            super::mailbox::unreserve(self.actor);
            return Step::Done;
        }
        if gate.lock().admit(access) == Admit::Wait {
            return Step::Wait(record);
        }
        if is_async {
            super::mailbox::unreserve(self.actor);
            self.launch(engine, &record, access);
            return Step::Done;
        }
        if access == Access::Shared && more.max_concurrency > 1 {
            super::mailbox::unreserve(self.actor);
            engine.push_started(self.local, record);
            return Step::Done;
        }
        let step = self.run_here(engine, record);
        if gate.lock().leave(access) {
            // Nothing can be parked while the drainer itself ran the call; be safe all the same.
            engine.push_actor(self.local, self.actor.clone());
        }
        step
    }

    #[cfg(feature = "async")]
    fn launch(&self, engine: &Arc<Engine>, record: &RawRef, access: Access) {
        if !record.claim() {
            super::apart::leave(engine, self.local, self.actor, access);
            return;
        }
        let state = StateRef(self.actor.state.load(Ordering::Relaxed));
        super::backups::turn(self.local, self.actor, record);
        super::super::tasks::launch_method(engine, record.clone(), state, access);
    }

    #[cfg(not(feature = "async"))]
    fn launch(&self, _: &Arc<Engine>, _: &RawRef, _: Access) {}

    /// Executes one call on this thread, under the run lock.
    #[inline]
    fn run_here(&self, engine: &Arc<Engine>, record: RawRef) -> Step {
        super::mailbox::unreserve(self.actor);
        if !record.claim() {
            return Step::Done; // cancelled
        }
        let state = self.actor.state.load(Ordering::Relaxed);
        if record.entry.kind == Kind::Consuming {
            return self.consume(engine, &record, state);
        }
        if self.inner().logged {
            return self.run_logged(engine, &record, StateRef(state));
        }
        if record.entry.kind == Kind::Checkpoint {
            engine.settle(self.local, &record, Ok(Err(history::none(self.actor))));
            return Step::Done;
        }
        let outcome = perform(self.local, &record, StateRef(state));
        let panicked = panicked(&outcome);
        engine.settle(self.local, &record, outcome);
        if panicked {
            return self.after_panic(engine, &record);
        }
        Step::Done
    }

    /// Runs a method that takes the state.
    #[cold]
    fn consume(&self, engine: &Arc<Engine>, record: &RawRef, mut state: *mut ()) -> Step {
        let outcome = if state == HOSTED {
            host::perform_there(self.local, record, &mut state)
        } else {
            perform(self.local, record, StateRef((&raw mut state).cast()))
        };
        let how = if panicked(&outcome) {
            " panicked while it consumed it"
        } else {
            super::show::CONSUMED
        };
        // A call whose arguments could not be read has not taken it.
        let taken = state.is_null();
        if taken {
            self.actor
                .state
                .store(std::ptr::null_mut(), Ordering::Relaxed);
        }
        engine.settle(self.local, record, outcome);
        if !taken {
            return Step::Done;
        }
        let cause = format!("{}{how}", record.entry.name);
        life::end(engine, self.local, self.actor, self.inner(), &cause);
        Step::Dead
    }

    #[cold]
    fn after_panic(&self, engine: &Arc<Engine>, record: &RawRef) -> Step {
        if !self.actor.more.get().is_some_and(|m| m.restart_on_panic) {
            return Step::Done;
        }
        let cause = format!("{} panicked", record.entry.name);
        if life::fall(engine, self.local, self.actor, self.inner(), &cause) {
            Step::Done
        } else {
            Step::Dead
        }
    }
}

enum Step {
    Done,
    Wait(RawRef),
    /// The process that had the state is gone: this one comes next when there is another.
    Again(RawRef),
    Dead,
}

/// Puts the value `()` into a claimed record of a call without arguments.
pub(super) fn give_unit(local: &Local, record: &RawRef) -> Result<(), Error> {
    // SAFETY: claimed; there are no arguments that anybody could borrow.
    unsafe { set_value(local, record, &()) }
}

pub(super) fn access(kind: Kind) -> Access {
    match kind {
        Kind::Shared | Kind::AsyncShared => Access::Shared,
        _ => Access::Exclusive,
    }
}

/// Whether the call panicked, here or in the actor's process.
pub(super) fn panicked(outcome: &std::thread::Result<Outcome>) -> bool {
    match outcome {
        Ok(Ok(())) => false,
        Ok(Err(CallError::Function(f))) => f.kind == FailureKind::Panicked,
        Ok(Err(CallError::Runtime(_))) => false,
        Err(_) => true,
    }
}
