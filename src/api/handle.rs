//! Handles of actors.
//!
//! Invariant: a `Handle<A>` refers to an actor of type `A`. Its clones keep the actor alive.
//! Left out: the methods themselves; the macro writes them, and the handle derefs to them.

use std::ops::Deref;

use rkyv::rancor::{self, Source, Strategy};
use rkyv::{Archive, Deserialize, Place, Serialize};

use super::ObjectRef;
use super::object_ref::NoSuchReference;
use crate::exec::RawHandle;
use crate::exec::actor::{self, Life};
use crate::exec::local;
use crate::exec::tasks::{Actor, ActorMethods};
use crate::value::{ArchivedCap, De, Ser};

/// A handle to an actor of type `A`: its remote methods are called on it, and each returns an
/// [`ObjectRef`](crate::ObjectRef) at once.
///
/// Handles are cheap to clone, can be sent anywhere and travel inside values. When the last one goes, the actor executes
/// the calls it has and ends, unless it is detached.
///
/// ```
/// # use mobula::prelude::*;
/// #[remote]
/// struct Counter { total: u64 }
///
/// #[remote]
/// impl Counter {
///     pub fn new(start: u64) -> Self { Counter { total: start } }
///     pub fn add(&mut self, n: u64) -> u64 { self.total += n; self.total }
/// }
///
/// # let _mobula = mobula::init()?;
/// let counter = Counter::remote(10);
/// counter.add(5);
/// assert_eq!(mobula::get(counter.add(1))?, 16);
/// # Ok::<(), mobula::Error>(())
/// ```
pub struct Handle<A: Actor> {
    methods: A::Methods,
}

impl<A: Actor> Handle<A> {
    pub(super) fn new(raw: RawHandle) -> Handle<A> {
        Handle {
            methods: A::Methods::from_raw(raw),
        }
    }

    fn raw(&self) -> &RawHandle {
        self.methods.raw()
    }

    /// Ends the actor after the calls it has; later ones fail with [`Error::ActorDied`](crate::Error::ActorDied). Returns
    /// at once.
    pub fn stop(&self) {
        actor::stop(self.raw().actor());
    }

    /// Ends the actor as soon as the call that runs now has ended: a thread cannot be interrupted. Calls in the mailbox
    /// fail. It is not restarted. Returns at once.
    pub fn kill(&self) {
        actor::kill(self.raw().actor());
    }

    /// As [`kill`](Self::kill), but the actor is made again by its constructor, with the arguments it was created with, and
    /// goes on with the calls in its mailbox. Counts as one of its `max_restarts`; without one left it ends.
    pub fn restart(&self) {
        actor::restart(self.raw().actor());
    }

    /// Has the actor save its state, after the calls that this thread has sent it: the reference ends when that is done. From then
    /// on a death costs no more than the calls after this one. Costs what archiving the state does, and for an actor of another node
    /// what a call there costs; returns at once.
    ///
    /// With `durable_checkpoints` that has come when the state is written outside of all nodes, too.
    ///
    /// Fails, at `get`, with [`Error::Encode`](crate::Error::Encode) for an actor that keeps no history, or whose state has no
    /// archive; [`Error::NotDurable`](crate::Error::NotDurable) if it was to be written and cannot be.
    ///
    /// ```no_run
    /// # use mobula::prelude::*;
    /// # #[remote] struct Counter { total: u64 }
    /// # #[remote] impl Counter { pub fn new() -> Self { Counter { total: 0 } } }
    /// let counter = Counter::options().isolate(true).max_restarts(3).remote();
    /// mobula::get(counter.checkpoint())?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn checkpoint(&self) -> ObjectRef<()> {
        let saving =
            local::with(|local| actor::checkpoint(&local.engine, local, self.raw().actor()));
        saving.map_or_else(super::no_runtime, ObjectRef::new)
    }

    /// The actor's number, unique in this process.
    pub fn id(&self) -> u64 {
        self.raw().actor().id()
    }

    /// Whether it still takes calls.
    pub fn is_alive(&self) -> bool {
        self.raw().actor().life() != Life::Dead
    }

    /// How many calls wait in its mailbox, if that is bounded by `max_pending`; else 0.
    pub fn pending(&self) -> u32 {
        self.raw().actor().pending()
    }
}

impl<A: Actor> Deref for Handle<A> {
    type Target = A::Methods;
    #[inline]
    fn deref(&self) -> &A::Methods {
        &self.methods
    }
}

impl<A: Actor> Clone for Handle<A> {
    fn clone(&self) -> Handle<A> {
        Handle::new(self.raw().clone())
    }
}

impl<A: Actor> std::fmt::Debug for Handle<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let actor = self.raw().actor();
        write!(f, "Handle({} {:#x}", actor.entry().name, actor.id())?;
        if let Some(name) = actor.name() {
            write!(f, " \"{name}\"")?;
        }
        write!(f, ", {:?})", actor.life())
    }
}

impl<A: Actor> PartialEq for Handle<A> {
    /// Whether both refer to the same actor.
    fn eq(&self, other: &Handle<A>) -> bool {
        self.raw().actor().same(other.raw().actor())
    }
}

impl<A: Actor> Eq for Handle<A> {}

impl<A: Actor> Archive for Handle<A> {
    type Archived = ArchivedCap<Handle<A>>;
    type Resolver = u32;

    fn resolve(&self, index: u32, out: Place<Self::Archived>) {
        ArchivedCap::resolve(index, out);
    }
}

impl<A: Actor> Serialize<Strategy<Ser, rancor::Error>> for Handle<A> {
    fn serialize(&self, ser: &mut Strategy<Ser, rancor::Error>) -> Result<u32, rancor::Error> {
        Ok(Ser::of(ser).push_cap(self.raw().clone().into_cap::<A>()))
    }
}

impl<A: Actor> Deserialize<Handle<A>, Strategy<De, rancor::Error>> for ArchivedCap<Handle<A>> {
    fn deserialize(
        &self,
        de: &mut Strategy<De, rancor::Error>,
    ) -> Result<Handle<A>, rancor::Error> {
        De::of(de)
            .cap(self.index())
            .and_then(RawHandle::from_cap::<A>)
            .map(Handle::new)
            .ok_or_else(|| rancor::Error::new(NoSuchReference(self.index())))
    }
}
