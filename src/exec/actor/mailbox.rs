//! Calling: a record goes into the actor's mailbox, and the actor into a queue if it was idle.
//!
//! Invariant: whoever finds the mailbox idle queues the actor. Calls come out in the order they went in.
//! Left out: the mailbox itself (`mail`), executing calls (`run`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::call::CallWriter;
use super::super::cell::{self, Blank, Phase, RawRef};
use super::super::engine::Engine;
use super::super::entry::{CHECKPOINT, FnEntry, Kind};
use super::super::local::Local;
use super::super::mail::Pushed;
use super::{ActorCell, ActorRef};
use crate::base::Error;
use crate::trace::NOT_RECORDED;

/// Calls a method: the record of its result, which is queued or has failed already.
#[inline]
pub fn call(
    engine: &Arc<Engine>,
    local: &Local,
    actor: &ActorRef,
    entry: &'static FnEntry,
    writer: CallWriter<'_>,
) -> RawRef {
    if actor.born != local.generation() && actor.life() != super::Life::Dead {
        return refused(engine, local, actor, entry, writer.begun, Error::ShutDown);
    }
    if let Some(more) = actor.more.get()
        && more.max_pending > 0
        && let Err(e) = reserve(engine, local, actor)
    {
        return refused(engine, local, actor, entry, writer.begun, e);
    }
    let (refs, phase) = if writer.refers {
        (2, Phase::Waiting)
    } else {
        (2, Phase::Queued)
    };
    let blank = blank(local, writer.begun, entry, refs, phase, actor);
    let (record, refers) = writer.finish(blank, entry.result_size);
    if cell::phase(record.state()) == Phase::Failed {
        unreserve(actor);
        engine.note_refusal(local, &record);
        return record;
    }
    if refers {
        // Entered into its inputs' lists before it is in the mailbox: `call_ready` may come first and finds nothing held.
        engine.await_inputs(local, &record);
    }
    // SAFETY: the record was made with a second count, which the mailbox takes.
    let mail = unsafe { RawRef::from_raw(std::ptr::from_ref(&*record).cast_mut()) };
    engine.post(local, actor, mail);
    record
}

#[cold]
fn refused(
    engine: &Engine,
    local: &Local,
    actor: &ActorRef,
    entry: &'static FnEntry,
    begun: u64,
    why: Error,
) -> RawRef {
    let record = cell::failed(blank(local, begun, entry, 1, Phase::Failed, actor), why);
    engine.note_refusal(local, &record);
    record
}

#[inline]
fn blank(
    local: &Local,
    begun: u64,
    entry: &'static FnEntry,
    refs: u32,
    phase: Phase,
    actor: &ActorRef,
) -> Blank {
    Blank {
        entry,
        refs,
        phase,
        caller: local.caller(),
        id: local.next_id(begun),
        target: Some(actor.clone()),
        extra: None,
        caps: None,
    }
}

/// Entries of records that carry no call.
static STOP: FnEntry = FnEntry::inert("stop", Kind::Stop);
static POKE: FnEntry = FnEntry::inert("poke", Kind::Object);

/// Has the actor save its state, after the calls that this caller has sent: a call that gives nothing.
pub fn checkpoint(engine: &Arc<Engine>, local: &Local, actor: &ActorRef) -> RawRef {
    let begun = local.lane.begin();
    let why = if actor.born != local.generation() && actor.life() != super::Life::Dead {
        Some(Error::ShutDown)
    } else {
        actor
            .more
            .get()
            .filter(|m| m.max_pending > 0)
            .and_then(|_| reserve(engine, local, actor).err())
    };
    if let Some(why) = why {
        return refused(engine, local, actor, &CHECKPOINT, begun, why);
    }
    let blank = blank(local, begun, &CHECKPOINT, 1, Phase::Queued, actor);
    // SAFETY: no slots.
    let record = unsafe { cell::with_args(blank, 0, &[], cell::BODY, 0) };
    engine.post(local, actor, record.clone());
    record
}

/// A record that makes the drainer look at the actor's other state.
pub(super) fn control(local: &Local, actor: &ActorRef, stop: bool) -> RawRef {
    local.books().no_call();
    let entry = if stop { &STOP } else { &POKE };
    // SAFETY: no slots.
    unsafe {
        cell::with_args(
            blank(local, NOT_RECORDED, entry, 1, Phase::Queued, actor),
            0,
            &[],
            cell::BODY,
            0,
        )
    }
}

/// Has somebody look at the actor, also one that is parked.
pub(super) fn poke(actor: &ActorRef) {
    let _ = super::super::local::with(|local| {
        let engine = Arc::clone(&local.engine);
        let poke = control(local, actor, false);
        engine.post(local, actor, poke);
        // It may be parked, with nobody to come: one more entry does no harm.
        engine.push_actor(local, actor.clone());
    });
}

impl Engine {
    /// Puts a record into an actor's mailbox and sees to it that somebody comes.
    #[inline]
    pub(in super::super) fn post(
        self: &Arc<Engine>,
        local: &Local,
        actor: &ActorRef,
        mail: RawRef,
    ) {
        let node = mail.into_raw();
        // SAFETY: the node comes with a count, which the mailbox takes over.
        match unsafe { actor.mail.push(node) } {
            Pushed::Queued => {}
            Pushed::Woke => self.push_actor(local, actor.clone()),
            Pushed::Refused => {
                // SAFETY: refused, so the count is still ours.
                let mail = unsafe { RawRef::from_raw(node) };
                unreserve(actor);
                if mail.entry.kind != Kind::Stop && mail.entry.kind != Kind::Object {
                    super::life::fail(self, local, &mail, &actor.death());
                }
            }
        }
    }

    /// Queues an actor that has mail.
    #[inline]
    pub(in super::super) fn push_actor(self: &Arc<Engine>, local: &Local, actor: ActorRef) {
        let before = local.tasks.len() + local.actors.len();
        local.actors.push(actor);
        local.count_push();
        self.crew.notify(before);
        if self.is_closing() {
            self.drain_local(local);
        }
    }
}

/// Takes a place in a bounded mailbox; waits for one, or drains the actor itself, or fails.
#[cold]
fn reserve(engine: &Arc<Engine>, local: &Local, actor: &ActorRef) -> Result<(), Error> {
    let more = actor.more();
    let full = || Error::MailboxFull {
        actor: actor.entry.name,
        max_pending: more.max_pending,
    };
    loop {
        let took = more
            .pending
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                (n < more.max_pending).then_some(n + 1)
            });
        if took.is_ok() {
            return Ok(());
        }
        if more.fail_when_full || local.on_stack.borrow().contains(&actor.mark()) {
            // Waiting for oneself would never end.
            return Err(full());
        }
        if engine.is_closing() {
            return Err(Error::ShutDown);
        }
        if super::run::drain_here(engine, local, actor, None)
            && more.pending.load(Ordering::Acquire) < more.max_pending
        {
            continue;
        }
        let block = engine.block(local, (actor.entry.name, actor.id, 1));
        let mut guard = more.room.0.lock();
        if more.pending.load(Ordering::Acquire) >= more.max_pending {
            // The timeout only bounds how long a shutdown goes unnoticed.
            super::super::tasks::aside(|| {
                more.room.1.wait_for(&mut guard, Duration::from_millis(50));
            });
        }
        drop(guard);
        drop(block);
    }
}

/// Takes the place in a bounded mailbox that a call has given back, which runs again.
#[cold]
pub(super) fn reserve_again(actor: &ActorCell) {
    if let Some(more) = actor.more.get().filter(|m| m.max_pending > 0) {
        more.pending.fetch_add(1, Ordering::AcqRel);
    }
}

/// Gives a place in a bounded mailbox back.
#[inline]
pub(super) fn unreserve(actor: &ActorCell) {
    if let Some(more) = actor.more.get()
        && more.max_pending > 0
    {
        let _ = more
            .pending
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
        drop(more.room.0.lock());
        more.room.1.notify_one();
    }
}
