//! The mailbox: a list that callers push onto and the drainer takes whole.
//!
//! A push is one compare-and-swap; the drainer swaps the list out and turns it around, so that per call it touches
//! shared memory once a batch. The same word says whether the actor is idle, so the caller that wakes it knows it.
//!
//! Invariant: whoever changes `IDLE` to anything else queues the actor. Calls come out in the order they went in.
//! Left out: executing them (`run`).

use std::ptr::without_provenance_mut;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::call::CallWriter;
use super::super::cell::{self, Blank, Phase, RawRef, Record};
use super::super::engine::Engine;
use super::super::entry::{FnEntry, Kind};
use super::super::local::Local;
use super::{ActorCell, ActorRef};
use crate::base::Error;

/// No mail, nobody drains.
pub(super) const IDLE: *mut Record = without_provenance_mut(0);
/// No mail, but queued, drained or waiting for a call under way.
pub(super) const BUSY: *mut Record = without_provenance_mut(1);
/// No mail is taken.
pub(super) const DEAD: *mut Record = without_provenance_mut(2);

fn is_record(p: *mut Record) -> bool {
    p.addr() > DEAD.addr()
}

/// What a push found.
pub(super) enum Pushed {
    /// The actor was idle: the caller must queue it.
    Woke,
    /// Somebody will come to it.
    Queued,
    /// The actor is dead; the record comes back.
    Refused(RawRef),
}

impl ActorCell {
    #[inline]
    pub(super) fn push(&self, record: RawRef) -> Pushed {
        let node = record.into_raw();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == DEAD {
                // SAFETY: the pointer was just made from the record and not pushed.
                return Pushed::Refused(unsafe { RawRef::from_raw(node) });
            }
            // SAFETY: until the exchange succeeds, the node is ours.
            unsafe { *(*node).next.get() = head };
            match self.head.compare_exchange_weak(head, node, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return if head == IDLE { Pushed::Woke } else { Pushed::Queued },
                Err(now) => head = now,
            }
        }
    }

    /// Takes all mail, oldest first, leaving `BUSY` (or `last`). Null if there is none.
    pub(super) fn take_mail(&self, last: *mut Record) -> *mut Record {
        let mut node = self.head.swap(last, Ordering::SeqCst);
        let mut oldest = std::ptr::null_mut();
        while is_record(node) {
            // SAFETY: nodes in the list are records whose counts the list owns; taking the head made them ours.
            unsafe {
                let after = std::mem::replace(&mut *(*node).next.get(), oldest);
                oldest = node;
                node = after;
            }
        }
        oldest
    }

    /// Declares the actor idle, if no mail came meanwhile and nobody else has done so.
    pub(super) fn settle_idle(&self) -> bool {
        match self.head.compare_exchange(BUSY, IDLE, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => true,
            Err(now) => !is_record(now),
        }
    }
}

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
        return cell::failed(blank(local, entry, 1, Phase::Failed, actor), Error::ShutDown);
    }
    if let Some(more) = actor.more.get()
        && more.max_pending > 0
        && let Err(e) = reserve(engine, local, actor)
    {
        return cell::failed(blank(local, entry, 1, Phase::Failed, actor), e);
    }
    let (refs, phase) = if writer.refers { (2, Phase::Waiting) } else { (2, Phase::Queued) };
    let (record, refers) = writer.finish(blank(local, entry, refs, phase, actor), entry.result_size);
    if cell::phase(record.state()) == Phase::Failed {
        unreserve(actor);
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

#[inline]
fn blank(local: &Local, entry: &'static FnEntry, refs: u32, phase: Phase, actor: &ActorRef) -> Blank {
    Blank {
        entry,
        refs,
        phase,
        caller: local.caller(),
        id: local.next_id(),
        target: Some(actor.clone()),
        extra: None,
        caps: None,
    }
}

/// Entries of records that carry no call.
static STOP: FnEntry = FnEntry::inert("stop", Kind::Stop);
static POKE: FnEntry = FnEntry::inert("poke", Kind::Object);

/// A record that makes the drainer look at the actor's other state.
pub(super) fn control(local: &Local, actor: &ActorRef, stop: bool) -> RawRef {
    let entry = if stop { &STOP } else { &POKE };
    cell::with_args(blank(local, entry, 1, Phase::Queued, actor), &[], &[], 0)
}

impl Engine {
    /// Puts a record into an actor's mailbox and sees to it that somebody comes.
    #[inline]
    pub(super) fn post(self: &Arc<Engine>, local: &Local, actor: &ActorRef, mail: RawRef) {
        match actor.push(mail) {
            Pushed::Queued => {}
            Pushed::Woke => self.push_actor(local, actor.clone()),
            Pushed::Refused(mail) => {
                unreserve(actor);
                if mail.entry.kind != Kind::Stop && mail.entry.kind != Kind::Object {
                    super::life::fail(self, local, &mail, &actor.death());
                }
            }
        }
    }

    /// Queues an actor that has mail.
    #[inline]
    pub(super) fn push_actor(self: &Arc<Engine>, local: &Local, actor: ActorRef) {
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
    let full = || Error::MailboxFull { actor: actor.entry.name, max_pending: more.max_pending };
    loop {
        let took = more.pending.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
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
        let block = engine.block(local);
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

/// Gives a place in a bounded mailbox back.
#[inline]
pub(super) fn unreserve(actor: &ActorCell) {
    if let Some(more) = actor.more.get()
        && more.max_pending > 0
    {
        let _ = more.pending.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
        drop(more.room.0.lock());
        more.room.1.notify_one();
    }
}
