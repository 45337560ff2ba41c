//! An actor's birth, restarts and death.
//!
//! Invariant: after death every call, queued, held or yet to come, fails with the cause, and the state, the name and
//! the resources are gone. All functions with `inner` run under the run lock. Left out: recovery; restart is by constructor.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::super::call::{CallError, CallWriter};
use super::super::cell::{self, Blank, Phase, RawRef, Record};
use super::super::engine::Engine;
use super::super::entry::{ActorEntry, Kind};
use super::super::events;
use super::super::local::{self, Local};
use super::super::mail::{self, Mail, RunLock};
use super::super::options::{self, Extra, Options};
use super::{
    ActorCell, ActorRef, DIE, HandleRef, Inner, LIVE, Life, Line, More, RESTART, STOPPED, host,
    wrong_type,
};
use crate::base::{Defaults, Demand, Error, FailureKind, Units};
use crate::trace::Turn;

pub(super) fn new_cell(
    entry: &'static ActorEntry,
    (id, born): (u64, u64),
    more: Option<Box<More>>,
    handles: u32,
    mail: Mail<Record>,
) -> ActorRef {
    let cell = Box::new(ActorCell {
        _callers: Line,
        refs: AtomicUsize::new(1),
        mail,
        _both: Line,
        life: AtomicU8::new(Life::Starting as u8),
        handles: AtomicU32::new(handles),
        entry,
        state: AtomicPtr::new(std::ptr::null_mut()),
        _drainer: Line,
        run: RunLock::new(),
        inner: UnsafeCell::new(Inner {
            backlog: std::ptr::null_mut(),
            init: None,
        }),
        more: more.map_or_else(OnceLock::new, OnceLock::from),
        id,
        born,
        place: AtomicU32::new(super::roll::NOWHERE),
        taken: AtomicU32::new(0),
    });
    ActorRef(NonNull::from(Box::leak(cell)))
}

/// A handle to an actor that never lived: its calls fail with `why`.
pub fn stillborn(entry: &'static ActorEntry, why: &Error) -> HandleRef {
    let more = More::new();
    *more.cause.lock() = Some(Arc::from(format!("it could not be created: {why}")));
    let actor = new_cell(entry, (0, 0), Some(Box::new(more)), 1, Mail::closed());
    actor.life.store(Life::Dead as u8, Ordering::Release);
    HandleRef(actor)
}

fn more(
    options: &Options,
    d: &Defaults,
    demand: &Demand,
    (isolate, memory): (bool, Option<u64>),
) -> Option<Box<More>> {
    let more = More {
        name: options.name.as_deref().or(d.name).map(Arc::from),
        max_concurrency: options
            .max_concurrency
            .or(d.max_concurrency)
            .unwrap_or(1)
            .max(1),
        max_restarts: options.max_restarts.or(d.max_restarts).unwrap_or(0),
        restart_on_panic: options
            .restart_on_panic
            .or(d.restart_on_panic)
            .unwrap_or(false),
        max_pending: options.max_pending.or(d.max_pending).unwrap_or(0),
        fail_when_full: options.fail_when_full,
        isolate,
        memory,
        ..More::new()
    };
    let plain = more.name.is_none()
        && more.max_concurrency == 1
        && more.max_restarts == 0
        && !more.restart_on_panic
        && more.max_pending == 0
        && !isolate
        && *demand == Demand::NONE;
    (!plain).then(|| Box::new(more))
}

/// Creates an actor: returns at once; its constructor runs on an executor, or on the first caller's thread.
///
/// Fails when the name is taken, an amount is no number, or the node can never have the resources.
pub fn create(
    engine: &Arc<Engine>,
    local: &Local,
    entry: &'static ActorEntry,
    writer: CallWriter<'_>,
    given: Option<&Options>,
) -> Result<HandleRef, Error> {
    if let Some(far) = engine.far()
        && let Some(elsewhere) = elsewhere(&**far, local, entry, given)?
    {
        return create_there(local, entry, writer, given, elsewhere);
    }
    let (begun, refers) = (writer.begun, writer.refers);
    create_here(engine, local, entry, (begun, refers), given, |blank| {
        writer.finish(blank, 0).0
    })
}

/// Creates an actor here for another node: `init` makes the constructor's call, which has references among its arguments if
/// `refers`. Fails as [`create`] does.
#[cfg(feature = "cluster")]
pub fn create_for(
    engine: &Arc<Engine>,
    local: &Local,
    entry: &'static ActorEntry,
    refers: bool,
    given: &Options,
    init: impl FnOnce(Blank) -> RawRef,
) -> Result<HandleRef, Error> {
    let begun = local.lane.begin();
    create_here(engine, local, entry, (begun, refers), Some(given), init)
}

/// Whether another node is to make it.
fn elsewhere(
    far: &dyn super::super::far::Far,
    local: &Local,
    entry: &'static ActorEntry,
    given: Option<&Options>,
) -> Result<Option<super::super::far::Elsewhere>, Error> {
    let none = Options::default();
    let o = given.unwrap_or(&none);
    if given.is_none() && entry.defaults == Defaults::NONE {
        return Ok(None);
    }
    let demand = options::demand(o, &entry.defaults, Units::ZERO)?;
    if let Some(why) = far.lacks(&demand) {
        return Err(why);
    }
    far.create(local, entry, o, &demand)
}

fn create_here(
    engine: &Arc<Engine>,
    local: &Local,
    entry: &'static ActorEntry,
    (begun, refers): (u64, bool),
    given: Option<&Options>,
    init: impl FnOnce(Blank) -> RawRef,
) -> Result<HandleRef, Error> {
    if let Some(why) = engine.refuses() {
        return Err(why.clone());
    }
    let d = &entry.defaults;
    let (more, demand, detached, adopt) = match given {
        None if *d == Defaults::NONE => (None, Demand::NONE, false, false),
        given => {
            let none = Options::default();
            let o = given.unwrap_or(&none);
            let demand = options::demand(o, d, Units::ZERO)?;
            if let Some(why) = engine.admission.lock().ledger.capacity().lacks(&demand) {
                return Err(why.into());
            }
            let isolation = options::isolation(o, d)?;
            (
                more(o, d, &demand, isolation),
                demand,
                o.detached,
                o.get_or_create,
            )
        }
    };
    let name = more.as_ref().and_then(|m| m.name.clone());
    let id = local.next_id(begun);
    if let (Some(name), Some(far)) = (&name, engine.far())
        && let Some(theirs) = far.claim_name(local, name, id, entry)?
    {
        let living = theirs.actor();
        if !adopt {
            let (name, actor) = (name.to_string(), living.entry.name);
            return Err(Error::NameTaken { name, actor });
        }
        if !std::ptr::eq(living.entry, entry) {
            return Err(wrong_type(name, entry, living));
        }
        return Ok(theirs);
    }
    // The name is claimed before the actor exists, so that two creators cannot both win.
    let mut names = name.as_ref().map(|_| engine.names.lock());
    if let (Some(names), Some(name)) = (&names, &name)
        // One that nobody has a handle to any more only finishes its calls: its name is free.
        && let Some(living) = names.get(name).filter(|a| a.is_held())
    {
        if !adopt {
            let (name, actor) = (name.to_string(), living.entry.name);
            return Err(Error::NameTaken { name, actor });
        }
        if !std::ptr::eq(living.entry, entry) {
            return Err(wrong_type(name, entry, living));
        }
        if let Some(handle) = HandleRef::upgrade(living) {
            return Ok(handle);
        }
    }
    let waits = refers || demand != Demand::NONE;
    let more = match (more, waits) {
        (Some(m), true) => Some(Box::new(More {
            unborn: AtomicBool::new(true),
            ledger_id: id,
            ..*m
        })),
        (None, true) => Some(Box::new(More {
            unborn: AtomicBool::new(true),
            ..More::new()
        })),
        (m, false) => m,
    };
    let handles = if detached { 2 } else { 1 };
    let actor = new_cell(entry, (id, local.generation()), more, handles, Mail::busy());
    let blank = Blank {
        entry: &entry.constructor,
        refs: 1,
        phase: if waits { Phase::Waiting } else { Phase::Queued },
        caller: local.caller(),
        id,
        target: waits.then(|| actor.clone()),
        extra: (demand != Demand::NONE).then(|| Box::new(Extra::of_actor(demand))),
        caps: None,
    };
    let init = init(blank);
    if cell::phase(init.state()) == Phase::Failed {
        drop(names);
        return Err(init.error());
    }
    let before = match (&mut names, name) {
        (Some(names), Some(name)) => names.insert(name, actor.clone()),
        _ => None,
    };
    drop(names);
    drop(before);
    // SAFETY: nobody else has the actor yet but the table of names, through which only mail can be sent; being
    // busy, it makes nobody drain, so this thread is alone with `inner`.
    unsafe { (*actor.inner.get()).init = Some(init.clone()) };
    super::roll::enter(&actor);
    if waits {
        engine.await_inputs(local, &init);
    } else {
        drop(init);
        engine.push_actor(local, actor.clone());
    }
    Ok(HandleRef(actor))
}

/// Has another node make the actor: its constructor's call is sent, and calls of its methods after it.
fn create_there(
    local: &Local,
    entry: &'static ActorEntry,
    writer: CallWriter<'_>,
    given: Option<&Options>,
    elsewhere: super::super::far::Elsewhere,
) -> Result<HandleRef, Error> {
    let blank = Blank {
        entry: &entry.constructor,
        refs: 1,
        phase: Phase::Running,
        caller: local.caller(),
        id: local.next_id(writer.begun),
        target: None,
        extra: None,
        caps: None,
    };
    let (init, _) = writer.finish(blank, 0);
    if cell::phase(init.state()) == Phase::Failed {
        return Err(init.error());
    }
    let name = given
        .and_then(|o| o.name.as_deref())
        .or(entry.defaults.name);
    elsewhere(local, &init, name)
}

impl ActorRef {
    /// The constructor's arguments are settled: now its resources.
    pub(in super::super) fn constructor_ready(&self, local: &Local, init: &RawRef) {
        let engine = Arc::clone(&local.engine);
        let parked = init.demand().cloned().is_some_and(|demand| {
            engine.with_ledger(local, |a, out| {
                // Looked at under the lock: a shutdown empties the table after it has said that it closes.
                let open = !engine.is_closing();
                // One that was killed meanwhile will not come to give resources back: see `release_resources`.
                if open && self.life() != Life::Dead {
                    a.park(init, demand, 0, out);
                }
                open
            })
        });
        if !parked {
            self.admitted(local, init);
        }
    }

    /// Its resources are there: it may be born.
    pub(in super::super) fn admitted(&self, local: &Local, init: &RawRef) {
        init.make_ready();
        self.more().unborn.store(false, Ordering::SeqCst);
        local.engine.push_actor(local, self.clone());
    }

    /// The runtime closes: everything still in the mailbox fails.
    pub(in super::super) fn close(&self, local: &Local) {
        let engine = Arc::clone(&local.engine);
        super::run::drain_here(&engine, local, self, None);
    }
}

/// Runs the constructor; false if the actor is dead after it.
pub(super) fn construct(
    engine: &Arc<Engine>,
    local: &Local,
    actor: &ActorRef,
    inner: &mut Inner,
) -> bool {
    if engine.is_closing() {
        close(engine, local, actor, inner);
        return false;
    }
    loop {
        let Some(init) = inner.init.clone() else {
            return false;
        };
        let mut state: *mut () = std::ptr::null_mut();
        let outcome = if actor.more.get().is_some_and(|m| m.isolate) {
            Ok(host::construct_there(
                engine, local, actor, &init, &mut state,
            ))
        } else {
            super::run::construct_here(local, &init, &mut state)
        };
        let why = match outcome {
            Ok(Ok(())) => {
                events::born(local, actor, &init);
                actor.state.store(state, Ordering::Relaxed);
                if actor.more.get().is_none_or(|m| m.max_restarts == 0) {
                    inner.init = None;
                }
                actor.life.store(Life::Alive as u8, Ordering::Release);
                return true;
            }
            Ok(Err(CallError::Runtime(e @ Error::WorkerDied(_)))) => e.to_string(),
            Ok(Err(CallError::Runtime(e))) => {
                events::failed(local, &init, &e);
                // An argument failed, or it was cancelled: another try would end the same way.
                let cause = format!("its constructor failed: {e}");
                end(engine, local, actor, inner, &cause);
                return false;
            }
            Ok(Err(CallError::Function(mut f))) => {
                f.function = init.entry.name;
                if f.kind != FailureKind::Panicked {
                    f.location = format!("{}:{}", init.entry.file, init.entry.line);
                }
                f.to_string()
            }
            Err(payload) => {
                let mut f = super::super::panics::failure(payload);
                debug_assert_eq!(f.kind, FailureKind::Panicked);
                f.function = init.entry.name;
                f.to_string()
            }
        };
        events::failed_to_be_born(local, &init, &why);
        if !may_restart(actor) {
            let cause = no_restart_left(actor, &format!("its constructor failed: {why}"));
            end(engine, local, actor, inner, &cause);
            return false;
        }
    }
}

/// A cause of death, with why the actor is not made again.
fn no_restart_left(actor: &ActorCell, cause: &str) -> String {
    match actor.more.get().map_or(0, |m| m.max_restarts) {
        0 => cause.to_owned(),
        n if cause.contains('\n') => format!("all {n} of its restarts are used up, and {cause}"),
        n => format!("{cause}, and all {n} of its restarts are used up"),
    }
}

/// Counts a restart, if one is left.
fn may_restart(actor: &ActorRef) -> bool {
    actor.more.get().is_some_and(|m| {
        m.restarts
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                (n < m.max_restarts).then_some(n + 1)
            })
            .is_ok()
    })
}

/// The actor falls: made again if it may be, else dead. False if dead.
pub(super) fn fall(
    engine: &Arc<Engine>,
    local: &Local,
    actor: &ActorRef,
    inner: &mut Inner,
    cause: &str,
) -> bool {
    if inner.init.is_none() || !may_restart(actor) {
        end(engine, local, actor, inner, &no_restart_left(actor, cause));
        return false;
    }
    events::actor(local, Turn::Restarted, actor, Some(cause));
    drop_state(actor);
    actor.life.store(Life::Starting as u8, Ordering::Release);
    construct(engine, local, actor, inner)
}

/// Carries a verdict out, when nothing runs any more. False if the actor is dead after it.
pub(super) fn condemned(
    engine: &Arc<Engine>,
    local: &Local,
    actor: &ActorRef,
    inner: &mut Inner,
) -> bool {
    let more = actor.more();
    if let Some(gate) = more.gate.get() {
        // The head of the backlog asks anew, or fails.
        let _ = gate.lock().unpark();
    }
    let (verdict, cause) = take_verdict(more);
    if verdict == RESTART {
        return fall(engine, local, actor, inner, &cause);
    }
    end(engine, local, actor, inner, &cause);
    false
}

fn take_verdict(more: &More) -> (u8, Arc<str>) {
    let mut sentence = more.sentence.lock();
    let verdict = more.verdict.swap(LIVE, Ordering::SeqCst);
    (
        verdict,
        sentence.take().unwrap_or_else(|| Arc::from(super::KILLED)),
    )
}

/// Ends an actor that was condemned before its constructor could run.
pub(super) fn stillbirth(engine: &Arc<Engine>, local: &Local, actor: &ActorRef, inner: &mut Inner) {
    let (_, cause) = take_verdict(actor.more());
    end(
        engine,
        local,
        actor,
        inner,
        &format!("{cause} before its constructor ran"),
    );
}

/// Passes a verdict: the drainer carries it out.
pub(super) fn condemn(actor: &ActorRef, restart: bool, cause: &str) {
    if actor.life() == Life::Dead {
        return;
    }
    let more = actor.more();
    let verdict = if restart { RESTART } else { DIE };
    {
        let mut sentence = more.sentence.lock();
        if more.verdict.fetch_max(verdict, Ordering::SeqCst) < verdict {
            *sentence = Some(Arc::from(cause));
        }
    }
    #[cfg(feature = "async")]
    {
        // Async calls end at their next await; they put themselves out of the table.
        let wakers = super::super::futures::Polled::wakers(&more.wakers);
        wakers.into_iter().for_each(std::task::Waker::wake);
    }
    if !restart && let Some(host) = actor.hosted() {
        host.kill(); // what runs there ends now
    }
    super::mailbox::poke(actor);
}

/// Ends the actor: its state, name and resources go, and all its calls fail.
pub(super) fn end(
    engine: &Arc<Engine>,
    local: &Local,
    actor: &ActorRef,
    inner: &mut Inner,
    cause: &str,
) {
    let more = actor.more();
    *more.cause.lock() = Some(Arc::from(cause));
    super::show::died(engine, actor, cause);
    let death = actor.death();
    events::died(local, actor, cause, cause == STOPPED);
    if let Some(far) = engine.far()
        && actor.far().is_none()
    {
        if let Some(name) = &more.name {
            far.free_name(name, actor.id);
        }
        far.ended(actor.id, cause);
    }
    finish(engine, local, actor, inner, &death, |_| false);
    if let Some(far) = actor.far() {
        far.gone();
    }
}

/// As [`end`], because the runtime closes.
pub(super) fn close(engine: &Arc<Engine>, local: &Local, actor: &ActorRef, inner: &mut Inner) {
    *actor.more().cause.lock() = Some(Arc::from("mobula was shut down"));
    // Calls that run apart may still use the state; the last of them drops it.
    let in_use = |more: &More| more.gate.get().is_some_and(|g| g.lock().busy());
    finish(engine, local, actor, inner, &Error::ShutDown, in_use);
}

fn finish(
    engine: &Arc<Engine>,
    local: &Local,
    actor: &ActorRef,
    inner: &mut Inner,
    error: &Error,
    in_use: impl FnOnce(&More) -> bool,
) {
    let more = actor.more();
    actor.life.store(Life::Dead as u8, Ordering::Release);
    if !in_use(more) {
        drop_state(actor);
    }
    inner.init = None;
    if let Some(name) = &more.name {
        let mut names = engine.names.lock();
        if names.get(name).is_some_and(|a| a.same(actor)) {
            names.remove(name);
        }
    }
    give_back(engine, local, more.ledger_id);
    let backlog = std::mem::replace(&mut inner.backlog, std::ptr::null_mut());
    for mut next in [backlog, actor.mail.close()] {
        while !next.is_null() {
            // SAFETY: both lists are ours and own their records.
            let record = unsafe { RawRef::from_raw(next) };
            // SAFETY: as above.
            next = unsafe { mail::next(next) };
            fail(engine, local, &record, error);
        }
    }
    let held = more.order.lock().drain();
    for record in held {
        fail(engine, local, &record, error);
    }
    drop(more.stop.lock().take());
    drop(std::mem::take(&mut *more.resolved.lock()));
    more.pending.store(0, Ordering::Release);
    drop(more.room.0.lock());
    more.room.1.notify_all();
}

/// Ends a call that is not executed, unless it has ended.
pub(super) fn fail(engine: &Arc<Engine>, local: &Local, record: &RawRef, error: &Error) {
    if matches!(record.entry.kind, Kind::Stop | Kind::Object) {
        return;
    }
    // Its arguments may become ready between the two tries.
    while cell::phase(record.state()) < Phase::Running {
        if !engine.fail_queued(local, record, error.clone()) {
            engine.fail_waiting(local, record, error.clone());
        }
    }
}

/// Drops the state, if there is one; a panic in it is reported, for there is nobody to tell.
///
/// The caller knows that no call runs: it holds the run lock and the gate lets nobody in, or the actor is dead.
pub(super) fn drop_state(actor: &ActorCell) {
    let state = actor.state.swap(std::ptr::null_mut(), Ordering::AcqRel);
    if actor.more.get().is_some_and(|m| m.isolate) {
        return host::drop_there(actor); // its process ends, also if the state was consumed
    }
    if state.is_null() {
        return;
    }
    // SAFETY: the state is a leaked box of this entry's actor, taken out of its place here, once.
    let drop_it = || unsafe { (actor.entry.drop_state)(state) };
    if let Err(payload) = catch_unwind(AssertUnwindSafe(drop_it)) {
        let mut f = super::super::panics::failure(payload);
        f.function = actor.entry.name;
        super::super::report::unobserved(&Error::TaskFailed(Arc::new(f)));
    }
}

/// Gives up what the ledger holds, or keeps in line, for an actor.
fn give_back(engine: &Arc<Engine>, local: &Local, id: u64) {
    if id != 0 {
        // What the constructor was to get may go with it, and must not under the ledger's lock.
        let parked = engine.with_ledger(local, |a, out| {
            if !a.ledger.finish(id, out) {
                a.ledger.cancel(id, out);
            }
            a.parked.remove(&id)
        });
        drop(parked);
    }
}

/// What is left to give back by an actor that is freed without having ended: a detached one that nobody can reach.
pub(super) fn release_resources(actor: &ActorCell) {
    if actor.life() != Life::Dead
        && let Some(id) = actor.more.get().map(|m| m.ledger_id).filter(|id| *id != 0)
    {
        let _ = local::with(|local| give_back(&Arc::clone(&local.engine), local, id));
    }
}

/// The last handle is gone: the actor ends after the calls it has.
#[cold]
pub(super) fn abandoned(actor: &ActorRef) {
    if actor.life() != Life::Dead && !stop(actor) {
        bury(actor);
    }
}

/// Ends the actor after the calls that are in its mailbox now. False without a runtime.
pub fn stop(actor: &ActorRef) -> bool {
    if actor.life() == Life::Dead {
        return true;
    }
    let stopped = local::with(|local| {
        let engine = Arc::clone(&local.engine);
        let stop = super::mailbox::control(local, actor, true);
        engine.post(local, actor, stop);
    });
    stopped.is_ok()
}

/// Ends an actor whose runtime is gone: nobody else will. What it was made with may refer to it, so it would never be
/// freed.
fn bury(actor: &ActorRef) {
    if !actor.run.try_lock() {
        return; // left behind on some thread, which sees to it
    }
    actor.life.store(Life::Dead as u8, Ordering::Release);
    // SAFETY: the run lock was taken above.
    let (init, mut next) = unsafe {
        let inner = &mut *actor.inner.get();
        (
            inner.init.take(),
            std::mem::replace(&mut inner.backlog, std::ptr::null_mut()),
        )
    };
    let mail = actor.mail.close();
    let busy = actor
        .more
        .get()
        .and_then(|m| m.gate.get())
        .is_some_and(|g| g.lock().busy());
    // SAFETY: taken above; what it guards is not touched any more.
    unsafe { actor.run.unlock() };
    if !busy {
        drop_state(actor);
    }
    drop(init);
    for list in [next, mail] {
        next = list;
        while !next.is_null() {
            // SAFETY: both lists are ours and own their records.
            let record = unsafe { RawRef::from_raw(next) };
            // SAFETY: as above.
            next = unsafe { mail::next(next) };
            if record.claim() || record.claim_waiting() {
                super::super::wait::settle_without_runtime(&record);
            }
        }
    }
}

/// Ends the actor as soon as the calls that run now have ended; the rest fail.
pub fn kill(actor: &ActorRef) {
    if let Some(far) = actor.far() {
        return far.kill(false);
    }
    condemn(actor, false, super::KILLED);
}

/// As [`kill`], but the actor is made again by its constructor if a restart is left.
pub fn restart(actor: &ActorRef) {
    if let Some(far) = actor.far() {
        return far.kill(true);
    }
    condemn(actor, true, "it was told to restart");
}
