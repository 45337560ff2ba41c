//! An actor's constructor, restarts and death.
//!
//! Invariant: after death every call, queued, held or yet to come, fails with the cause, and the state, the name and
//! the resources are gone. All functions with `inner` run under the run lock. Left out: what
//! is kept of its history (`history`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::call::CallError;
use super::super::cell::{self, Phase, RawRef};
use super::super::engine::Engine;
use super::super::entry::Kind;
use super::super::events;
use super::super::far::Parcel;
use super::super::local::{self, Local};
use super::super::mail;
use super::{ActorCell, ActorRef, DIE, Inner, LIVE, Life, More, RESTART, STOPPED, host};
use crate::base::{Error, FailureKind};
use crate::trace::{Deed, Turn};

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
        let revives = inner.restore.take();
        let mut restoring = revives.or_else(|| inner.history.as_ref()?.restoring(local, actor));
        // Its arguments may be gone when it has run.
        let packed = actor.backups().map(|_| Parcel::pack(local, &init).ok());
        let call = restoring.as_ref().unwrap_or(&init);
        let begin = events::now();
        let outcome = if actor.more.get().is_some_and(|m| m.isolate) {
            Ok(host::construct_there(
                engine, local, actor, call, &mut state,
            ))
        } else {
            super::run::construct_here(local, call, &mut state)
        };
        let restored = restoring.take().is_some();
        let outcome = match outcome {
            Ok(Ok(())) => {
                actor.state.store(state, Ordering::Relaxed);
                // One that another node had may have been made by its constructor there, and never saved.
                let kept = actor
                    .backups()
                    .map(|backups| (backups.kept().1, backups.look().0));
                if restored || kept.is_some_and(|(incarnation, _)| incarnation > 1) {
                    let from = kept.map_or_else(|| actor.more().shown.look(), |(_, from)| from);
                    events::kept(
                        local,
                        Deed::Revive,
                        actor,
                        begin,
                        from.saved,
                        from.state_bytes,
                    );
                }
                let replayed = inner.history.as_ref();
                let replayed = replayed.map_or(Ok(()), |h| h.replay(engine, local, actor));
                if replayed.is_err() {
                    drop_state(actor);
                    if actor.is_condemned() {
                        return condemned(engine, local, actor, inner);
                    }
                }
                Ok(replayed.map_err(CallError::Runtime))
            }
            outcome => outcome,
        };
        let why = match outcome {
            Ok(Ok(())) => {
                events::born(local, actor, &init);
                if actor.more.get().is_none_or(|m| m.max_restarts == 0) {
                    inner.init = None;
                }
                if let (Some(backups), Some(packed)) = (actor.backups(), packed) {
                    backups.born(local, packed);
                }
                actor.life.store(Life::Alive as u8, Ordering::Release);
                return true;
            }
            Ok(Err(CallError::Runtime(e @ Error::WorkerDied(_)))) => e.to_string(),
            Ok(Err(CallError::Runtime(Error::ShutDown))) => {
                close(engine, local, actor, inner);
                return false;
            }
            Ok(Err(CallError::Runtime(e))) => {
                events::failed(local, &init, &e);
                // An argument failed, or it was cancelled: another try would end the same way.
                let restores = inner.history.as_ref().is_some_and(|h| h.has_any());
                let what = match restores {
                    true => "its state could not be brought back",
                    false => "its constructor failed",
                };
                let cause = format!("{what}: {e}");
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

/// The actor falls: made anew by its constructor if it may be, else dead. False if dead.
pub(super) fn fall(
    engine: &Arc<Engine>,
    local: &Local,
    actor: &ActorRef,
    inner: &mut Inner,
    cause: &str,
) -> bool {
    let anew = |h: &mut Box<super::history::History>| h.begin_anew(&actor.more().shown);
    inner.history.as_mut().into_iter().for_each(anew);
    let lives = rise(engine, local, actor, inner, cause);
    if lives && let Some(backups) = actor.backups() {
        backups.anew(local);
    }
    lives
}

/// As [`fall`], but its state is as it was, if its history is kept.
pub(super) fn rise(
    engine: &Arc<Engine>,
    local: &Local,
    actor: &ActorRef,
    inner: &mut Inner,
    cause: &str,
) -> bool {
    if let Some(history) = inner.history.as_mut().filter(|h| h.is_given_up()) {
        history.begin_anew(&actor.more().shown);
    }
    if inner.init.is_none() || !may_restart(actor) {
        end(engine, local, actor, inner, &no_restart_left(actor, cause));
        return false;
    }
    events::actor(local, Turn::Restarted, actor, Some(cause));
    super::show::tell(engine, actor, cause, true);
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

/// Ends an actor whose placement group is no more, or never was here.
pub(in super::super) fn condemn_of_group(actor: &ActorRef, cause: &str) {
    condemn(actor, false, cause);
}

/// Ends an actor in a process of its own that runs a call of a dead node, if nobody has a handle: it cannot end in order before that
/// call has, for which nobody waits and which may not look whether it is to stop. False: that is done, or there is no need.
#[cfg(feature = "cluster")]
pub fn forsake(actor: &ActorRef, call: &RawRef, cause: impl FnOnce() -> String) -> bool {
    if cell::finished(call.state()) || actor.hosted().is_none() {
        return false;
    }
    let wanted = actor.handles.load(Ordering::Acquire) > 0;
    if !wanted {
        condemn(actor, false, &cause());
    }
    wanted
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
    inner.history = None;
    inner.restore = None;
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
            if !a.finish(id, out) {
                a.cancel(id, out);
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
            (inner.init.take(), inner.history.take()),
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
