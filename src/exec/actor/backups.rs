//! What the drainer tells whoever keeps an actor's history on other nodes, and what it is told.
//!
//! A call that may change the state is handed in before it runs, its end afterwards; whoever keeps the history puts the outcome
//! into the record once others have written the call down. Between two calls the drainer saves the state when that is wanted, and runs
//! none while the log has no room.
//!
//! Invariant: an actor without backups pays for none of this but a pointer that is null. Left out: who the others are, and what is
//! sent to them (`node`).

use std::sync::Arc;

use super::super::call::{CallError, Outcome, StateRef};
use super::super::cell::RawRef;
use super::super::engine::Engine;
#[cfg(feature = "cluster")]
use super::super::entry::FnEntry;
use super::super::events;
use super::super::far::Parcel;
use super::super::local::Local;
use super::history;
use super::run::Drain;
use super::{ActorCell, ActorRef, More};
use crate::base::{ActorKey, Error, snapshot};
use crate::trace::Deed;

/// What is wanted of the drainer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The state, as soon as no call changes it.
    pub state: bool,
    /// No call is to run.
    pub rest: bool,
}

/// Keeps an actor's history elsewhere. Nothing here waits for other nodes.
pub trait Backups: Send + Sync {
    /// The actor's first name among all nodes, and how often it was made.
    fn kept(&self) -> (ActorKey, u64);

    /// A call of the actor, by its record's number: who made it, and its number there. The same when it runs again.
    fn call(&self, record: u64) -> (u64, u64);

    /// The actor is there: calls can be put into its mailbox.
    fn made(&self, actor: &ActorRef);

    /// Its constructor, which this calls, has run for the first time; or another call that makes it did.
    fn born(&self, local: &Local, init: Option<Parcel>);

    /// The turn of a claimed call has come that may change the state.
    fn turn(&self, local: &Local, record: &RawRef, call: Parcel);

    /// A claimed call has ended, and nobody was told: to be settled when that may be.
    fn ended(&self, local: &Local, record: &RawRef, outcome: std::thread::Result<Outcome>);

    /// Cheap: asked before each call.
    fn wants(&self) -> Wants;

    /// The state, as an object, or why it cannot be had.
    fn state(&self, local: &Local, state: Result<RawRef, Error>);

    /// A checkpoint is wanted: the claimed call is settled when others have it.
    fn checkpoint(&self, local: &Local, record: &RawRef);

    /// The last call may have left the state as running it again would not.
    fn unsure(&self, local: &Local);

    /// The actor was made anew, with nothing behind it.
    fn anew(&self, local: &Local);

    /// What can be seen from outside.
    fn look(&self) -> (snapshot::History, snapshot::Kept);
}

/// How an actor is made that another node had.
#[cfg(feature = "cluster")]
pub struct Revival {
    /// Makes it as it was at its last checkpoint; its constructor does if there is none.
    pub restore: Option<Parcel>,
    /// How often it was made again.
    pub restarts: u32,
}

impl More {
    /// Whoever keeps its history elsewhere.
    pub(super) fn backups(&self) -> Option<&Arc<dyn Backups>> {
        self.backups.get()
    }
}

impl ActorCell {
    /// Whoever keeps its history elsewhere.
    #[inline]
    pub(in crate::exec) fn backups(&self) -> Option<&Arc<dyn Backups>> {
        self.more.get().and_then(|m| m.backups.get())
    }

    /// If its history is kept elsewhere: its first name among all nodes, and how often it was made.
    pub fn kept(&self) -> Option<(ActorKey, u64)> {
        match self.far() {
            Some(far) => far.kept(),
            None => self.backups().map(|b| b.kept()),
        }
    }

    /// Which call of the actor this is, if its history is kept elsewhere; the same when it runs again there.
    pub fn kept_call(&self, record: u64) -> Option<(ActorKey, u64, u64)> {
        let backups = self.backups()?;
        let (caller, number) = backups.call(record);
        Some((backups.kept().0, caller, number))
    }

    /// Whether nothing may run now, since there is no room to write it down.
    pub(super) fn rests(&self) -> bool {
        self.backups().is_some_and(|b| b.wants().rest)
    }
}

/// Settles a call of an actor, or leaves that to whoever keeps its history.
#[inline]
pub(in super::super) fn conclude(
    engine: &Arc<Engine>,
    local: &Local,
    record: &RawRef,
    outcome: std::thread::Result<Outcome>,
) {
    match record.target().and_then(|actor| actor.backups()) {
        None => engine.settle(local, record, outcome),
        Some(backups) => backups.ended(local, record, outcome),
    }
}

/// Says that a call of an actor with backups runs now.
pub(super) fn turn(local: &Local, actor: &ActorCell, record: &RawRef) {
    if let Some(backups) = actor.backups()
        && history::changes(record.entry.kind)
        // A call whose arguments are not there fails, and changes nothing.
        && let Ok(call) = Parcel::pack(local, record)
    {
        backups.turn(local, record, call);
    }
}

/// Has whoever keeps an actor's history look after it again: the drainer asks what is wanted.
#[cfg(feature = "cluster")]
pub fn look_after(actor: &ActorRef) {
    super::mailbox::poke(actor);
}

/// Whether calls of this method are handed to [`Backups::turn`]: they may change the state.
#[cfg(feature = "cluster")]
pub fn is_logged(method: &FnEntry) -> bool {
    history::changes(method.kind)
}

impl Drain<'_> {
    /// Does what is wanted between two calls; true: none is to run.
    #[cold]
    pub(super) fn keep_up(&self, engine: &Arc<Engine>, backups: &dyn Backups) -> bool {
        let (actor, local) = (self.actor(), self.local());
        let wants = backups.wants();
        let changing = || {
            let gate = actor.more.get().and_then(|m| m.gate.get());
            gate.is_some_and(|gate| gate.lock().busy())
        };
        if wants.state && !changing() {
            let state = StateRef(actor.state.load(std::sync::atomic::Ordering::Relaxed));
            let begin = events::now();
            let saved = history::saved(engine, local, actor, state);
            if let Ok(state) = &saved {
                let (calls, bytes) = (backups.look().0.order, state.value_size() as u64);
                events::kept(local, Deed::Checkpoint, actor, begin, calls, bytes);
            }
            backups.state(local, saved);
        }
        backups.wants().rest
    }
}

impl Engine {
    /// Settles a call that [`Backups::ended`] was told of.
    pub fn settle_kept(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        outcome: std::thread::Result<Outcome>,
    ) {
        self.settle(local, record, outcome);
    }

    /// Settles a claimed call without arguments that gives nothing.
    pub fn settle_unit(self: &Arc<Engine>, local: &Local, record: &RawRef) {
        let given = super::run::give_unit(local, record).map_err(CallError::Runtime);
        self.settle(local, record, Ok(given));
    }
}
